"""Are the predicted standard deviations true? The curves behind the calibration panels.

Molecules without a finite error and a finite, positive standard deviation are left out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Array = NDArray[np.float64]
Curve = tuple[Array, Array]


def reliability(error: Array, std: Array, bins: int = 8) -> Curve:
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
        prediction. Empty if no molecule is usable.
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
        Observed coverage ``[k]``; NaN if no molecule is usable.
    """
    error, std = _usable(error, std)
    if error.size == 0:
        return np.full(np.shape(levels), np.nan)
    return (np.abs(error / std)[:, None] <= ndtri((1 + levels) / 2)).mean(axis=0)


def overconfidence(error: Array, std: Array) -> float:
    r"""How many times larger the errors are than the error bars: RMSE / RMV over all molecules.

    RMV is the root of the mean variance (Levi et al. 2022, Section 3). 1 is right on average, above
    1 the error bars are too short; NaN if no molecule is usable.
    """
    error, std = _usable(error, std)
    return float(np.sqrt(np.mean(error**2) / np.mean(std**2))) if error.size else float("nan")


def _usable(error: Array, std: Array) -> Curve:
    usable = np.isfinite(error) & np.isfinite(std) & (std > 0)
    return error[usable], std[usable]


def sparsification(error: Array, score: Array) -> Curve:
    r"""RMSE of the molecules that remain once the most uncertain are out, relative to all of them.

    With the errors in order of falling score, :math:`e_{(1)}, \dots, e_{(n)}`, after taking out
    the first k

    .. math:: s(k/n) = \mathrm{RMSE}(e_{(k+1)}, \dots, e_{(n)}) / \mathrm{RMSE}(e) .

    Molecules of the same score leave together, as if a part of each did, so that a constant score
    gives a flat curve in whatever order the molecules stand. The oracle has the score :math:`|e|`;
    no curve lies below it. A score that knows nothing stays near 1. The area between curve and
    oracle is the AUSE (Ilg et al. 2018, Section 4.2), as `uncertainty.metrics.ause` sums it.

    Args:
        error: ``[n]`` prediction minus target, any unit.
        score: ``[n]`` uncertainty; only its order counts, so it may be zero or negative.

    Returns:
        Fraction taken out, ``[n]`` from 0 to 1 - 1/n, and relative RMSE. Empty if no molecule has a
        finite error and score, or all errors are zero.
    """
    usable = np.isfinite(error) & np.isfinite(score)
    error, score = error[usable], score[usable]
    if not error.any():
        return np.empty(0), np.empty(0)
    _, group, count = np.unique(score, return_inverse=True, return_counts=True)
    shared = np.bincount(group, error**2) / count
    # From the most certain molecule on: element k - 1 is the mean over the k that stay last.
    means = np.cumsum(np.repeat(shared, count)) / np.arange(1, error.size + 1)
    return np.arange(error.size) / error.size, np.sqrt(means[::-1] / means[-1])


def left_after(fraction: float, curve: Curve) -> float:
    """Relative RMSE after taking out `fraction`; NaN for an empty curve."""
    return float(np.interp(fraction, *curve)) if curve[0].size else float("nan")


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
