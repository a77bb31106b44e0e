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
    _check(uncertainty)
    order = uncertainty.argsort(descending=True, stable=True)
    chosen = order[uncertainty[order] > threshold]
    if len(chosen) == 0:
        raise ConfigError(
            f"no training sample has an uncertainty above {threshold:g}; the largest is "
            f"{float(uncertainty.max()):g}"
        )
    return chosen


def replay_weights(selected: Tensor, n: int, share: float) -> Tensor:
    """How often to draw each sample when fine-tuning, so that ordinary ones are not forgotten.

    Args:
        selected: row numbers that were chosen.
        n: the number of samples to choose from.
        share: the share of draws that goes to samples that were *not* selected, in [0, 1).

    Returns:
        ``[n]`` probabilities: ``1 - share`` spread over the selected samples, ``share`` over the
        others (over the selected ones too where there are no others).

    Raises:
        ConfigError: the share is out of range, or nothing is selected.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"selection.replay is a share in [0, 1), not {share}")
    if len(selected) == 0:
        raise ConfigError("no sample is selected, so there is nothing to fine-tune on")
    ordinary = n - len(selected)
    weights = torch.full((n,), share / ordinary if ordinary else 0.0, dtype=torch.float64)
    weights[selected] = (1 - share if ordinary else 1.0) / len(selected)
    return weights


def _count(uncertainty: Tensor, fraction: float) -> int:
    if not 0 < fraction <= 1:
        raise ConfigError(f"selection.fraction lies in (0, 1], not {fraction}")
    _check(uncertainty)
    return max(1, round(fraction * len(uncertainty)))


def _check(uncertainty: Tensor) -> None:
    if uncertainty.dim() != 1 or len(uncertainty) == 0:
        raise ConfigError("selection needs one uncertainty per training sample")
    if not bool(torch.isfinite(uncertainty).all()):
        raise ConfigError("an uncertainty is NaN or infinite; check the trained model")
