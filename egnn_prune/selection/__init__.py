"""Which training samples deserve more work."""

from __future__ import annotations

import torch
from torch import Tensor

from egnn_prune.errors import ConfigError
from egnn_prune.selection.strategies import (
    above_threshold,
    least_uncertain,
    proportional,
    random_fraction,
    replay_weights,
    top_fraction,
)

STRATEGIES = ("top", "threshold", "proportional", "random", "least")


def select(
    uncertainty: Tensor,
    strategy: str,
    *,
    fraction: float,
    threshold: float,
    generator: torch.Generator,
) -> Tensor:
    """Row numbers of the selected samples, by the name of a strategy.

    Args:
        uncertainty: ``[n]``, higher is less sure.
        strategy: one of :data:`STRATEGIES`.
        fraction: share of samples, for all strategies but ``"threshold"``.
        threshold: for ``"threshold"``, in the unit of ``uncertainty``.
        generator: for the strategies that draw.

    Raises:
        ConfigError: an unknown strategy, a value out of range, or nothing to select.
    """
    if strategy == "top":
        return top_fraction(uncertainty, fraction)
    if strategy == "threshold":
        return above_threshold(uncertainty, threshold)
    if strategy == "proportional":
        return proportional(uncertainty, fraction, generator)
    if strategy == "random":
        return random_fraction(uncertainty, fraction, generator)
    if strategy == "least":
        return least_uncertain(uncertainty, fraction)
    raise ConfigError(
        f"selection.strategy must be one of {', '.join(STRATEGIES)}, not {strategy!r}"
    )


__all__ = [
    "STRATEGIES",
    "above_threshold",
    "least_uncertain",
    "proportional",
    "random_fraction",
    "replay_weights",
    "select",
    "top_fraction",
]
