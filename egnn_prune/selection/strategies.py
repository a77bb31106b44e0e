"""Which training samples deserve more work: from uncertainties to row numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from egnn_prune.errors import ConfigError


def top_fraction(uncertainty: Tensor, fraction: float) -> Tensor:
    """The most uncertain ``fraction`` of the samples (at least one), most uncertain first.

    Args:
        uncertainty: ``[n]``, higher is less sure.
        fraction: in (0, 1].
    """
    return uncertainty.argsort(descending=True, stable=True)[: _count(uncertainty, fraction)]


def least_uncertain(uncertainty: Tensor, fraction: float) -> Tensor:
    """The *least* uncertain ``fraction``: the control that ought to do worst."""
    return uncertainty.argsort(stable=True)[: _count(uncertainty, fraction)]


def random_fraction(uncertainty: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """A random ``fraction``, blind to uncertainty: the control that has to be beaten."""
    return torch.randperm(len(uncertainty), generator=generator)[: _count(uncertainty, fraction)]


def proportional(uncertainty: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Draw a ``fraction`` without replacement, with probability proportional to uncertainty."""
    weights = uncertainty.double().clamp(min=0)
    count = _count(uncertainty, fraction)
    if int((weights > 0).sum()) < count:
        raise ConfigError("fewer samples have a positive uncertainty than selection.fraction asks")
    return torch.multinomial(weights, count, generator=generator)


def above_threshold(uncertainty: Tensor, threshold: float) -> Tensor:
    """All samples whose uncertainty exceeds ``threshold``, most uncertain first.

    Raises:
        ConfigError: there is none.
    """
    order = uncertainty.argsort(descending=True, stable=True)
    chosen = order[uncertainty[order] > threshold]
    if len(chosen) == 0:
        raise ConfigError(
            f"no training sample has an uncertainty above {threshold:g}; the largest is "
            f"{float(uncertainty.max()):g}"
        )
    return chosen


def with_replay(selected: Tensor, n: int, share: float, generator: torch.Generator) -> Tensor:
    """Add ordinary samples, so that fine-tuning does not forget them.

    Args:
        selected: row numbers that were chosen.
        n: the number of samples to choose from.
        share: the share of the result that is drawn at random from the samples not selected, in
            [0, 1); fewer are added when there are not enough left.
        generator: draws them.

    Returns:
        The selected rows followed by the replayed ones.

    Raises:
        ConfigError: the share is out of range.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"selection.replay is a share in [0, 1), not {share}")
    count = round(len(selected) * share / (1 - share))
    rest = torch.ones(n, dtype=torch.bool)
    rest[selected] = False
    ordinary = rest.nonzero().flatten()
    order = torch.randperm(len(ordinary), generator=generator)[:count]
    return torch.cat([selected, ordinary[order]])


def _count(uncertainty: Tensor, fraction: float) -> int:
    if not 0 < fraction <= 1:
        raise ConfigError(f"selection.fraction lies in (0, 1], not {fraction}")
    if uncertainty.dim() != 1 or len(uncertainty) == 0:
        raise ConfigError("selection needs one uncertainty per training sample")
    if not bool(torch.isfinite(uncertainty).all()):
        raise ConfigError("an uncertainty is NaN or infinite; check the trained model")
    return max(1, round(fraction * len(uncertainty)))
