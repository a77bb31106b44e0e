"""Which nodes are near enough to exchange messages, and how far apart they are."""

from __future__ import annotations

import math

import numpy as np
import torch
import vesin
from ase.geometry import complete_cell
from torch import Tensor

from egnn_prune.errors import DataError
from egnn_prune.graphs.search_limits import MAX_SPREAD, MIN_CUTOFF, search_cutoff

#: Largest graphs, and most pairs of a batch, that are compared all with all. From 60 atoms on a
#: search of its own for each graph is faster.
SMALL, MANY = 50, 500_000


def complete_edges(ptr: Tensor) -> Tensor:
    """Edges between all pairs of different nodes of each graph, sorted by target.

    Args:
        ptr: ``[graphs + 1]``, where each graph's nodes begin; the last entry is their number.

    Returns:
        ``edge_index [2, E]``, source above target (PyG's convention).
    """
    sizes = ptr[1:] - ptr[:-1]
    degree = (sizes - 1).clamp(min=0).repeat_interleave(sizes)
    target = torch.arange(int(ptr[-1]), device=ptr.device).repeat_interleave(degree)
    first_edge = (degree.cumsum(0) - degree).repeat_interleave(degree)
    rank = torch.arange(len(target), device=ptr.device) - first_edge
    start = ptr[:-1].repeat_interleave(sizes).repeat_interleave(degree)
    source = start + rank
    return torch.stack([source + (source >= target), target])  # skip the node itself


def neighbours(
    pos: Tensor, cutoff: float, cell: Tensor | None = None, pbc: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    r"""Pairs of *one* graph closer than ``cutoff``, with all periodic images, in O(N).

    The vector from source j to target i of an edge is :math:`x_i - x_j - s_{ij}`, where the shift
    :math:`s_{ij} = S_{ij} C` is a whole number of lattice vectors (the rows of the cell C). Atoms
    may lie outside the cell, and the cutoff may be longer than the cell: then a pair has several
    edges, and an atom has edges to its own images.

    Args:
        pos: ``[N, n]`` with n up to 3, in the same length unit as ``cutoff``.
        cutoff: the largest distance that makes an edge.
        cell: ``[3, 3]`` or ``[1, 3, 3]``, rows are lattice vectors; those of directions that are
            not periodic do not matter.
        pbc: ``[3]`` or ``[1, 3]``, which directions are periodic; all, unless given.

    Returns:
        ``edge_index [2, E]``, source above target, sorted by target and then by source, and
        ``edge_shift [E, 3]`` (all zero where no direction is periodic), or ``None`` without a cell
        and ``pbc``.

    Raises:
        DataError: positions of more than 3 dimensions, which cell lists do not cover, periodic
            ones of fewer, a cell of no volume, or more space or pairs than can be searched.
    """
    dimension = pos.shape[1]
    if dimension > 3:
        raise DataError(
            f"neighbour lists with a cutoff exist for up to 3 dimensions, not {dimension}; "
            "use cutoff=None (all pairs)"
        )
    box, periodic = _box(cell, pbc)
    if any(periodic) and dimension != 3:
        raise DataError(f"periodic cells exist in 3 dimensions, not {dimension}; leave out pbc")
    points = torch.zeros(len(pos), 3, dtype=torch.float64)
    points[:, :dimension] = pos.detach().cpu()
    searched = search_cutoff(points.numpy(), cutoff, box, periodic)
    lists = vesin.NeighborList(cutoff=searched, full_list=True, sorted=True)
    target, source, images = lists.compute(
        points=points.numpy(), box=box, periodic=periodic, quantities="ijS"
    )
    if searched > cutoff:
        vectors = points.numpy()[target] - points.numpy()[source] - images @ box
        near = (vectors**2).sum(1) < cutoff**2
        target, source, images = target[near], source[near], images[near]
    order = np.lexsort((source, target))
    pairs = np.stack([source[order], target[order]]).astype(np.int64)
    edge_index = torch.from_numpy(pairs).to(pos.device)
    if cell is None and pbc is None:
        return edge_index, None
    shift = torch.from_numpy(images[order].reshape(-1, 3) @ box)  # vesin: x_j - x_i + S C
    return edge_index, shift.to(pos)[:, :dimension]


def molecules_edges(pos: Tensor, ptr: Tensor, cutoff: float) -> Tensor | None:
    """The edges of many small graphs that are not periodic, all at once.

    What :func:`neighbours` finds graph by graph, in the same order. For small graphs all pairs are
    quickly compared, and a search of its own for each takes far longer than a network's layer.

    Args:
        pos: ``[N, n]``.
        ptr: ``[graphs + 1]``, see :func:`complete_edges`.
        cutoff: the largest distance that makes an edge.

    Returns:
        ``edge_index [2, E]``; ``None`` where that is not the way: graphs are large, or something
        is to be refused, which :func:`neighbours` puts into words.
    """
    sizes = ptr.diff()
    few = int(sizes.max()) <= SMALL and int((sizes * sizes).sum()) <= MANY
    usable = isinstance(cutoff, int | float) and MIN_CUTOFF <= cutoff < math.inf
    if not few or pos.shape[1] > 3 or not usable:
        return None
    pairs = complete_edges(ptr)
    squares = edge_vectors(pos.detach().double(), pairs).square().sum(1)
    # a bounding box is at most sqrt(3) times as long as its farthest pair; NaN is not close, either
    close = squares <= (MAX_SPREAD * max(cutoff, 1.0)) ** 2 / 3
    if not bool(close.all()) or not bool(pos.isfinite().all()):
        return None
    return pairs[:, squares < cutoff**2]


def cutoff_edges(pos: Tensor, cutoff: float) -> Tensor:
    """Edges between nodes of *one* molecule closer than ``cutoff``: see :func:`neighbours`."""
    return neighbours(pos, cutoff)[0]


def _box(cell: Tensor | None, pbc: Tensor | None) -> tuple[np.ndarray, list[bool]]:
    """The cell with unit vectors where it is not periodic, and which directions are periodic."""
    if cell is None and pbc is not None and bool(pbc.any()):
        raise DataError("periodic boundaries need a cell [3, 3]; set it, or leave out pbc")
    box = np.zeros((3, 3)) if cell is None else cell.detach().cpu().double().numpy().reshape(3, 3)
    periodic = [cell is not None] * 3 if pbc is None else [bool(p) for p in pbc.flatten()]
    vectors = box[periodic]
    if not np.isfinite(vectors).all():
        raise DataError("the cell has a NaN or infinite entry; repair it")
    # of one, two or three vectors, in units of their lengths: tiny cells are cells, too
    span = np.linalg.det(vectors @ vectors.T) / max((vectors**2).sum(1).prod(), 1e-300)
    if not span > 1e-12:  # an empty matrix has determinant 1
        raise DataError(
            "the cell has no volume in its periodic directions, so that its images coincide; "
            "repair the cell, or leave out pbc"
        )
    return complete_cell(np.where(np.array(periodic)[:, None], box, 0.0)), periodic


def edge_vectors(
    pos: Tensor, edge_index: Tensor | tuple[Tensor, Tensor], edge_shift: Tensor | None = None
) -> Tensor:
    """From source to target of every edge, ``[E, n]``, in the precision of the positions."""
    source, target = edge_index
    difference = pos.index_select(0, target) - pos.index_select(0, source)
    return difference if edge_shift is None else difference - edge_shift
