"""Structures that are unlike the training ones in a known way, and the atoms at which they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase.build import molecule
from ase.collections import g2
from ase.data import covalent_radii
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch_geometric.data import Data

from egnn_prune.ase.structures import graph_of
from egnn_prune.graphs import edge_vectors, neighbours
from egnn_prune.training.distillation import bare

#: Atoms are bonded up to so many times the sum of their covalent radii.
BONDED = 1.25
#: A bond becomes longer by a share of its length between these.
STRETCHED = (0.15, 0.4)
#: A hydrogen moves so far out along its bond, in Angstrom.
MOVED = 2.0
#: Least distance between two molecules of a cluster, in Angstrom.
APART = (3.0, 5.0)
#: Atoms nearer than this to what was changed count as near, in Angstrom; of clusters the second.
NEAR, TOUCHING = 3.0, 5.0
#: Other molecules are shaken by so much, in Angstrom.
SHAKEN = 0.05


@dataclass(frozen=True)
class Changed:
    """A structure and where it is unlike the training structures.

    Attributes:
        graph: ``z [N]``, ``pos [N, 3]``, periodic ones with ``cell`` and ``pbc``; labels only where
            it has some.
        atoms: ``[N]``, bool: what was changed and its neighbours; ``None`` where all of it is.
    """

    graph: Data
    atoms: Tensor | None = None


Change = Callable[[Data, np.random.Generator], Changed | None]


def changed(change: Change, graphs: Sequence[Data], count: int, seed: int) -> list[Changed]:
    """The first structures that can be changed so, each once; maybe fewer than ``count``.

    Args:
        change: such as :func:`stretched`; gives ``None`` where a structure has nothing to change.
        graphs: structures like the training ones.
        count: the most.
        seed: of the draws.
    """
    draws = np.random.default_rng(seed)
    found: list[Changed] = []
    for graph in graphs:
        if len(found) < count and (made := change(bare(graph), draws)) is not None:
            found.append(made)
    return found


def stretched(graph: Data, draws: np.random.Generator) -> Changed | None:
    """One bond that is in no ring, longer by 15 % to 40 %; what hangs on it moves along."""
    pairs, vectors = bonds(graph)
    for edge in draws.permutation(pairs.shape[1]):
        source, target = pairs[:, edge].tolist()
        kept = ~((pairs[0] == source) & (pairs[1] == target))
        kept &= ~((pairs[0] == target) & (pairs[1] == source))
        part = pieces(len(graph.pos), pairs[:, kept])
        side = part == part[target]
        if bool(side[source]) or int(side.sum()) > len(side) / 2:
            continue  # in a ring, or the same bond seen from its heavier side
        moved = graph.clone()
        moved.pos = graph.pos.clone()
        moved.pos[side] += vectors[edge] * draws.uniform(*STRETCHED)
        ends = torch.zeros(len(side), dtype=torch.bool)
        ends[[source, target]] = True
        return Changed(moved, _with_neighbours(ends, pairs))
    return None


def broken(graph: Data, draws: np.random.Generator) -> Changed | None:
    """A hydrogen 2 Angstrom farther out, where that leaves it away from all other atoms."""
    pairs, vectors = bonds(graph)
    best: tuple[float, Data, int, int] | None = None
    for edge in draws.permutation(pairs.shape[1]):
        source, target = pairs[:, edge].tolist()
        if int(graph.z[target]) != 1:
            continue
        moved = graph.clone()
        moved.pos = graph.pos.clone()
        moved.pos[target] += MOVED * vectors[edge] / vectors[edge].norm()
        away = _distances_to(moved, target)
        away[target] = torch.inf
        if best is None or float(away.min()) > best[0]:
            best = float(away.min()), moved, source, target
        if best[0] > 1.5:
            break
    if best is None:
        return None
    _, moved, source, target = best
    ends = torch.zeros(len(graph.pos), dtype=torch.bool)
    ends[[source, target]] = True
    return Changed(moved, _with_neighbours(ends, pairs) | (_distances_to(moved, target) < NEAR))


def vacancy(graph: Data, draws: np.random.Generator) -> Changed:
    """One molecule less of a liquid, or one atom less of a crystal."""
    part = pieces(len(graph.pos), bonds(graph)[0])
    centre = int(draws.integers(len(graph.pos)))
    gone = part == part[centre]
    if bool(gone.all()):
        gone = torch.arange(len(gone)) == centre
    near = torch.zeros(len(gone), dtype=torch.bool)
    for atom in gone.nonzero().flatten().tolist():
        near |= _distances_to(graph, atom) < NEAR
    rest = graph.clone()
    rest.z, rest.pos = graph.z[~gone], graph.pos[~gone]
    return Changed(rest, near[~gone])


def cluster(graph: Data, draws: np.random.Generator) -> Changed:
    """A molecule and a turned copy of it, whose nearest atoms are 3 to 5 Angstrom apart."""
    turn = torch.from_numpy(np.linalg.qr(draws.normal(size=(3, 3)))[0]).to(graph.pos)
    turn = turn * torch.linalg.det(turn)  # no mirror image
    first = graph.pos - graph.pos.mean(0)
    second = first @ turn
    way = torch.from_numpy(draws.normal(size=3)).to(first)
    way, gap, step = way / way.norm(), draws.uniform(*APART), 0.0
    while float(torch.cdist(first, second + step * way).min()) < gap:
        step += 0.05
    second = second + step * way
    both = Data(z=torch.cat([graph.z, graph.z]), pos=torch.cat([first, second]))
    away = torch.cdist(first, second)
    return Changed(both, torch.cat([away.amin(1), away.amin(0)]) < TOUCHING)


def other_molecules(
    elements: Sequence[int], like: Data, count: int, seed: int
) -> dict[str, list[Changed]]:
    """Molecules of the G2 set that have no other elements, shaken: isomers, and others.

    Args:
        elements: atomic numbers that are known.
        like: a training structure; isomers have its atoms, but other bonds.
        count: of each kind, the most.
        seed: of the draws.

    Returns:
        By kind; a kind that has no molecules is missing.
    """
    draws = np.random.default_rng(seed)
    kinds: dict[str, list[str]] = {"isomer": [], "other molecule": []}
    for name in g2.names:
        atoms = molecule(name)
        if len(atoms) == 1 or not set(atoms.numbers) <= set(elements):
            continue
        if sorted(atoms.numbers) != sorted(like.z.tolist()):
            kinds["other molecule"].append(name)
        elif _kinds_of_bonds(graph_of(atoms)) != _kinds_of_bonds(like):
            kinds["isomer"].append(name)
    found: dict[str, list[Changed]] = {}
    for kind, names in kinds.items():
        drawn = [names[i] for i in draws.permutation(len(names))]
        for k in range(count if drawn else 0):
            one = molecule(drawn[k % len(drawn)])
            one.positions += SHAKEN * draws.normal(size=one.positions.shape)
            found.setdefault(kind, []).append(Changed(graph_of(one)))
    return found


def _kinds_of_bonds(graph: Data) -> list[tuple[int, ...]]:
    return sorted(tuple(graph.z[pair].tolist()) for pair in bonds(graph)[0].T)


def of_a_new_species(graph: Data, elements: Sequence[int]) -> Data:
    """The structure with an atom of an element that is not among the known ones."""
    other = bare(graph)
    other.z = graph.z.clone()
    other.z[0] = next(z for z in (9, 17, 16) if z not in elements)
    return other


def bonds(graph: Data) -> tuple[Tensor, Tensor]:
    """Bonded pairs, source above target, both ways, ``[2, E]``; vectors between them ``[E, 3]``."""
    radius = torch.from_numpy(covalent_radii)[graph.z]
    cutoff = BONDED * 2 * float(radius.max())
    pairs, shift = neighbours(graph.pos, cutoff, graph.get("cell"), graph.get("pbc"))
    vectors = edge_vectors(graph.pos, pairs, shift)
    near = vectors.norm(dim=1) < BONDED * (radius[pairs[0]] + radius[pairs[1]])
    return pairs[:, near], vectors[near]


def pieces(atoms: int, pairs: Tensor) -> Tensor:
    """The number of the piece that each atom is connected to, ``[N]``."""
    source, target = pairs.numpy()
    graph = coo_array((np.ones(len(source)), (source, target)), shape=(atoms, atoms))
    return torch.from_numpy(connected_components(graph, directed=False)[1]).long()


def _with_neighbours(atoms: Tensor, pairs: Tensor) -> Tensor:
    found = atoms.clone()
    found[pairs[1][atoms[pairs[0]]]] = True
    return found


def _distances_to(graph: Data, atom: int) -> Tensor:
    """From one atom to all, the nearest image of each, ``[N]``; itself 0."""
    away = graph.pos - graph.pos[atom]
    if graph.get("cell") is not None:
        cell = graph.cell.view(3, 3)
        steps = torch.cartesian_prod(*3 * [torch.arange(-1.0, 2.0, dtype=cell.dtype)])
        images = away @ torch.linalg.inv(cell)
        away = (images - images.round())[:, None] @ cell + steps @ cell
        return away.norm(dim=-1).amin(1)
    return away.norm(dim=1)
