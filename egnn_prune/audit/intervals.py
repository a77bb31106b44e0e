"""Two numbers beside each other, with the interval of their difference: the only verdicts here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from egnn_prune.report.common.statistics import bootstrap_interval

Array = NDArray[np.float64]
#: From how often each structure was drawn, ``[k, S]``, to numbers ``[k]``.
Statistic = Callable[[Array], Array]

UNDECIDED, EQUAL = "not decided", "equal"
#: Differences in meV, or meV/Angstrom, that are those of rounding and of the digits in a file.
ROUNDING = 1e-3


@dataclass(frozen=True)
class Compared:
    """A quantity of which less is better.

    Attributes:
        name: what it is.
        unit: its unit.
        a: of A.
        b: of B.
        low: lower end of the 95 % interval of ``b - a``; NaN where it cannot be found.
        high: upper end.
        count: structures that it was found on.
    """

    name: str
    unit: str
    a: float
    b: float
    low: float
    high: float
    count: int

    @property
    def change(self) -> float:
        """``b - a``."""
        return self.b - self.a

    @property
    def verdict(self) -> str:
        """Whether B is better or worse, as far as the interval says."""
        if abs(self.change) < ROUNDING:
            return EQUAL
        if self.low > 0:
            return "B is worse"
        return "B is better" if self.high < 0 else UNDECIDED


def compared(name: str, unit: str, a: Statistic, b: Statistic, count: int) -> Compared:
    """Both statistics of all structures, and the paired bootstrap of their difference."""
    everyone = np.ones((1, count))
    low, high = bootstrap_interval(lambda drawn: b(drawn) - a(drawn), count)
    with np.errstate(all="ignore"):
        return Compared(name, unit, float(a(everyone)[0]), float(b(everyone)[0]), low, high, count)


def mean_of(values: Array, weights: Array | None = None, *, root: bool = False) -> Statistic:
    """Mean over the values of the drawn structures.

    Args:
        values: ``[S]`` sums over what each structure has.
        weights: ``[S]`` how many values each sum is of; by default one.
        root: of squares, whose root is taken.
    """
    counts = np.ones(len(values)) if weights is None else weights

    def statistic(drawn: Array) -> Array:
        mean: Array = (drawn @ values) / (drawn @ counts)
        return np.sqrt(mean) if root else mean

    return statistic


def nothing(drawn: Array) -> Array:
    """Of what has no error: A, where it is the reference."""
    return np.zeros(len(drawn))


def value_of(statistic: Statistic, count: int) -> tuple[float, float, float]:
    """A number of all structures with the ends of its 95 % interval."""
    with np.errstate(all="ignore"):
        found = float(statistic(np.ones((1, count)))[0])
    return (found, *bootstrap_interval(statistic, count))
