"""Sparsification: how much error is left once the most uncertain molecules are taken out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def sparsification(error: Array, score: Array) -> tuple[Array, Array]:
    r"""RMSE of the molecules that remain, relative to all of them.

    With the errors in order of falling score, :math:`e_{(1)}, \dots, e_{(n)}`, after taking out
    the first k

    .. math:: s(k/n) = \mathrm{RMSE}(e_{(k+1)}, \dots, e_{(n)}) / \mathrm{RMSE}(e) .

    Molecules of the same score leave together, as if a part of each did, so that a constant score
    gives a flat curve in whatever order the molecules stand. The oracle has the score :math:`|e|`;
    no curve lies below it. A score that knows nothing stays near 1. The area between curve and
    oracle is the AUSE (Ilg et al. 2018, Section 4.2), as `uncertainty.metrics.ause` sums it.

    Args:
        error: ``[n]`` prediction minus target, any unit.
        score: ``[n]`` uncertainty; only its order counts.

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
    removed = np.arange(error.size) / error.size
    return removed, np.sqrt(means[::-1] / means[-1])


def left_after(fraction: float, curve: tuple[Array, Array]) -> float:
    """Relative RMSE after taking out `fraction`; NaN for an empty curve."""
    removed, relative = curve
    if removed.size == 0:
        return float("nan")
    return float(np.interp(fraction, removed, relative))
