"""Which training samples deserve more work."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from egnn_prune.errors import ConfigError
from egnn_prune.selection.draws import replay_weights, rounds
from egnn_prune.selection.geometry import greedy_k_centre, k_means
from egnn_prune.selection.sample_scores import SampleScores, score_samples
from egnn_prune.selection.strategies import STRATEGIES, Rule, Strategy


def select(
    sample_scores: SampleScores | Tensor,
    strategy: str,
    *,
    fraction: float = 0.3,
    threshold: float = 0.1,
    band: Sequence[float] = (0.5, 0.9),
    generator: torch.Generator,
) -> Tensor:
    """Row numbers of the selected samples, by the name of a strategy.

    Args:
        sample_scores: what is known about every sample (:func:`score_samples` collects it); a
            tensor ``[n]`` stands for uncertainties alone, which is enough for all strategies but
            ``"diverse"``, ``"loss"`` and ``"prototype"``.
        strategy: a name in :data:`STRATEGIES`.
        fraction: share of the samples, for all strategies but ``"threshold"``; at least one.
        threshold: for ``"threshold"``, in the unit of the uncertainty.
        band: for ``"band"``, the lowest and the highest quantile of uncertainty.
        generator: for the strategies that draw; the same seed selects the same samples.

    Returns:
        ``[k]``, all different.

    Raises:
        ConfigError: an unknown strategy, a value out of range, evidence that the strategy lacks,
            or nothing to select.

    Example:
        >>> uncertainty = torch.tensor([0.1, 0.7, 0.2, 0.9])
        >>> select(uncertainty, "top", fraction=0.5, generator=torch.Generator())
        tensor([3, 1])
    """
    if strategy not in STRATEGIES:
        raise ConfigError(
            f"selection.strategy must be one of {', '.join(STRATEGIES)}, not {strategy!r}"
        )
    if isinstance(sample_scores, Tensor):
        sample_scores = SampleScores(sample_scores)
    if not 0 < fraction <= 1:
        raise ConfigError(f"selection.fraction lies in (0, 1], not {fraction}")
    if len(band) != 2 or not 0 <= band[0] < band[1] <= 1:
        raise ConfigError(
            f"selection.band needs two quantiles, 0 <= lowest < highest <= 1, not {list(band)}"
        )
    count = max(1, round(fraction * len(sample_scores)))
    return STRATEGIES[strategy](
        sample_scores, Rule(count, threshold, (band[0], band[1])), generator
    )


__all__ = [
    "STRATEGIES",
    "Rule",
    "SampleScores",
    "Strategy",
    "greedy_k_centre",
    "k_means",
    "replay_weights",
    "rounds",
    "score_samples",
    "select",
]
