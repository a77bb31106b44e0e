"""Intervals: Student's t over seeds, and the bootstrap over structures of one run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom.
_T_95 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
_Z_95 = 1.959964


@dataclass(frozen=True)
class Summary:
    """Mean of `n` values.

    Attributes:
        n: How many values were finite.
        mean: Their mean; NaN if there are none.
        sd: Sample standard deviation; NaN for fewer than two values.
        half: Half width of the 95 % t-interval of the mean; NaN for fewer than two values.
    """

    n: int
    mean: float
    sd: float
    half: float


def t_quantile(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t distribution.

    Beyond the table, two terms of the Cornish-Fisher expansion are exact to four decimals.

    Raises:
        ValueError: If `freedom` is less than one.
    """
    if freedom < 1:
        raise ValueError(f"degrees of freedom must be at least 1, got {freedom}")
    if freedom <= len(_T_95):
        return _T_95[freedom - 1]
    z = _Z_95
    first = (z**3 + z) / (4 * freedom)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return z + first + second


def summarise(values: Sequence[float]) -> Summary:
    """Summarises the finite values; the result has the unit of the input."""
    finite = [value for value in values if math.isfinite(value)]
    n = len(finite)
    if n == 0:
        return Summary(0, math.nan, math.nan, math.nan)
    mean = math.fsum(finite) / n
    if n == 1:
        return Summary(1, mean, math.nan, math.nan)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in finite) / (n - 1))
    return Summary(n, mean, sd, t_quantile(n - 1) * sd / math.sqrt(n))


Array = NDArray[np.float64]

DRAWS = 1000
"""Resamples behind an interval: its ends are then good to a tenth of its width."""

_AT_ONCE = 2_000_000
"""Numbers of one block of resamples, so that large test splits fit into memory."""


def bootstrap_interval(
    statistic: Callable[[Array], Array], n: int, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of a number found on `n` structures: the percentile bootstrap.

    Structures are drawn with replacement. A comparison of models is paired when `statistic` looks
    at all of them with the same counts: what is hard for both then cancels.

    Args:
        statistic: From how often each structure was drawn, ``[k, n]``, to the number ``[k]``.
        n: Structures.
        draws: Resamples.
        seed: Of the draws; the same seed gives the same interval.

    Returns:
        Lower and upper end. They are widened to hold the number itself, which resampling can leave
        outside where it is biased, as calibration errors are. NaN for fewer than two structures, or
        where the number or one in twenty of its resamples is not finite.
    """
    missing = (math.nan, math.nan)
    if n < 2:
        return missing
    with np.errstate(all="ignore"):  # what cannot be computed is NaN, and looked at below
        found = float(statistic(np.ones((1, n)))[0])
        random, values = np.random.default_rng(seed), []
        block = max(1, _AT_ONCE // n)
        for start in range(0, draws, block):
            rows = min(block, draws - start)
            drawn = random.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
            values.append(statistic(counts.astype(np.float64)))
    resampled = np.concatenate(values)
    resampled = resampled[np.isfinite(resampled)]
    if not math.isfinite(found) or resampled.size < 0.95 * draws:
        return missing
    low, high = np.percentile(resampled, [2.5, 97.5])
    return min(float(low), found), max(float(high), found)
