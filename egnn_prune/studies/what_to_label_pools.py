"""Pools of 3BPA's frames with a rare part: hot ones, or ones with a stretched bond."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.neighborlist import build_neighbor_list, natural_cutoffs
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import nn
from torch_geometric.data import Data

from egnn_prune.errors import ConfigError
from egnn_prune.studies.specialisation_systems import frames_of_3bpa, system
from egnn_prune.training.distillation import bare, label

#: A bond is stretched by between these shares of its length.
STRETCH = (0.15, 0.4)


@dataclass(frozen=True)
class Pools:
    """Structures of a seed, of which none is in two parts.

    Attributes:
        train: labelled, that the network is trained on before.
        val: labelled, that its error bars are fitted to.
        common: of the kind that the network knows, for pools.
        rare: of the kind that it does not, for pools.
        test_common: labelled, the same for all seeds.
        test_rare: labelled, the same for all seeds.
        labels: ``"data"``, or ``"teacher"`` where structures are labelled by it.
    """

    train: list[Data]
    val: list[Data]
    common: list[Data]
    rare: list[Data]
    test_common: list[Data]
    test_rare: list[Data]
    labels: str

    def pool(self, share: float, size: int) -> tuple[list[Data], int]:
        """Structures to choose from, and how many of them, the first ones, are rare.

        Pools of a seed are nested: more rare ones take the places of common ones.

        Raises:
            ConfigError: there are too few structures.
        """
        rare = max(1, round(share * size))
        if rare > len(self.rare) or size - rare > len(self.common):
            raise ConfigError(
                f"a pool of {size} with {rare} rare structures needs more than the "
                f"{len(self.common)} common and {len(self.rare)} rare ones here; lower pool or "
                "shares"
            )
        return self.rare[:rare] + self.common[: size - rare], rare


def pools(kind: str, teacher: nn.Module, train: int, test: int, seed: int) -> Pools:
    """The structures of a seed.

    ``hot``: frames of ``train_mixedT`` with an energy above every frame of ``train_300K`` (600 and
    1200 K, but for a few that are no hotter than those at 300 K), labelled by DFT. ``bond``: frames
    at 300 K of which one bond is stretched, and all labels are the teacher's.

    Args:
        kind: ``hot`` or ``bond``.
        teacher: labels, where the kind is ``bond``.
        train: training structures.
        test: structures to test on, of each kind.
        seed: of the draw.

    Raises:
        ConfigError: the data are not here.
    """
    found = system("3bpa", teacher, train, seed)
    cold = frames_of_3bpa("train_300K")
    known = {place(graph) for graph in found.train + found.val}
    common = shuffled([graph for graph in cold if place(graph) not in known], seed)
    ordinary = found.test[:test]
    if kind == "hot":
        hot = hot_frames_of_3bpa()
        rare = shuffled(hot[test:], seed)
        return Pools(found.train, found.val, common, rare, ordinary, hot[:test], "data")
    tested = {place(graph) for graph in found.test}
    others = shuffled([g for g in frames_of_3bpa("test_300K") if place(g) not in tested], 0)
    strained = [stretched(graph, number) for number, graph in enumerate(others[: 2 * test + 200])]
    rare = shuffled(strained[test:], seed)
    parts = [
        label(teacher, graphs, progress=f"teacher's labels, {len(graphs)} structures")
        for graphs in (found.train, found.val, ordinary, strained[:test])
    ]
    return Pools(parts[0], parts[1], common, rare, parts[2], parts[3], "teacher")


def hot_frames_of_3bpa() -> list[Data]:
    """Frames of mixed temperatures with an energy above every frame at 300 K, in one order.

    Raises:
        ConfigError: the data are not here.
    """
    cold = frames_of_3bpa("train_300K")
    hottest, seen = max(float(graph.y) for graph in cold), {place(graph) for graph in cold}
    hot = [g for g in frames_of_3bpa("train_mixedT") if float(g.y) > hottest]
    return shuffled([graph for graph in hot if place(graph) not in seen], 0)


def place(graph: Data) -> bytes:
    """The same for structures of the same atoms at the same positions."""
    return graph.pos.double().numpy().tobytes() + graph.z.numpy().tobytes()


def shuffled(graphs: Sequence[Data], seed: int) -> list[Data]:
    """The structures in another order."""
    return [graphs[i] for i in np.random.default_rng(seed).permutation(len(graphs))]


def stretched(graph: Data, seed: int) -> Data:
    """A copy without labels whose smaller side of one bond, drawn at random, is moved away.

    Bonds of rings are left alone: no side could move.
    """
    draws = np.random.default_rng(seed)
    found = bridges(graph)
    i, j, side = found[int(draws.integers(len(found)))]
    out = bare(graph)
    axis = out.pos[j] - out.pos[i]
    out.pos = out.pos.clone()
    out.pos[torch.from_numpy(side)] += draws.uniform(*STRETCH) * axis
    return out


def bridges(graph: Data) -> list[tuple[int, int, np.ndarray]]:
    """Bonds that hold two parts of a molecule together: atoms i, j, and the smaller part, j's."""
    atoms = Atoms(graph.z.numpy(), graph.pos.double().numpy())
    near = build_neighbor_list(atoms, natural_cutoffs(atoms), self_interaction=False)
    bonds = coo_array(near.get_connectivity_matrix(sparse=True))
    pairs = np.stack([bonds.row, bonds.col], 1)
    whole = connected_components(bonds, directed=False)[0]
    found = []
    for number, (i, j) in enumerate(pairs.tolist()):
        rest = np.delete(pairs, number, 0)
        cut = coo_array((np.ones(len(rest)), rest.T), shape=bonds.shape)
        count, part = connected_components(cut, directed=False)
        if count > whole:
            side = part == part[j]
            larger = 2 * side.sum() > (part == part[i]).sum() + side.sum()
            found.append((j, i, part == part[i]) if larger else (i, j, side))
    return found
