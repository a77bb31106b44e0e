r"""Do predicted intervals hold as many targets as they promise?

All intervals here are *central*: at level p, :math:`\mu \pm \sigma\,\Phi^{-1}((1 + p)/2)`. A
sample lies in the interval of level p when its own level
:math:`u = 2\Phi(|y - \mu|/\sigma) - 1` is at most p, so the observed coverage is the empirical
distribution function of u, and u is uniform when the error bars are true.
"""

from __future__ import annotations

import torch
from torch import Tensor

from egnn_prune.errors import ConfigError
from egnn_prune.uncertainty.arrays import Numbers
from egnn_prune.uncertainty.metrics.checks import checked_gaussian


def coverage_curve(mean: Numbers, variance: Numbers, target: Numbers) -> tuple[Tensor, Tensor]:
    """Expected and observed coverage at every step of the observed one, ``[N]`` each, ascending.

    Raises:
        InputError: the input cannot be scored: see ``checked_gaussian``, also for the arguments.
    """
    mean, variance, target = checked_gaussian(mean, variance, target)
    levels = torch.erf((target - mean).abs() / (2 * variance).sqrt()).sort().values
    n = len(levels)
    return levels, torch.arange(1, n + 1, dtype=levels.dtype, device=levels.device) / n


def miscalibration_area(mean: Numbers, variance: Numbers, target: Numbers) -> Tensor:
    r"""Area between observed and expected coverage, in [0, 1/2].

    :math:`\int_0^1 |\hat F(p) - p|\,dp` with the coverage :math:`\hat F` of central intervals,
    integrated exactly (a step function against a line; no grid of levels). Arguments and errors as
    in :func:`coverage_curve`.

    Errors of standard deviation :math:`\sigma`, predicted as :math:`k\sigma`, are expected to give
    :math:`|\tfrac2\pi \arctan k - \tfrac12|`; N samples of true error bars
    :math:`\sqrt{\pi/32N} \approx 0.31/\sqrt N`, so smaller areas are noise.

    Source: Kuleshov et al. 2018 (one-sided intervals there); Tran et al. 2020 (central ones).
    """
    start, end, observed = _steps(mean, variance, target)
    return (_signed_square(end - observed) - _signed_square(start - observed)).sum() / 2


def rms_calibration(mean: Numbers, variance: Numbers, target: Numbers) -> Tensor:
    r"""Root mean squared difference of observed and expected coverage, in [0, 0.58].

    :math:`\sqrt{\int_0^1 (\hat F(p) - p)^2\,dp}`, integrated exactly; arguments and errors as in
    :func:`coverage_curve`.

    Errors of standard deviation :math:`\sigma`, predicted as :math:`k\sigma`, are expected to give
    the root of :math:`\tfrac2\pi [\arcsin \tfrac{k^2}{1 + k^2} - 2 \arcsin
    \tfrac{k}{\sqrt{2 + 2 k^2}}] + \tfrac13`; N samples of true error bars
    :math:`1/\sqrt{6N}`.

    Source: Kuleshov et al. 2018, the root of their calibration error with equal weights, in the
    limit of many levels.
    """
    start, end, observed = _steps(mean, variance, target)
    return (((end - observed) ** 3 - (start - observed) ** 3).sum() / 3).clamp(min=0).sqrt()


def interval_coverage(mean: Numbers, variance: Numbers, target: Numbers, level: float) -> Tensor:
    r"""Share of the targets in the central interval of a level, in [0, 1].

    Arguments and errors as in :func:`coverage_curve`. Errors of standard deviation
    :math:`\sigma`, predicted as :math:`k\sigma`, are expected to give
    :math:`2\Phi(k\,\Phi^{-1}((1 + p)/2)) - 1`, with the standard error of a share of N.

    Raises:
        ConfigError: the level is not between 0 and 1.

    Example:
        >>> zero, one = [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]
        >>> float(interval_coverage(zero, one, [0.5, -1.0, 1.2, 3.0], 0.9))  # up to 1.645
        0.75
    """
    check_level(level)
    levels, _ = coverage_curve(mean, variance, target)
    return (levels <= level).double().mean()


def _steps(mean: Numbers, variance: Numbers, target: Numbers) -> tuple[Tensor, Tensor, Tensor]:
    """Start, end and height of the steps of the observed coverage, ``[N + 1]`` each."""
    levels, observed = coverage_curve(mean, variance, target)
    zero, one = levels.new_zeros(1), levels.new_ones(1)
    return torch.cat([zero, levels]), torch.cat([levels, one]), torch.cat([zero, observed])


def _signed_square(x: Tensor) -> Tensor:
    """Twice the antiderivative of the absolute value."""
    return x * x.abs()


def check_level(level: float) -> None:
    """Refuse what cannot be the level of an interval.

    Raises:
        ConfigError: it is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ConfigError(f"an interval's level lies between 0 and 1, as 0.9 does, not {level}")
