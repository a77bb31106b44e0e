"""Time for energy and forces over sizes: both take turns on structures that grow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import Any

import ase
import numpy as np
from tqdm import tqdm

from egnn_prune.audit.candidate import Candidate
from egnn_prune.audit.intervals import Statistic, value_of
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.report.common.intervals import medians
from egnn_prune.system.timing import alternating_times

#: Timed turns, after one that does not count.
TURNS = 7
#: Structures of more atoms are refused.
MOST_ATOMS = 100_000
#: Angstrom between copies of a molecule, and that atoms move between calls.
GAP, MOVE = 2.5, 1e-3


def speed(
    candidates: Mapping[str, Candidate], start: ase.Atoms, sizes: Sequence[int], seed: int
) -> list[dict[str, Any]]:
    """Median wall times for energy and forces of one structure, and B's over A's.

    Returns:
        For each size ``atoms``; ``a`` and ``b`` in ms (None where the calculator failed);
        ``ratio`` of these with ``low`` and ``high``, by the bootstrap over turns; and
        ``failed``, why there is no time.
    """
    found: dict[int, dict[str, Any]] = {}
    draws = np.random.default_rng(seed)
    for size in tqdm(sorted({*sizes}), "sizes", leave=False):
        atoms = grown(start, size)
        if len(atoms) in found:
            continue
        moved = []
        for _ in range(3):  # what was computed already would take no time
            moved.append(atoms.copy())
            moved[-1].positions += MOVE * draws.normal(size=(len(atoms), 3))
        runs: dict[str, Callable[[], object]] = {
            who: partial(_next, candidate, cycle(moved)) for who, candidate in candidates.items()
        }
        row: dict[str, Any] = {"atoms": len(atoms), "a": None, "b": None, "failed": None}
        try:
            times = alternating_times(runs, TURNS, 1, "cpu")  # calculators hand back numpy arrays
        except InputError as error:
            row |= {"ratio": math.nan, "low": math.nan, "high": math.nan, "failed": str(error)}
        else:
            a, b = (medians(np.array(times[who])) for who in ("a", "b"))
            ratio, low, high = value_of(_ratio(b, a), TURNS)
            row |= {who: float(np.median(t)) for who, t in times.items()}
            row |= {"ratio": ratio, "low": low, "high": high}
        found[len(atoms)] = row
    return list(found.values())


def _ratio(above: Statistic, below: Statistic) -> Statistic:
    return lambda drawn: above(drawn) / below(drawn)


def _next(candidate: Candidate, structures: Any) -> None:
    candidate.answer(next(structures), "a structure that was repeated")


def grown(atoms: ase.Atoms, size: int) -> ase.Atoms:
    """A structure of at least so many atoms: a crystal's cell repeated, a molecule's copies apart.

    Raises:
        ConfigError: the number is not positive, or too large.
    """
    if not 1 <= size <= MOST_ATOMS:
        raise ConfigError(f"a size is a number of atoms from 1 to {MOST_ATOMS:,}, not {size}")
    copies = math.ceil(size / len(atoms))
    out = atoms.copy()
    out.set_constraint()
    if not out.pbc.any():
        out.set_cell(np.diag(np.ptp(out.positions, axis=0) + GAP))
    axes = np.flatnonzero(out.pbc) if out.pbc.any() else np.arange(3)
    times = np.ones(3, dtype=int)
    while times.prod() < copies:  # along the shortest edge, so that it stays compact
        lengths = times * out.cell.lengths()
        times[axes[lengths[axes].argmin()]] += 1
    out = out.repeat(tuple(times))
    if not out.pbc.any():
        out = out[: copies * len(atoms)]
        out.set_cell(None)
    return out
