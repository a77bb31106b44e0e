"""Edges: who talks to whom, in which order, and how a batch is repeated."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import vesin
from ase.geometry import complete_cell
from torch import Tensor
from torch_geometric.data import Batch, Data

from egnn_prune.errors import DataError, SuspiciousDataWarning
from egnn_prune.graphs.edge_lists import (
    RECORD,
    check_indices,
    check_pairs,
    images_of,
    is_current,
    is_recorded,
    lattice,
    record,
)
from egnn_prune.graphs.search_limits import MAX_PAIRS, search_cutoff


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
        ``edge_index [2, E]``, source above target, sorted by target, and ``edge_shift [E, 3]``
        (all zero where no direction is periodic), or ``None`` without a cell and ``pbc``.

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
    order = np.argsort(target, kind="stable")
    pairs = np.stack([source[order], target[order]]).astype(np.int64)
    edge_index = torch.from_numpy(pairs).to(pos.device)
    if cell is None and pbc is None:
        return edge_index, None
    shift = torch.from_numpy(images[order].reshape(-1, 3) @ box)  # vesin: x_j - x_i + S C
    return edge_index, shift.to(pos)[:, :dimension]


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


def with_edges(batch: Batch | Data, cutoff: float | None) -> Batch | Data:
    """Return the batch with ``edge_index``, built here unless it already has one.

    Graphs with ``cell [B, 3, 3]`` and ``pbc [B, 3]`` also get ``edge_shift [E, 3]``, see
    :func:`neighbours`.

    Args:
        batch: graphs with ``pos [N, n]`` and, for several graphs, ``batch`` and ``ptr``.
        cutoff: ``None`` for all pairs of a graph.

    Raises:
        DataError: all pairs of a periodic graph, its edges without their shifts, or its cell
            cannot be used.
    """
    if batch.edge_index is not None:
        if torch.compiler.is_compiling() or _is_usable(batch, cutoff):
            return batch
    batch = copy.copy(batch)
    for name in ("edge_shift", *RECORD):  # of edges that cannot be used
        if name in batch:
            del batch[name]
    ptr = graph_pointer(batch)
    if cutoff is None:
        if is_periodic(batch):
            raise DataError(
                "a periodic graph has no end of pairs; use a model with a cutoff, or leave out pbc"
            )
        if not torch.compiler.is_compiling():
            sizes = ptr.diff()
            if int((sizes * sizes).sum()) > MAX_PAIRS:
                raise DataError(
                    f"graphs of up to {int(sizes.max())} nodes have over {MAX_PAIRS:.0e} pairs "
                    "in a batch; use a model with a cutoff, or smaller batches"
                )
        batch.edge_index = complete_edges(ptr)
        if not torch.compiler.is_compiling():
            batch.checked_edge_index = batch.edge_index  # right for any positions
        return batch
    starts = ptr.tolist()
    cells, pbcs = (_per_graph(batch, name, len(starts) - 1) for name in ("cell", "pbc"))
    parts, shifts, records = [], [], []
    for graph, (a, b) in enumerate(pairwise(starts)):
        try:
            edges, shift = neighbours(batch.pos[a:b], cutoff, cells[graph], pbcs[graph])
        except DataError as error:
            raise DataError(f"graph {graph} of the batch: {error}") from None
        parts.append(edges + a)
        records.append(edges.shape[1])
        shifts += [] if shift is None else [shift]
    batch.edge_index = torch.cat(parts, dim=1)
    if shifts:
        batch.edge_shift = torch.cat(shifts)
    for name, value in record(batch.pos, cutoff, 0, batch.get("cell"), batch.get("pbc")).items():
        batch[name] = value
    batch.listed_for = batch.listed_for.new_tensor([[cutoff, n] for n in records])
    return batch


def _is_usable(batch: Batch | Data, cutoff: float | None) -> bool:
    """Whether given edges can be used; those that were found for something else cannot.

    Raises:
        DataError: they are a user's own, and wrong.
    """
    if is_recorded(batch):
        if not is_current(batch, cutoff):
            return False
        check_indices(batch.edge_index, graph_of_node(batch))  # the list may have been changed
        return True
    if getattr(batch, "checked_edge_index", None) is batch.edge_index:
        return True
    graph, own = graph_of_node(batch), batch.get("edge_attr") is not None
    shift = batch.get("edge_shift")
    check_indices(batch.edge_index, graph)
    if shift is None and is_periodic(batch):
        raise DataError(
            "the periodic graphs have an edge_index but no edge_shift; give both, or "
            "neither to have them built"
        )
    if shift is not None and len(shift) != batch.edge_index.shape[1]:
        raise DataError(
            f"there are {len(shift)} rows of edge_shift for {batch.edge_index.shape[1]} edges"
        )
    if own:  # edges with features of their own are what their owner says: bonds, directions
        return True
    ptr = graph_pointer(batch)
    degree = batch.edge_index.new_zeros(len(ptr) - 1).index_add(
        0, graph.index_select(0, batch.edge_index[1]), torch.ones_like(batch.edge_index[1])
    )
    bare = (degree == 0) & (ptr.diff() > 1)
    if bool(bare.any()) and _pairs_missing(batch, bare, cutoff):
        if not batch.edge_index.numel():
            return False  # an empty list is no list
        raise DataError(
            f"graph {int(bare.nonzero()[0])} of the batch has no edges, though nodes are near "
            "enough; give every graph its edges, or none an edge_index to have them found"
        )
    cell, images = batch.get("cell"), None
    if shift is not None and cell is not None:
        cells = lattice(cell, batch.get("pbc"))
        images = images_of(shift, cells.index_select(0, graph[batch.edge_index[1]]))
    if shift is None or images is not None:
        check_pairs(batch.edge_index, len(batch.pos), images)
    batch.checked_edge_index = batch.edge_index
    return True


def _pairs_missing(batch: Batch | Data, bare: Tensor, cutoff: float | None) -> bool:
    """Whether graphs without edges should have some."""
    if cutoff is None:
        return True
    ptr = graph_pointer(batch).tolist()
    cells, pbcs = (_per_graph(batch, name, len(ptr) - 1) for name in ("cell", "pbc"))
    return any(
        neighbours(batch.pos[ptr[k] : ptr[k + 1]], cutoff, cells[k], pbcs[k])[0].numel()
        for k in bare.nonzero().flatten().tolist()
    )


def is_periodic(batch: Batch | Data) -> bool:
    """Whether any graph of the batch has periodic images (a cell without ``pbc`` has)."""
    cell, pbc = batch.get("cell"), batch.get("pbc")
    return cell is not None if pbc is None else bool(pbc.any())


def _per_graph(batch: Batch | Data, name: str, graphs: int) -> Sequence[Tensor | None]:
    """One ``cell`` or ``pbc`` for each graph, or nothing."""
    value = batch.get(name)
    if value is None:
        return [None] * graphs
    shape = (graphs, 3, 3) if name == "cell" else (graphs, 3)
    if value.numel() != math.prod(shape):
        raise DataError(f"batch.{name} must have the shape {shape}, not {tuple(value.shape)}")
    return value.reshape(shape).unbind(0)


def graph_pointer(batch: Batch | Data) -> Tensor:
    """``[graphs + 1]``: where each graph's nodes begin (a single ``Data`` is one graph)."""
    ptr = getattr(batch, "ptr", None)
    if ptr is not None:
        return ptr
    index = getattr(batch, "batch", None)
    if index is not None:  # a hand-made batch
        return torch.cat([index.new_zeros(1), index.bincount().cumsum(0)])
    return torch.tensor([0, len(batch.pos)], device=batch.pos.device)


