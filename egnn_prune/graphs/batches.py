"""How graphs lie in a batch, and how a batch is repeated."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from egnn_prune.errors import DataError
from egnn_prune.graphs.batch_record import CHECKED, is_checked, mark_checked


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


def is_periodic(batch: Batch | Data) -> bool:
    """Whether any graph of the batch has periodic images (a cell without ``pbc`` has)."""
    cell, pbc = batch.get("cell"), batch.get("pbc")
    return cell is not None if pbc is None else bool(pbc.any())


def per_graph(batch: Batch | Data, name: str, graphs: int) -> Sequence[Tensor | None]:
    """One ``cell`` or ``pbc`` for each graph, or nothing."""
    value = batch.get(name)
    if value is None:
        return [None] * graphs
    shape = (graphs, 3, 3) if name == "cell" else (graphs, 3)
    if value.numel() != math.prod(shape):
        raise DataError(f"batch.{name} must have the shape {shape}, not {tuple(value.shape)}")
    return value.reshape(shape).unbind(0)


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
        elif key == CHECKED:
            continue
        elif isinstance(value, Tensor) and value.dim() > 0:
            out[key] = value.repeat(samples, *[1] * (value.dim() - 1))
    if "batch" not in out:
        out.batch = torch.arange(samples, device=ptr.device).repeat_interleave(nodes)
        out.ptr = torch.arange(samples + 1, device=ptr.device) * nodes
    if is_checked(batch):
        mark_checked(out)
    return out
