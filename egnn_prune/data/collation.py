"""Graphs in batches: what PyG's loader makes of them, in a quarter of its time."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch_geometric.data import Batch, Data

#: Validation batches of more graphs are collated anew in every pass, not held in memory.
HELD_GRAPHS = 20_000
#: Fields that PyG treats in ways of their own, or reads the number of nodes from.
_NOT_PLAIN = {"ptr", "face", "num_nodes", "feat", "node_type", "n_id", "tf"}
#: PyG makes a class whenever it is asked for a batch; a copy of one without fields is a batch, too.
_EMPTY = Batch()


def collate(graphs: Sequence[Data]) -> Batch:
    """The graphs as one batch: equal to ``Batch.from_data_list(graphs)``, field by field.

    Each field of plain graphs is one concatenation. PyG asks every graph about every field
    instead, which takes as long as a small network's pass. It still joins what is not plain:
    fields that are no tensors or lie on a GPU, and classes of graphs with rules of their own.
    """
    return _concatenated(graphs) or Batch.from_data_list(list(graphs))


def loader(graphs: Sequence[Data], batch_size: int = 1, **keywords: Any) -> DataLoader[Any]:
    """A torch loader of :func:`collate` batches; it draws what PyG's would draw.

    Args:
        graphs: in order, unless the keywords say otherwise.
        batch_size: graphs per batch.
        **keywords: of ``torch.utils.data.DataLoader``.
    """
    return DataLoader(graphs, batch_size, collate_fn=collate, **keywords)  # type: ignore[arg-type]


def held(graphs: Sequence[Data], batch_size: int) -> DataLoader[Any]:
    """A loader of graphs in order, whose batches are collated in the first pass and then kept.

    Args:
        graphs: all graphs; of more than :data:`HELD_GRAPHS` no batch is kept.
        batch_size: graphs per batch.
    """
    # handed out as copies: PyG moves a batch to another device in place, and whoever gets one may
    # set fields of it
    return DataLoader(_Batches(graphs, batch_size), batch_size=None, collate_fn=copy.copy)  # type: ignore[arg-type]


class _Batches(Sequence[Batch]):
    """Batches of graphs in order, each collated when somebody asks for it."""

    def __init__(self, graphs: Sequence[Data], batch_size: int) -> None:
        self.graphs, self.batch_size = graphs, batch_size
        self._held: dict[int, Batch] = {}

    def __len__(self) -> int:
        return -(-len(self.graphs) // self.batch_size)

    def __getitem__(self, number: Any) -> Any:
        found = self._held.get(number)
        if found is None:
            start = number * self.batch_size
            found = collate(self.graphs[start : start + self.batch_size])
            if len(self.graphs) <= HELD_GRAPHS:
                self._held[number] = found
        return found


def draw_as_a_loader() -> None:
    """Draw the number that a pass over a ``DataLoader`` draws, the seed of its workers."""
    torch.empty((), dtype=torch.int64).random_()


def _concatenated(graphs: Sequence[Data]) -> Batch | None:
    """The batch of plain graphs, or nothing."""
    stores = [graph.to_dict() for graph in graphs if type(graph) is Data]
    if len(stores) < len(graphs) or not _is_plain(stores[0]):
        return None
    columns = {name: [store.get(name) for store in stores] for name in stores[0]}
    if any(set(map(type, column)) != {Tensor} for column in columns.values()):
        return None
    nodes = [pos.size(0) for pos in columns["pos"]]
    if "x" in columns and [x.size(0) for x in columns["x"]] != nodes:
        return None
    starts = _starts(nodes)
    known = {tuple(nodes): starts}  # many fields have the same number of rows
    zeros, before = torch.zeros(len(graphs), dtype=torch.int64), starts[:-1]
    batch, slices, increments = copy.copy(_EMPTY), {}, {}
    for name, column in columns.items():
        numbered = "index" in name
        along = -1 if numbered else 0
        rows = tuple([value.size(along) for value in column])
        if rows not in known:
            known[rows] = _starts(rows)
        joined = torch.cat(column, dim=along)
        if numbered:
            joined += before.repeat_interleave(known[rows].diff(), output_size=joined.size(along))
        batch[name] = joined
        slices[name], increments[name] = known[rows], before if numbered else zeros
    batch.batch = torch.arange(len(graphs)).repeat_interleave(starts.diff(), output_size=sum(nodes))
    batch.ptr = starts
    # what Batch.get_example, and so to_data_list, takes a batch apart with
    batch._num_graphs, batch._slice_dict, batch._inc_dict = len(graphs), slices, increments
    return batch


def _is_plain(fields: dict[str, Any]) -> bool:
    """Whether PyG would do no more than concatenate fields like these (and number nodes on)."""
    if "pos" not in fields or not _NOT_PLAIN.isdisjoint(fields):
        return False
    return not any(
        type(value) is not Tensor
        or value.dim() == 0
        or value.device.type != "cpu"
        or value.layout != torch.strided
        or value.is_nested
        or "batch" in name
        or ("index" in name and value.dtype != torch.int64)
        for name, value in fields.items()
    )


def _starts(rows: Iterable[int]) -> Tensor:
    """``[graphs + 1]``: where each graph's rows begin."""
    return torch.tensor([0, *accumulate(rows)])
