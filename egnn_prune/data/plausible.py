"""Do forces belong to the energies beside them? Other units or another sign are noticed."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Data

from egnn_prune.data.dataset import GraphDataset
from egnn_prune.errors import SuspiciousDataWarning

#: Structures that are compared, and coordinates of pairs of them in memory at a time, at most.
STRUCTURES, COORDINATES = 120, 1 << 21
#: Fewest pairs that say something, and the farthest that do: root mean square step in Angstrom.
MIN_POINTS, FARTHEST = 20, 0.75
#: Energies may change this many times as much, or as little, as forces say. Right data are between
#: 0.5 and 1.6 (five molecules of rMD17, 3BPA up to 1,200 K); kcal/mol beside eV are 23.
FACTOR = 5.0
#: Rank correlation between both from which on the factor means a unit and not chance.
CORRELATION = 0.4

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """How the energies of pairs of similar structures differ, against what forces say.

    Attributes:
        pairs: how many were compared.
        ratio: median of the absolute differences of energy over that of the work; 1 is right.
        correlation: rank correlation of both; 1 is right.
    """

    pairs: int
    ratio: float
    correlation: float


def warn_of_other_units(dataset: GraphDataset, seed: int = 0) -> None:
    r"""Warn where energies and forces cannot belong together by their size or sign.

    Of up to 120 structures each is paired with the one most similar to it, and the difference of
    their energies compared with the work of the mean force on the way (the trapezoidal rule, exact
    for harmonic molecules): :math:`E_b - E_a = -\frac12 (F_a + F_b) \cdot (x_b - x_a)`, where
    structure b is turned onto structure a. The statistic is the median of the left side's size over
    that of the right side's. Below 1/5 or above 5, where both have a rank correlation of at least
    0.4, is a wrong unit; a rank correlation below -0.4 is a wrong sign.

    Only structures with the same elements in the same order (and the same cell) whose atoms are at
    most 0.75 Angstrom apart can be compared; fewer than 20 pairs say nothing.

    Args:
        dataset: energies and forces; without forces nothing is done.
        seed: chooses the structures.
    """
    found = agreement(sample(dataset, seed))
    if found is None or abs(found.correlation) < CORRELATION:
        return
    if not 1 / FACTOR <= found.ratio <= FACTOR:
        problem = (
            f"energies differ {found.ratio:.3g} times as much between similar structures as their "
            "forces say (1 is right, 23 is kcal/mol beside eV, 27 is Hartree): they are in "
            "different units, or the forces are of another energy"
        )
    elif found.correlation < 0:
        problem = "energies grow along the forces: these have the wrong sign (gradients?)"
    else:
        return
    warnings.warn(f"{dataset.name}: {problem}", SuspiciousDataWarning, stacklevel=2)


def sample(dataset: GraphDataset, seed: int) -> list[list[Data]]:
    """Training structures that can be compared, in groups; neighbours in the file stay together."""
    rows = torch.cat([dataset.splits["train"], dataset.splits["val"]]).sort().values
    starts = np.random.default_rng(seed).permutation(len(rows) // 2)[: 4 * STRUCTURES]
    chosen = [dataset.graphs[int(rows[i])] for s in starts.tolist() for i in (2 * s, 2 * s + 1)]
    keys = [_key(graph) for graph in chosen]
    largest = [key for key, count in Counter(keys).most_common() if count > 1]
    groups: list[list[Data]] = []
    left = STRUCTURES
    for key in largest:
        group = [graph for graph, other in zip(chosen, keys, strict=True) if other == key]
        atoms = group[0].pos.numel()
        most = min(left, int(math.sqrt(2 * COORDINATES / atoms)))
        groups.append(group[:most])
        left -= len(groups[-1])
        if left < 2:
            break
    return groups


def agreement(groups: list[list[Data]]) -> Agreement | None:
    """How energies and forces of structures with the same atoms agree; ``None``: too few pairs."""
    pairs = [_differences(group) for group in groups if len(group) > 1]
    if not pairs:
        return None
    energy, work = np.concatenate(pairs, axis=1)
    if len(energy) < MIN_POINTS or np.median(np.abs(work)) == 0 or np.median(np.abs(energy)) == 0:
        return None
    ratio = float(np.median(np.abs(energy)) / np.median(np.abs(work)))
    ranks = [values.argsort(kind="stable").argsort(kind="stable") for values in (energy, work)]
    return Agreement(len(energy), ratio, float(np.corrcoef(*ranks)[0, 1]))


def _key(graph: Data) -> bytes:
    pbc = getattr(graph, "pbc", None)
    cell = graph.cell.numpy().tobytes() if pbc is not None and bool(pbc.any()) else b""
    return bytes(graph.z.numpy().tobytes()) + cell


def _differences(group: list[Data]) -> Floats:
    """``[2, pairs]``: of the energies of neighbours, and what their forces say."""
    pos, forces = (np.stack([g[k].double().numpy() for g in group]) for k in ("pos", "forces"))
    energy = np.array([float(g.y) for g in group])
    first, second = np.triu_indices(len(group), 1)
    step, _ = _steps(group[0], pos[first], pos[second])
    distance = np.full((len(group), len(group)), np.inf)
    distance[first, second] = distance[second, first] = np.square(step).sum(2).mean(1)
    near = np.flatnonzero(distance.min(1) < FARTHEST**2)
    nearest = np.stack([near, distance[near].argmin(1)])
    a, b = np.unique(np.sort(nearest, axis=0), axis=1)
    step, turn = _steps(group[0], pos[a], pos[b])
    mean = (forces[a] + forces[b] @ turn) / 2
    return np.stack([energy[b] - energy[a], -(mean * step).sum((1, 2))])


def _steps(like: Data, a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """From structures a to structures b ``[K, N, 3]``, and how b is turned ``[K, 3, 3]``."""
    pbc = getattr(like, "pbc", None)
    if pbc is not None and bool(pbc.any()):
        cell, step = like.cell[0].double().numpy(), b - a
        step = step - (np.rint(step @ np.linalg.pinv(cell)) * pbc[0].numpy()) @ cell
        return step - step.mean(1, keepdims=True), np.tile(np.eye(3), (len(a), 1, 1))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    u, _, vt = np.linalg.svd(np.einsum("kni,knj->kij", b, a))  # Kabsch
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    turn = u @ vt
    return b @ turn - a, turn
