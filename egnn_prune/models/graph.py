"""Edges: who talks to whom, in which order, and how a batch is repeated."""

from __future__ import annotations

import copy
import warnings
from itertools import pairwise

import numpy as np
import torch
import vesin
from torch import Tensor
from torch_geometric.data import Batch, Data

from egnn_prune.errors import DataError, SuspiciousDataWarning


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


def cutoff_edges(pos: Tensor, cutoff: float) -> Tensor:
    """Edges between nodes of *one* graph closer than ``cutoff``, sorted by target, in O(N).

    Args:
        pos: ``[N, n]`` with n up to 3, in the same length unit as ``cutoff``.
        cutoff: the largest distance that makes an edge.

    Raises:
        DataError: the positions have more than 3 dimensions, which cell lists do not cover.
    """
    dimension = pos.shape[1]
    if dimension > 3:
        raise DataError(
            f"neighbour lists with a cutoff exist for up to 3 dimensions, not {dimension}; "
            "use cutoff=None (all pairs)"
        )
    points = torch.zeros(len(pos), 3, dtype=torch.float64)
    points[:, :dimension] = pos.detach().cpu()
    lists = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=True)
    target, source = lists.compute(
        points=points.numpy(), box=np.eye(3), periodic=False, quantities="ij"
    )
    pairs = torch.stack(
        [torch.from_numpy(source.astype("int64")), torch.from_numpy(target.astype("int64"))]
    )
    return pairs[:, pairs[1].argsort(stable=True)].to(pos.device)


def with_edges(batch: Batch | Data, cutoff: float | None) -> Batch | Data:
    """Return the batch with ``edge_index``, built here unless it already has one.

    Args:
        batch: graphs with ``pos [N, n]`` and, for several graphs, ``batch`` and ``ptr``.
        cutoff: ``None`` for all pairs of a graph.
    """
    if batch.edge_index is not None:
        return batch
    batch = copy.copy(batch)
    ptr = graph_pointer(batch)
    if cutoff is None:
        batch.edge_index = complete_edges(ptr)
    else:
        starts = ptr.tolist()
        parts = [cutoff_edges(batch.pos[a:b], cutoff) + a for a, b in pairwise(starts)]
        batch.edge_index = torch.cat(parts, dim=1)
    return batch


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
    sizes = graph_pointer(batch).diff()
    if int(sizes.sum()) != len(pos):
        raise DataError(f"{len(pos)} positions for {int(sizes.sum())} nodes: the shapes must agree")
    if (sizes == 0).any():
        raise DataError(f"graph {int((sizes == 0).nonzero()[0])} is empty; remove empty graphs")


def warn_of_coincident_points(pos: Tensor, edge_index: Tensor) -> None:
    """Warn (Python shows it once) when two connected nodes share a position."""
    same = pos.index_select(0, edge_index[0]) == pos.index_select(0, edge_index[1])
    if bool(same.all(-1).any()):
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
        elif isinstance(value, Tensor) and value.dim() > 0:
            out[key] = value.repeat(samples, *[1] * (value.dim() - 1))
    if "batch" not in out:
        out.batch = torch.arange(samples, device=ptr.device).repeat_interleave(nodes)
        out.ptr = torch.arange(samples + 1, device=ptr.device) * nodes
    return out
