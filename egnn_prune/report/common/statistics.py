"""Statistics over seeds, paired by seed; and the bootstrap over the structures of one run."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit  # scipy.stats.t.ppf, without the seconds that its import takes

from egnn_prune.report.common.files import number
from egnn_prune.report.common.formatting import MISSING, significant

Rows = Sequence[Mapping[str, Any]]
"""Results, one mapping per trained network, each with a ``seed``."""

BySeed = Mapping[Any, float]


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

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.half


def t_quantile(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t distribution.

    Raises:
        ValueError: If `freedom` is less than one.
    """
    if freedom < 1:
        raise ValueError(f"degrees of freedom must be at least 1, got {freedom}")
    return float(stdtrit(freedom, 0.975))


def summarise(values: Iterable[float]) -> Summary:
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


def values(rows: Rows, key: str, **cell: Hashable) -> list[Any]:
    """The different values of a key in the rows of a cell, in order of appearance."""
    return list(dict.fromkeys(row[key] for row in rows if cell.items() <= row.items()))


def by_seed(rows: Rows, key: str, **cell: Hashable) -> dict[Any, float]:
    """One number per seed, of the rows that have the values in `cell`; NaN is left out."""
    inside = (row for row in rows if cell.items() <= row.items())
    found = {row["seed"]: number(row.get(key)) for row in inside}
    return {seed: value for seed, value in found.items() if math.isfinite(value)}


def over_seeds(rows: Rows, key: str, **cell: Hashable) -> Summary:
    """Mean and spread of one number over the seeds of a cell."""
    return summarise(by_seed(rows, key, **cell).values())


def differences(new: BySeed, old: BySeed) -> dict[Any, float]:
    """``new - old`` of the seeds that both have."""
    return {seed: new[seed] - old[seed] for seed in new if seed in old}


def paired(new: BySeed, old: BySeed) -> Summary:
    """Mean and 95 % t-interval of the :func:`differences`."""
    return summarise(differences(new, old).values())


def spread_text(found: Summary, places: int | None = None) -> str:
    """``mean ± standard deviation``; the mean alone where there is one seed.

    Args:
        found: What to write.
        places: Decimals; None: as many as the mean has with three significant digits.
    """
    text = significant(found.mean)
    if math.isnan(found.sd) or text == MISSING:
        return text
    if places is None:
        return f"{text} ± {found.sd:.{len(text.partition('.')[2])}f}"
    return f"{found.mean:.{places}f} ± {found.sd:.{places}f}"


def interval_text(found: Summary, places: int, note: str = "") -> str:
    """``difference [95 % interval]`` with signs; `note` follows the difference."""
    if found.n == 0:
        return MISSING
    text = f"{found.mean:+z.{places}f}{note}"
    if math.isnan(found.half):
        return text
    return f"{text} [{found.low:+z.{places}f}, {found.high:+z.{places}f}]"


def paired_text(new: BySeed, old: BySeed, digits: int = 4) -> str:
    """``difference (percent) [95 % interval]`` in the unit of the numbers.

    Args:
        new: Numbers by seed.
        old: What they are compared with; the mean of its seeds that `new` has is the reference.
        digits: Significant digits of the reference, whose decimals the difference gets: with four
            there are some left of a difference of a few percent.
    """
    reference = summarise(old[seed] for seed in old if seed in new).mean
    difference = paired(new, old)
    if not reference > 0:
        return interval_text(difference, 4)
    places = max(0, digits - 1 - math.floor(math.log10(reference)))
    return interval_text(difference, places, f" ({100 * difference.mean / reference:+z.1f} %)")


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
