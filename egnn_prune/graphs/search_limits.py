"""Checks of positions, cell and cutoff before the neighbour search."""

from __future__ import annotations

import math

import numpy as np

from egnn_prune.errors import DataError

#: Most pairs of one graph; some ten gigabytes while they are searched for.
MAX_PAIRS = 5e7
#: Most neighbours of an atom in a periodic graph, where they do not end with the atoms.
MAX_NEIGHBOURS = 1e5
#: The farthest that nodes may lie apart, in cutoffs.
MAX_SPREAD = 1e5
#: Shortest cutoff that the search accepts.
MIN_CUTOFF = 1e-5
#: Cells that the search lays over a graph without losing a direction (it has about 1e5 at most).
MAX_CELLS = 5e4


def search_cutoff(
    points: np.ndarray, cutoff: float, box: np.ndarray, periodic: list[bool]
) -> float:
    """The cutoff to search with: the one asked for, or another that finds no pair less.

    Far more cells than atoms are more than the search can count, so that wide graphs are searched
    with a longer cutoff; a cutoff longer than a molecule is cut to its size.

    Args:
        points: ``[N, 3]``.
        cutoff: the one asked for.
        box: ``[3, 3]``, the complete cell.
        periodic: which directions are.

    Raises:
        DataError: there is no such search, and what to do.
    """
    if not (isinstance(cutoff, int | float) and math.isfinite(cutoff) and cutoff >= MIN_CUTOFF):
        raise DataError(
            f"the cutoff must be a length of at least {MIN_CUTOFF:g}, not {cutoff}; set another"
        )
    if not len(points):
        return cutoff
    if not np.isfinite(points).all():
        raise DataError("a node has a NaN or infinite position; remove or repair the graph")
    # an overflow in the spread is a spread
    with np.errstate(all="ignore"):
        extent = points.max(0) - points.min(0)
        diagonal = float(np.linalg.norm(extent))
    if not diagonal <= MAX_SPREAD * max(cutoff, 1.0):
        middle = np.median(points, axis=0)
        with np.errstate(all="ignore"):
            far = int(np.abs(points - middle).max(1).argmax())
        raise DataError(
            f"the positions spread over {diagonal:.3g}, more than {MAX_SPREAD:g} times the cutoff "
            f"{cutoff:g} (node {far} lies farthest); repair the positions, or check their unit"
        )
    if not any(periodic):
        cutoff = min(cutoff, 1.01 * diagonal + 1.0)
        sides = extent
    else:
        # distances of the faces, and how many images of the cell are within reach
        inverse = np.linalg.norm(np.linalg.inv(box), axis=0)
        faces = 1.0 / inverse
        fractions = points @ np.linalg.inv(box)
        sides = np.where(periodic, faces, fractions.max(0) - fractions.min(0))
        _check_pairs_of_crystal(points, cutoff, sides, periodic)
    if not any(periodic) and len(points) ** 2 > MAX_PAIRS:
        _check_crowding(points, cutoff)
    while np.maximum(np.floor(sides / cutoff), 1.0).prod() > MAX_CELLS:
        cutoff *= 1.1
    return cutoff


def _check_pairs_of_crystal(
    points: np.ndarray, cutoff: float, sides: np.ndarray, periodic: list[bool]
) -> None:
    images = np.where(periodic, 2 * np.ceil(cutoff / sides) + 1, 1.0).prod()
    if len(points) ** 2 * images <= MAX_PAIRS and images <= MAX_NEIGHBOURS:
        return
    reach = np.where(periodic, 2 * cutoff, np.minimum(2 * cutoff, sides + 1e-3 * cutoff))
    volume = np.where(periodic, sides, np.maximum(sides, 1e-3 * cutoff)).prod()
    around = len(points) * reach.prod() / volume * np.pi / 6
    if around > MAX_NEIGHBOURS or around * len(points) > MAX_PAIRS:
        shortest = float(sides[periodic].min())
        raise DataError(
            f"each of {len(points)} atoms would have some {around:.1g} neighbours within the "
            f"cutoff {cutoff:g} (the cell is {shortest:.3g} thin); repair the cell, check its "
            "unit, or set a shorter cutoff"
        )


def _check_crowding(points: np.ndarray, cutoff: float) -> None:
    """Count the atoms in boxes of the cutoff's size: a pair lies in one box or in two that touch.

    Raises:
        DataError: there would be too many pairs.
    """
    boxes = np.floor((points - points.min(0)) / cutoff).astype(np.int64)
    _, counts = np.unique(boxes, axis=0, return_counts=True)
    pairs = min(4.2 * float((counts.astype(np.float64) ** 2).sum()), float(len(points)) ** 2)
    if pairs > MAX_PAIRS:
        raise DataError(
            f"{len(points)} nodes would have some {pairs:.1g} pairs within the cutoff {cutoff:g}; "
            "set a shorter cutoff, or check the unit of the positions"
        )
