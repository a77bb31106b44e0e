"""How sure the errors of a run are: 95 % intervals over its test structures."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from egnn_prune.report.common.statistics import bootstrap_interval
from egnn_prune.report.specialise.files import Structures

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
Ends = tuple[float, float]

UNKNOWN: Ends = (math.nan, math.nan)


def force_rmse(test: Structures, name: str, element: int | None = None) -> Statistic:
    """Force RMSE of drawn structures, ``sqrt(sum of squares / components)``, meV/Angstrom.

    Args:
        test: The structures.
        name: Of the model.
        element: Atomic number, to look at the forces on its atoms only.
    """
    chosen = np.ones(len(test.z), bool) if element is None else test.z == element
    squares = (test.force_errors(name) ** 2).sum(1) * chosen
    sums = np.bincount(test.owner, squares, len(test))
    counts = 3.0 * np.bincount(test.owner, chosen, len(test))
    return lambda drawn: np.sqrt((drawn @ sums) / (drawn @ counts))


def number_of(statistic: Statistic, test: Structures) -> float:
    """What a statistic is of the structures as they are."""
    with np.errstate(all="ignore"):
        return float(statistic(np.ones((1, len(test))))[0])


def interval(statistic: Statistic, test: Structures) -> Ends:
    """95 % interval over the structures, paired where the statistic looks at several models."""
    return bootstrap_interval(statistic, len(test))


def rmse_interval(test: Structures, name: str, element: int | None = None) -> Ends:
    """Of a model's force RMSE; NaN without predictions."""
    if name not in test.all_forces:
        return UNKNOWN
    return interval(force_rmse(test, name, element), test)


def ratio_interval(test: Structures, new: str, old: str) -> Ends:
    """Of the force RMSE of one model over that of another, both on the same drawn structures."""
    if new not in test.all_forces or old not in test.all_forces:
        return UNKNOWN
    above, below = force_rmse(test, new), force_rmse(test, old)
    return interval(lambda drawn: above(drawn) / below(drawn), test)
