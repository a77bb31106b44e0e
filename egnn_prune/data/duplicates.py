"""Structures that a file holds more than once: found, and kept on one side of a random split.

Two structures are equal when a network of this package cannot tell them apart: without periodic
boundaries, when elements and distances between atoms are the same to 1e-5 Angstrom, in whatever
order the atoms come and however the structure is turned, moved or reflected; with periodic
boundaries, when elements, positions, cell and boundaries are the same numbers (another choice of
cell or origin is not recognised). Neighbouring frames of a trajectory are alike, but not equal:
they are split as any others, so take test structures from another trajectory.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from egnn_prune.data.store import GraphStore
from egnn_prune.errors import SuspiciousDataWarning

#: Largest difference of the distances of equal structures, in the unit of the positions.
TOLERANCE = 1e-5
#: Atoms up to which all distances are compared; beyond, those from the centre are enough.
ALL_DISTANCES = 200
#: Pairs of similar structures that are looked at closely, at most.
LOOKS = 200_000
#: Graphs whose atoms are in memory at a time.
BLOCK = 4096


def grouped_splits(
    store: GraphStore,
    split: Callable[[int], dict[str, Tensor]],
    name: str,
    rows: Tensor | None = None,
) -> tuple[dict[str, Tensor], list[str]]:
    """A random split that keeps equal structures together.

    Where no two structures are equal it is ``split`` of their number. Otherwise that splits the
    different structures, and each brings its copies along. Of fewer than 3 different ones no such
    split can be made: they are split as if they were different, with a warning.

    Args:
        store: the structures.
        split: the row numbers of each split, for a number of structures.
        name: the file, for messages.
        rows: the structures to split; all, unless given.

    Returns:
        The splits, and what is to be said of the copies: a sentence or nothing.

    Warns:
        SuspiciousDataWarning: fewer than 3 structures are different, or copies have different
            targets.
    """
    rows = torch.arange(len(store)) if rows is None else rows
    plain = {part: rows[chosen] for part, chosen in split(len(rows)).items()}
    used = torch.cat(list(plain.values())).sort().values  # of a long trajectory a small part
    if int(equal_structures(store, used.numpy()).max()) + 1 == len(used):
        return plain, []
    groups = equal_structures(store, rows.numpy())
    different = int(groups.max()) + 1
    warn_of_contradictions(groups, store, rows, name)
    if different < 3:
        warnings.warn(
            f"{name} holds {len(rows)} structures, but only {different} different one(s); copies "
            "of what is trained on are validated and tested on, which measures nothing",
            SuspiciousDataWarning,
            stacklevel=3,
        )
        return plain, []
    members: list[list[int]] = [[] for _ in range(different)]
    for row, group in zip(rows.tolist(), groups.tolist(), strict=True):
        members[group].append(row)
    splits = {
        part: torch.tensor([row for group in chosen.tolist() for row in members[group]])
        for part, chosen in split(different).items()
    }
    sentence = (
        f"{len(rows) - different} of {len(rows)} structures are copies of others; copies stay on "
        "one side of the split"
    )
    return splits, [sentence]


def shared_structures(store: GraphStore, splits: dict[str, Tensor], name: str) -> None:
    """Warn of a file's own split that tests on structures which it trains on."""
    rows = torch.cat(list(splits.values()))
    groups = equal_structures(store, rows.numpy())
    parts = dict(
        zip(
            splits, np.split(groups, np.cumsum([len(v) for v in splits.values()])[:-1]), strict=True
        )
    )
    known = set(parts["train"].tolist())
    for part in ("val", "test", "ood"):
        if shared := sum(group in known for group in parts.get(part, ())):
            warnings.warn(
                f"{shared} of {len(parts[part])} structures of the {part} split of {name} also are "
                "in its train split; what is measured there is remembered, not predicted",
                SuspiciousDataWarning,
                stacklevel=2,
            )


def warn_of_contradictions(groups: np.ndarray, store: GraphStore, rows: Tensor, name: str) -> None:
    """Warn where equal structures have different targets.

    Different is more than 1e-6 of the number and 1e-3 of its standard deviation over the data (at
    most 1e-3 in its unit, so that energies of different molecules do not set the scale).
    """
    y = store.column("y", rows).numpy().reshape(len(rows), -1)[:, 0]
    lowest, highest = np.full((2, groups.max() + 1), np.nan)
    lowest[groups] = highest[groups] = y
    np.minimum.at(lowest, groups, y)
    np.maximum.at(highest, groups, y)
    allowed = 1e-6 * np.abs(highest) + min(1e-3, 1e-3 * float(y.std()))
    wrong = np.flatnonzero(highest - lowest > allowed)
    if len(wrong):
        worst = wrong[np.argmax((highest - lowest)[wrong])]
        first, *_ = rows[torch.from_numpy(groups == worst)].tolist()
        warnings.warn(
            f"{len(wrong)} structure(s) of {name} are there more than once with different targets: "
            f"copies of structure {first} have {lowest[worst]:.8g} and {highest[worst]:.8g}; a "
            "network can learn their mean only (charge and spin are not seen)",
            SuspiciousDataWarning,
            stacklevel=3,
        )


