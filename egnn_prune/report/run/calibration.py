"""Are the predicted standard deviations true? The numbers behind the calibration panels."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def reliability(error: Array, std: Array, bins: int = 8) -> tuple[Array, Array]:
    """Bins molecules by predicted standard deviation, with equal counts per bin.

    Both values are root mean squares: a calibrated model has E[error^2] = E[std^2] in each bin.
    The rule is that of `uncertainty.metrics.ence`: the molecule that has r others below it goes to
    bin floor(r bins / n). Equal stds share a bin, so the order of the molecules does not matter.

    Args:
        error: Prediction minus target, any unit.
        std: Predicted standard deviation in the same unit.
        bins: Bins asked for; fewer are used so that each holds at least five molecules.

    Returns:
        Predicted and observed root mean square per bin, in the unit of the input, ordered by
        prediction. Empty if no molecule has a finite error and a positive std.
    """
    error, std = _usable(error, std)
    if error.size == 0:
        return np.empty(0), np.empty(0)
    below = np.searchsorted(np.sort(std), std)
    index = below * max(1, min(bins, error.size // 5)) // error.size
    _, index, count = np.unique(index, return_inverse=True, return_counts=True)
    predicted, observed = (
        np.sqrt(np.bincount(index, values**2) / count) for values in (std, error)
    )
    return predicted, observed


LEVELS = np.linspace(0.05, 0.95, 19)
"""Nominal coverages at which the coverage curve is drawn."""


def coverage(error: Array, std: Array, levels: Array = LEVELS) -> Array:
    r"""Share of molecules whose target lies within the central Gaussian interval.

    The interval of nominal coverage p is :math:`\mu \pm z_p \sigma` with
    :math:`z_p = \Phi^{-1}((1 + p) / 2)`, 1.645 for 90 %.

    Args:
        error: ``[n]`` prediction minus target, any unit.
        std: ``[n]`` predicted standard deviation in the same unit.
        levels: ``[k]`` nominal coverages, each above 0 and below 1.

    Returns:
        Observed coverage ``[k]``; NaN if no molecule has a finite error and a positive std.
    """
    error, std = _usable(error, std)
    if error.size == 0:
        return np.full(np.shape(levels), np.nan)
    z = np.array([NormalDist().inv_cdf((1 + level) / 2) for level in levels])
    return (np.abs(error / std)[:, None] <= z).mean(axis=0)


def overconfidence(error: Array, std: Array) -> float:
    r"""How many times larger the errors are than the error bars: RMSE / RMV over all molecules.

    RMV is the root of the mean variance (Levi et al. 2022, Section 3). 1 is right on average, above
    1 the error bars are too short.

    Returns:
        The ratio; NaN if no molecule has a finite error and a positive std.
    """
    error, std = _usable(error, std)
    if error.size == 0:
        return float("nan")
    return float(np.sqrt(np.mean(error**2) / np.mean(std**2)))


def _usable(error: Array, std: Array) -> tuple[Array, Array]:
    """The molecules with a finite error and a finite, positive std."""
    usable = np.isfinite(error) & np.isfinite(std) & (std > 0)
    return error[usable], std[usable]


def mae_half_interval(error: Array, graph: NDArray[np.int64] | None = None) -> float:
    r"""Half width of the 95 % interval of the MAE over graphs (normal approximation).

    Errors of one graph's coordinates go together, so that graphs count as draws, not coordinates:

    .. math::
        1.96 \sqrt{\frac{n}{n - 1} \sum_{g=1}^n
        \Bigl(\sum_{k \in g} (|e_k| - \text{MAE})\Bigr)^2} \Big/ K .

    With one number per graph (K = n) that is the usual standard error of a mean.

    Source: ratio of means over clusters, Cochran 1977, Sampling Techniques, Chapter 9A.

    Args:
        error: ``[K]`` prediction minus target, any unit.
        graph: ``[K]`` from 0 to n - 1, the graph of each number; None: each its own.

    Returns:
        The half width in the same unit; NaN for fewer than two graphs.
    """
    off = np.abs(error) - np.mean(np.abs(error)) if error.size else error
    per_graph = off if graph is None else np.bincount(graph, off)
    n = per_graph.size
    if n < 2:
        return float("nan")
    return float(1.96 * np.sqrt(n / (n - 1) * np.sum(per_graph**2)) / error.size)
