"""What no network can use, and what is probably a mistake."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from egnn_prune.errors import DataError, SuspiciousDataWarning
from egnn_prune.graphs.batches import graph_of_node, graph_pointer


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
    """Warn (Python shows it once) of connected nodes at one position (``vectors [E, n]``)."""
    if bool((vectors == 0).all(-1).any()):
        warnings.warn(
            "two nodes of a graph have the same position: legal for the network, but in data it "
            "usually means a duplicated atom",
            SuspiciousDataWarning,
            stacklevel=3,
        )