def equal_structures(store: GraphStore, rows: np.ndarray) -> np.ndarray:
    """A number for each structure, the same for equal ones, from 0 in the order of appearance."""
    pbc = store.graphs.get("pbc")
    periodic = np.zeros(len(rows), bool) if pbc is None else np.asarray(pbc[rows]).any(1)
    leader = np.arange(len(rows))
    exact: dict[int, int] = {}
    for i in np.flatnonzero(periodic).tolist():
        leader[i] = exact.setdefault(fingerprint(store, int(rows[i])), i)
    free = np.flatnonzero(~periodic)
    leader[free] = free[_equal_molecules(store, rows[free])]
    _, first, inverse = np.unique(leader, return_index=True, return_inverse=True)
    order = np.empty(len(first), dtype=np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    return order[inverse]


def fingerprint(store: GraphStore, k: int) -> int:
    """The same for structures with the same elements at the same positions in the same cell."""
    atoms = slice(store.offset[k], store.offset[k + 1])
    parts = [store.nodes["z"][atoms], store.nodes["pos"][atoms]]
    if "pbc" in store.graphs and store.graphs["pbc"][k].any():
        parts += [store.graphs["cell"][k], store.graphs["pbc"][k]]
    return hash(tuple((part + 0).tobytes() for part in parts))  # -0.0 is 0.0


def _equal_molecules(store: GraphStore, rows: np.ndarray) -> np.ndarray:
    """For each structure the first one, by position in ``rows``, that it equals.

    Norms of the distances from the centre change by no more than the atoms move, so that equal
    structures are neighbours when sorted by one of them; only those are compared in full.
    """
    leader = np.arange(len(rows))
    formula, norms = _norms(store, rows)
    alive = np.lexsort((leader, norms[:, 0], formula))
    step, looks = 1, 0
    while step < len(alive) and looks < LOOKS:
        a, b = alive[:-step], alive[step:]
        near = (formula[a] == formula[b]) & (norms[b, 0] - norms[a, 0] <= TOLERANCE)
        if not near.any():
            break
        near &= (np.abs(norms[a] - norms[b]) <= TOLERANCE).all(1)
        dropped = np.zeros(len(alive), bool)
        for i in np.flatnonzero(near).tolist():
            looks += 1
            if _equal(store, int(rows[a[i]]), int(rows[b[i]])):
                leader[b[i]] = a[i]
                dropped[i + step] = True
        # who is next to whom changes where one is dropped
        step = 1 if dropped.any() else step + 1
        alive = alive[~dropped]
    return _first_of(leader)


def _first_of(leader: np.ndarray) -> np.ndarray:
    """Chains of leaders followed to their ends, and the smallest number of each group."""
    while (further := leader[leader] != leader).any():
        leader = np.where(further, leader[leader], leader)
    smallest = np.arange(len(leader))
    np.minimum.at(smallest, leader, np.arange(len(leader)))
    return smallest[leader]


def _norms(store: GraphStore, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``[M]`` the same for the same formula, ``[M, 4]`` norms of distances from the centre."""
    random = np.random.default_rng(0)
    keys = random.integers(1, 1 << 63, size=256, dtype=np.uint64)  # sums of them, without rounding
    weights = random.uniform(0.5, 1, size=256)
    formula = np.empty(len(rows), dtype=np.uint64)
    norms = np.empty((len(rows), 4))
    for start in range(0, len(rows), BLOCK):
        some = slice(start, start + BLOCK)
        sizes = store.offset[rows[some] + 1] - store.offset[rows[some]]
        begin = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        atoms = np.arange(sizes.sum()) + np.repeat(store.offset[rows[some]] - begin, sizes)
        z = np.asarray(store.nodes["z"][atoms])
        pos = np.asarray(store.nodes["pos"][atoms], dtype=np.float64)
        pos = pos * store.factors.get("pos", 1.0)
        centre = np.add.reduceat(pos, begin) / sizes[:, None]
        radius = np.linalg.norm(pos - np.repeat(centre, sizes, axis=0), axis=1)
        formula[some] = np.add.reduceat(keys[z], begin)
        norms[some] = np.stack(
            [
                np.sqrt(np.add.reduceat(weights[z] * radius**2, begin) / sizes),
                (np.add.reduceat(radius**4, begin) / sizes) ** 0.25,
                np.maximum.reduceat(radius, begin),
                np.minimum.reduceat(radius, begin),
            ],
            axis=1,
        )
    return formula, norms


def _equal(store: GraphStore, i: int, j: int) -> bool:
    """Whether elements and distances are the same."""
    (za, a), (zb, b) = _atoms(store, i), _atoms(store, j)
    if np.array_equal(za, zb) and np.array_equal(a, b):
        return True
    ra, rb = (np.linalg.norm(pos - pos.mean(0), axis=1) for pos in (a, b))
    order_a, order_b = np.lexsort((ra, za)), np.lexsort((rb, zb))
    if not np.array_equal(za[order_a], zb[order_b]):
        return False
    if np.abs(ra[order_a] - rb[order_b]).max() > TOLERANCE:
        return False
    if len(a) > ALL_DISTANCES:
        return True
    (pairs_a, da), (pairs_b, db) = _distances(za, a), _distances(zb, b)
    return np.array_equal(pairs_a, pairs_b) and bool((np.abs(da - db) <= 2 * TOLERANCE).all())


def _atoms(store: GraphStore, k: int) -> tuple[np.ndarray, np.ndarray]:
    atoms = slice(store.offset[k], store.offset[k + 1])
    pos = np.asarray(store.nodes["pos"][atoms], dtype=np.float64)
    return np.asarray(store.nodes["z"][atoms]), pos * store.factors.get("pos", 1.0)


def _distances(z: np.ndarray, pos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The elements and distances of all pairs of atoms, sorted by both."""
    i, j = np.triu_indices(len(z), 1)
    pair = np.minimum(z[i], z[j]).astype(np.int64) * 256 + np.maximum(z[i], z[j])
    distance = np.linalg.norm(pos[i] - pos[j], axis=1)
    order = np.lexsort((distance, pair))
    return pair[order], distance[order]