def graph_of_node(batch: Batch | Data) -> Tensor:
    """``[N]``: the graph that each node belongs to."""
    index = getattr(batch, "batch", None)
    if index is not None:
        return index
    return torch.zeros(batch.pos.shape[0], dtype=torch.long, device=batch.pos.device)


def check_graphs(batch: Batch | Data) -> None:
    """Refuse what no network can use, and warn of what is probably a mistake.

    Raises:
        DataError: positions of the wrong shape, NaN or infinite ones, or an empty graph.
    """
    if not isinstance(batch, Data):
        advice = "join graphs with torch_geometric.data.Batch.from_data_list(graphs)"
        empty = isinstance(batch, Sequence) and not len(batch)
        raise DataError(
            f"an empty list holds no graphs; {advice}"
            if empty
            else f"models of graphs take a PyG batch, not {type(batch).__name__}; {advice}"
        )
    pos = batch.pos
    if pos is None or pos.dim() != 2 or not pos.is_floating_point():
        shape = None if pos is None else tuple(pos.shape)
        raise DataError(
            f"positions must be a floating-point tensor [nodes, dimensions], not {shape}"
        )
    if len(pos) == 0:
        raise DataError("the batch holds no nodes; remove empty graphs")
    if not torch.isfinite(pos).all():
        node = int((~torch.isfinite(pos)).any(1).nonzero()[0])
        raise DataError(
            f"node {node} of graph {int(graph_of_node(batch)[node])} has a NaN or infinite "
            "position; remove or repair that graph"
        )
    if getattr(batch, "ptr", None) is None:
        _check_numbering(batch)
    sizes = graph_pointer(batch).diff()
    if int(sizes.sum()) != len(pos):
        raise DataError(f"{len(pos)} positions for {int(sizes.sum())} nodes: the shapes must agree")
    if (sizes == 0).any():
        raise DataError(f"graph {int((sizes == 0).nonzero()[0])} is empty; remove empty graphs")
    if getattr(batch, "ptr", None) is not None:
        _check_numbering(batch)


