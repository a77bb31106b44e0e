"""Where B got worse: by element, surroundings, strain, uncertainty; and on which structures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.neighborlist import natural_cutoffs, neighbor_list
from numpy.typing import NDArray
from tqdm import tqdm

from egnn_prune.audit.intervals import Compared, compared, mean_of, nothing
from egnn_prune.audit.observations import A, B, Observations

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Two atoms are bonded within so many times the sum of their covalent radii.
BONDED = 1.25
#: Surroundings that are shown, those of most atoms first.
MOST = 12
#: Structures that are named.
NAMED = 10
#: Parts of equal count, by strain and by uncertainty.
PARTS = 4


def surroundings(seen: Observations) -> tuple[NDArray[np.int64], Array]:
    """How many neighbours every atom has ``[N]``, and how far its bonds are strained ``[N]``.

    Strain is the largest relative deviation of a bond's length from the median length of bonds
    between these two elements in all structures; 0 for an atom without bonds.
    """
    ends, pairs, lengths, start = [], [], [], 0
    for atoms in tqdm(seen.structures, "bonds", leave=False):
        i, j, length = neighbor_list("ijd", atoms, [BONDED * r for r in natural_cutoffs(atoms)])
        z = np.stack([atoms.numbers[i], atoms.numbers[j]])
        ends.append(start + i)
        pairs.append(1000 * z.min(0) + z.max(0))
        lengths.append(length)
        start += len(atoms)
    end, pair, length = (np.concatenate(found) for found in (ends, pairs, lengths))
    strain = np.zeros(start)
    for kind in np.unique(pair):
        of_kind = pair == kind
        off = abs(length[of_kind] / np.median(length[of_kind]) - 1)
        np.maximum.at(strain, end[of_kind], off)
    return np.bincount(end, minlength=start), strain


def groups(seen: Observations, neighbours: NDArray[np.int64], strain: Array) -> dict[str, Any]:
    """Force RMSE of A and B on the atoms of each group, in meV/Angstrom, by the kind of group.

    Without labels, A is the reference: its error is 0, B's is its distance from A.
    """
    found: dict[str, list[Compared]] = {}
    kinds: dict[str, Iterator[tuple[str, Mask]]] = {
        "element": _by_element(seen),
        "neighbours": _by_neighbours(seen, neighbours),
        "strain of bonds": _by_size(100 * strain, "%"),
    }
    doubt = seen.forces_std.get(B, seen.forces_std.get(A))
    if doubt is not None:
        who = "B" if B in seen.forces_std else "A"
        kinds[f"error bar of {who}"] = _by_size(1000 * doubt, "meV/Å")
    squares = {who: (seen.force_errors(who) ** 2).sum(1) for who in (A, B)}
    count = len(seen.structures)
    for kind, parts in kinds.items():
        found[kind] = []
        for name, inside in parts:
            sums = {w: seen.summed(s * inside) for w, s in squares.items()}
            weights = 3 * seen.summed(inside)
            b = mean_of(sums[B], weights, root=True)
            a = mean_of(sums[A], weights, root=True) if seen.has_forces else nothing
            found[kind].append(compared(name, "meV/Å", a, b, count))
    return found


def _by_element(seen: Observations) -> Iterator[tuple[str, Mask]]:
    for z in np.unique(seen.numbers):
        yield chemical_symbols[z], seen.numbers == z


def _by_neighbours(seen: Observations, neighbours: NDArray[np.int64]) -> Iterator[tuple[str, Mask]]:
    kinds, counts = np.unique(1000 * seen.numbers + neighbours, return_counts=True)
    shown = sorted(kinds[np.argsort(-counts, kind="stable")][:MOST])
    for kind in shown:
        z, number = divmod(int(kind), 1000)
        yield f"{chemical_symbols[z]} with {number}", 1000 * seen.numbers + neighbours == kind


def _by_size(values: Array, unit: str) -> Iterator[tuple[str, Mask]]:
    """Parts of equal count; equal values stay together."""
    ends = np.unique(np.quantile(values, np.linspace(0, 1, PARTS + 1)))
    for k, (low, high) in enumerate(pairwise(ends)):
        first = values >= low if k == 0 else values > low
        yield f"{_short(low)} to {_short(high)} {unit}", first & (values <= high)


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def structure_errors(seen: Observations) -> dict[str, Array]:
    """``[S]`` force RMSE of every structure by ``a`` and ``b``, in meV/Angstrom."""
    sums = {w: seen.summed((seen.force_errors(w) ** 2).sum(1)) for w in (A, B)}
    return {who: np.sqrt(total / (3 * seen.atoms)) for who, total in sums.items()}


def worst(
    seen: Observations, neighbours: NDArray[np.int64], strain: Array
) -> Sequence[Mapping[str, Any]]:
    """The structures whose force RMSE grew most from A to B, each with the atom that is worst."""
    errors = structure_errors(seen)
    grown = errors[B] - errors[A]
    size = np.linalg.norm(seen.force_errors(B), axis=1)
    size -= np.linalg.norm(seen.force_errors(A), axis=1)
    starts = np.concatenate([[0], np.cumsum(seen.atoms)])
    doubt = seen.forces_std.get(B)
    found = []
    for k in np.argsort(-grown, kind="stable")[:NAMED]:
        if not grown[k] > 0:
            break
        atom = int(starts[k] + size[starts[k] : starts[k + 1]].argmax())
        found.append(
            {
                "structure": int(seen.rows[k]),
                "formula": seen.structures[k].get_chemical_formula(),
                "a": errors[A][k],
                "b": errors[B][k],
                "atom": atom - int(starts[k]),
                "surroundings": f"{chemical_symbols[seen.numbers[atom]]} with {neighbours[atom]}",
                "strain_percent": 100 * strain[atom],
                "error_bar": None if doubt is None else 1000 * doubt[atom],
            }
        )
    return found


def spread(seen: Observations) -> dict[str, Any]:
    """How unevenly B got worse: quantiles over structures of ``b - a``, in meV/Angstrom."""
    errors = structure_errors(seen)
    grown = errors[B] - errors[A]
    at = {
        name: float(np.quantile(grown, q)) for name, q in (("50", 0.5), ("90", 0.9), ("99", 0.99))
    }
    return {
        "percentiles": at | {"100": float(grown.max())},
        "share_worse": float((grown > 0).mean()),
        "a": errors[A].tolist(),
        "b": errors[B].tolist(),
    }
