"""A batch with its edges: its own, if they can be used, or found here."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from egnn_prune.errors import DataError
from egnn_prune.graphs.batch_record import (
    forget_edges,
    is_checked,
    is_current,
    is_recorded,
    lattice,
    mark_checked,
    record,
)
from egnn_prune.graphs.batches import graph_of_node, graph_pointer, is_periodic, per_graph
from egnn_prune.graphs.edge_checks import check_indices, check_pairs, images_of
from egnn_prune.graphs.pairs import complete_edges, molecules_edges, neighbours
from egnn_prune.graphs.search_limits import MAX_PAIRS
from egnn_prune.graphs.tracing import must_check


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
        if not must_check() or _is_usable(batch, cutoff):
            return batch
    batch = copy.copy(batch)
    forget_edges(batch)
    ptr = graph_pointer(batch)
    if cutoff is None:
        if is_periodic(batch):
            raise DataError(
                "a periodic graph has no end of pairs; use a model with a cutoff, or leave out pbc"
            )
        if must_check():
            sizes = ptr.diff()
            if int((sizes * sizes).sum()) > MAX_PAIRS:
                raise DataError(
                    f"graphs of up to {int(sizes.max())} nodes have over {MAX_PAIRS:.0e} pairs "
                    "in a batch; use a model with a cutoff, or smaller batches"
                )
        batch.edge_index = complete_edges(ptr)
        if must_check():
            mark_checked(batch)  # right for any positions
        return batch
    edge_index = None
    if batch.get("cell") is None and batch.get("pbc") is None:
        edge_index = molecules_edges(batch.pos, ptr, cutoff)
    if edge_index is None:
        batch.edge_index, shift, found = _searched(batch, ptr, cutoff)
        if shift is not None:
            batch.edge_shift = shift
    else:
        batch.edge_index = edge_index
        ends = torch.searchsorted(edge_index[1].contiguous(), ptr)
        found = ends.diff().tolist()
    for name, value in record(batch.pos, cutoff, 0, batch.get("cell"), batch.get("pbc")).items():
        batch[name] = value
    batch.listed_for = batch.listed_for.new_tensor([[cutoff, n] for n in found])
    return batch


def _searched(
    batch: Batch | Data, ptr: Tensor, cutoff: float
) -> tuple[Tensor, Tensor | None, list[int]]:
    """Edges, their shifts, and how many each graph has, searched graph by graph.

    Raises:
        DataError: a graph cannot be searched; names it.
    """
    starts = ptr.tolist()
    cells, pbcs = (per_graph(batch, name, len(starts) - 1) for name in ("cell", "pbc"))
    parts, shifts, found = [], [], []
    for graph, (a, b) in enumerate(pairwise(starts)):
        try:
            edges, shift = neighbours(batch.pos[a:b], cutoff, cells[graph], pbcs[graph])
        except DataError as error:
            raise DataError(f"graph {graph} of the batch: {error}") from None
        parts.append(edges + a)
        found.append(edges.shape[1])
        shifts += [] if shift is None else [shift]
    return torch.cat(parts, dim=1), torch.cat(shifts) if shifts else None, found


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
    if is_checked(batch):
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
    mark_checked(batch)
    return True


def _pairs_missing(batch: Batch | Data, bare: Tensor, cutoff: float | None) -> bool:
    """Whether graphs without edges should have some."""
    if cutoff is None:
        return True
    ptr = graph_pointer(batch).tolist()
    cells, pbcs = (per_graph(batch, name, len(ptr) - 1) for name in ("cell", "pbc"))
    return any(
        neighbours(batch.pos[ptr[k] : ptr[k + 1]], cutoff, cells[k], pbcs[k])[0].numel()
        for k in bare.nonzero().flatten().tolist()
    )