def _check_numbering(batch: Batch | Data) -> None:
    """Refuse a ``batch`` vector that does not count the graphs up from zero, node by node."""
    index, ptr = getattr(batch, "batch", None), getattr(batch, "ptr", None)
    if index is None:
        if ptr is not None and len(ptr) > 2:
            raise DataError("several graphs need batch.batch [nodes] beside ptr; give both")
        return
    if index.shape != batch.pos.shape[:1] or index.dtype != torch.int64:
        raise DataError(
            f"batch.batch must hold the graph of each of {len(batch.pos)} nodes as a whole number "
            f"(torch.long), not {index.dtype} of shape {tuple(index.shape)}"
        )
    steps = index.diff()
    if int(index[0]) != 0 or (bool(((steps < 0) | (steps > 1)).any()) and ptr is None):
        raise DataError(
            "batch.batch must number the graphs 0, 1, 2, ... in the order of the nodes, without "
            "gaps; sort the nodes by graph (order = batch.batch.argsort(stable=True)) and number "
            "the graphs anew (batch.batch.unique(return_inverse=True))"
        )
    if ptr is not None:
        sizes = ptr.diff()
        told = torch.arange(len(sizes), device=index.device).repeat_interleave(sizes.clamp(min=0))
        if not torch.equal(told, index):
            raise DataError("batch.batch and batch.ptr disagree about which node is in which graph")


def warn_of_coincident_points(vectors: Tensor) -> None:
    """Warn (Python shows it once) when two connected nodes share a position.

    Args:
        vectors: ``[E, n]``, see :func:`edge_vectors`.
    """
    if bool((vectors == 0).all(-1).any()):
        warnings.warn(
            "two nodes of a graph have the same position: legal for the network, but in data it "
            "usually means a duplicated atom",
            SuspiciousDataWarning,
            stacklevel=3,
        )


def replicate(batch: Batch | Data, samples: int) -> Batch | Data:
    """``samples`` copies of a batch, one after another, as one larger batch.

    The copies share their geometry's edge list, which is shifted and not searched for again.
    """
    if samples == 1:
        return batch
    nodes, ptr = batch.pos.shape[0], graph_pointer(batch)
    graphs = ptr.shape[0] - 1
    shift = torch.arange(samples, device=ptr.device)
    out = Batch() if isinstance(batch, Batch) else Data()
    for key, value in batch.to_dict().items():
        if key == "edge_index":
            offset = (shift * nodes).repeat_interleave(value.shape[1])
            out[key] = value.repeat(1, samples) + offset
        elif key == "batch":
            out[key] = value.repeat(samples) + (shift * graphs).repeat_interleave(nodes)
        elif key == "ptr":
            starts = ptr[:-1].repeat(samples) + (shift * nodes).repeat_interleave(graphs)
            out[key] = torch.cat([starts, ptr.new_tensor([samples * nodes])])
        elif key == "checked_edge_index":
            continue
        elif isinstance(value, Tensor) and value.dim() > 0:
            out[key] = value.repeat(samples, *[1] * (value.dim() - 1))
    if "batch" not in out:
        out.batch = torch.arange(samples, device=ptr.device).repeat_interleave(nodes)
        out.ptr = torch.arange(samples + 1, device=ptr.device) * nodes
    if batch.get("checked_edge_index") is not None:
        out.checked_edge_index = out.edge_index
    return out
