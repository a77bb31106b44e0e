"""Graphs in flat arrays: each becomes a ``Data`` when somebody asks for it."""

from __future__ import annotations

import copy
import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from egnn_prune.errors import DataError
from egnn_prune.graphs import neighbours
from egnn_prune.graphs.batch_record import record

#: What is handed out in float64, whatever the file holds; other arrays keep their kind.
EXACT = ("pos", "y", "forces", "cell", "stress", "config_weight")
#: Graphs of smaller sets are built once and kept, so that an epoch costs no more than from a list.
KEPT_GRAPHS = 20_000
#: Of larger ones neighbour lists only, up to this size in all; beyond it they are searched again.
KEPT_BYTES = 1 << 30


class GraphStore(Sequence[Data]):
    """A sequence of graphs over arrays, which may be mapped files that exceed the memory.

    What is set on ``store[i]`` changes no other graph and no file. Sent to another process, mapped
    arrays travel as the names of their files.

    Args:
        offset: ``[M + 1]``, graph k owns nodes ``offset[k]:offset[k + 1]``.
        nodes: arrays ``[A, ...]`` with a row per node, such as ``z``, ``pos``, ``forces``.
        graphs: arrays ``[M, ...]`` with a row per graph, such as ``y``, ``cell``, ``pbc``; graph k
            holds ``[1, ...]``.
        factors: what the numbers of an array are multiplied with, such as one unit in another.
        cutoff: where given, graphs have neighbour lists (see :meth:`with_cutoff`).
    """

    def __init__(
        self,
        offset: np.ndarray,
        nodes: Mapping[str, np.ndarray],
        graphs: Mapping[str, np.ndarray],
        factors: Mapping[str, float] | None = None,
        cutoff: float | None = None,
    ) -> None:
        self.offset = np.asarray(offset, dtype=np.int64)
        self.nodes, self.graphs = dict(nodes), dict(graphs)
        self.factors, self.cutoff = dict(factors or {}), cutoff
        self._built: dict[int, Data] = {}
        self._edges: dict[int, tuple[np.ndarray, Tensor | None]] = {}
        self._kept_bytes = 0
        # plain views: slices of a memmap object cost as much as the numbers in them
        self._columns = [
            (name, np.asarray(values), per_node, _kind(name, values), self.factors.get(name))
            for group, per_node in ((self.nodes, True), (self.graphs, False))
            for name, values in group.items()
        ]

    def __len__(self) -> int:
        return len(self.offset) - 1

    @overload
    def __getitem__(self, index: int) -> Data: ...
    @overload
    def __getitem__(self, index: slice) -> GraphView: ...
    def __getitem__(self, index: int | slice) -> Data | GraphView:
        if isinstance(index, slice):
            return GraphView(self, torch.from_numpy(np.arange(len(self))[index].copy()))
        k = _position(index, len(self))
        built = self._built.get(k)
        if built is None:
            built = self._build(k)
            if len(self) <= KEPT_GRAPHS:
                self._built[k] = built
        return copy.copy(built)

    def _build(self, k: int) -> Data:
        start, end = self.offset[k], self.offset[k + 1]
        fields: dict[str, Any] = {"row": torch.from_numpy(np.array([k]))}
        for name, values, per_node, kind, factor in self._columns:
            piece = (values[start:end] if per_node else values[k : k + 1]).astype(kind)
            if factor is not None:
                piece *= factor
            fields[name] = torch.from_numpy(piece)
        if self.cutoff is not None:
            fields.update(self._neighbours(k, fields, self.cutoff))
            fields.update(edge_record(fields, self.cutoff))
        return Data().update(fields)  # thrice as fast as Data(**fields)

    def with_cutoff(self, cutoff: float) -> GraphStore:
        """The same arrays, whose graphs carry neighbour lists, each searched for once."""
        if cutoff == self.cutoff:
            return self
        return GraphStore(self.offset, self.nodes, self.graphs, self.factors, cutoff)

    def _neighbours(self, k: int, fields: dict[str, Any], cutoff: float) -> dict[str, Tensor]:
        found = self._edges.get(k)
        if found is None:
            edges, shift = find_neighbours(k, fields, cutoff)
            found = edges.numpy().astype(np.min_scalar_type(len(fields["pos"]))), shift
            size = found[0].nbytes + (0 if shift is None else shift.nbytes)
            if self._kept_bytes + size <= KEPT_BYTES and len(self) > KEPT_GRAPHS:
                self._kept_bytes += size
                self._edges[k] = found
        return with_shift(torch.from_numpy(found[0].astype(np.int64)), found[1])

    def column(self, name: str, rows: Tensor | None = None) -> Tensor:
        """An array with a row per graph as a tensor, without building graphs.

        Args:
            name: such as ``"y"``.
            rows: of these graphs only.
        """
        values = self.graphs[name]
        values = np.array(values if rows is None else values[rows.numpy()], _kind(name, values))
        return torch.from_numpy(values * self.factors.get(name, 1))

    def elements(self, rows: Tensor) -> list[int]:
        """Atomic numbers in some graphs, sorted, without building them."""
        wanted = np.zeros(len(self), dtype=bool)
        wanted[rows.numpy()] = True
        seen = np.zeros(0, dtype=np.int64)
        for a, b in _stretches(self.offset):
            atoms = np.repeat(wanted[a:b], np.diff(self.offset[a : b + 1]))
            z = np.asarray(self.nodes["z"][self.offset[a] : self.offset[b]])
            seen = np.union1d(seen, z[atoms])
        return [int(z) for z in seen]

    def check(self, source: str) -> None:
        """Refuse arrays that do not fit together, and records with NaN or infinite numbers.

        Raises:
            DataError: names the source, the record and what is wrong with it.
        """
        sizes = np.diff(self.offset)
        if not len(sizes):
            raise DataError(f"{source} holds no graphs")
        if sizes.min() < 1:
            raise DataError(
                f"record {int(sizes.argmin())} of {source} needs positions [atoms, dimensions] for "
                "at least one atom"
            )
        for group, rows in ((self.nodes, self.offset[-1]), (self.graphs, len(self))):
            for name, values in group.items():
                if len(values) != rows:
                    raise DataError(f"{name} of {source} has {len(values)} rows, not {rows}")
        for name in CHECKED:
            self.check_column(name, source)
        self._check_elements(source)

    def _check_elements(self, source: str) -> None:
        if "z" not in self.nodes:
            return
        for a, b in _stretches(self.offset):
            z = np.asarray(self.nodes["z"][self.offset[a] : self.offset[b]])
            wrong = np.flatnonzero((z < 1) | (z > HEAVIEST))
            if len(wrong):
                atom = self.offset[a] + wrong[0]
                record = int(np.searchsorted(self.offset, atom, side="right")) - 1
                raise DataError(not_an_element(record, source, int(z[wrong[0]])))

    def check_column(self, name: str, source: str) -> None:
        """Refuse NaN or infinite numbers in an array, where there is one of that name.

        Raises:
            DataError: names the source and the first record with one.
        """
        per_node = name in self.nodes
        values = (self.nodes if per_node else self.graphs).get(name)
        if values is None or values.dtype.kind not in "fc":
            return
        offset = self.offset if per_node else np.arange(len(self) + 1)
        for a, b in _stretches(offset):
            piece = np.asarray(values[offset[a] : offset[b]])
            good = np.isfinite(piece).reshape(len(piece), -1).all(1)
            if not good.all():
                record = np.searchsorted(offset, offset[a] + good.argmin(), side="right") - 1
                raise DataError(not_finite(int(record), source, name))

    def __getstate__(self) -> dict[str, Any]:
        """Mapped arrays as names of files; neighbour lists are searched again where they land."""
        return {
            "offset": self.offset,
            "nodes": {k: _file_of(v) for k, v in self.nodes.items()},
            "graphs": {k: _file_of(v) for k, v in self.graphs.items()},
            "factors": self.factors,
            "cutoff": self.cutoff,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        groups = ({k: _loaded(v) for k, v in state[g].items()} for g in ("nodes", "graphs"))
        nodes, graphs = groups
        GraphStore.__init__(self, state["offset"], nodes, graphs, state["factors"], state["cutoff"])


class GraphView(Sequence[Data]):
    """Some graphs of a sequence, by their row numbers: a list that holds nothing itself.

    Args:
        graphs: all graphs.
        rows: ``[n]``, which of them, in which order.
    """

    def __init__(self, graphs: Sequence[Data], rows: Tensor) -> None:
        self.graphs, self.rows = graphs, rows
        # a view of the same 8 bytes a graph: as a list of numbers it would be 40 more
        self._rows = rows.numpy()

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Data: ...
    @overload
    def __getitem__(self, index: slice) -> GraphView: ...
    def __getitem__(self, index: int | slice) -> Data | GraphView:
        if isinstance(index, slice):
            return GraphView(self.graphs, torch.from_numpy(self._rows[index].copy()))
        return self.graphs[int(self._rows[index])]

    def __iter__(self) -> Iterator[Data]:
        return (self.graphs[int(row)] for row in self._rows)


class Texts(Sequence[str]):
    """Texts in an array, which may be a mapped file: each becomes a ``str`` when it is asked for.

    Args:
        values: ``[M]``, of NumPy's text type.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Texts: ...
    def __getitem__(self, index: int | slice) -> str | Texts:
        if isinstance(index, slice):
            return Texts(self.values[index])
        return str(self.values[index])

    def __getstate__(self) -> dict[str, Any]:
        """A mapped array as the name of its file."""
        return {"values": _file_of(self.values)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.values = _loaded(state["values"])


#: The last atomic number with a name.
HEAVIEST = 118
#: Arrays that must not hold NaN or infinite numbers.
CHECKED = ("pos", "y", "forces", "cell")


def not_finite(record: int, source: str, name: str) -> str:
    """The error message about a record with a NaN."""
    return f"record {record} of {source} has a NaN or infinite value in its {name}; repair it"


def not_an_element(record: int, source: str, z: int) -> str:
    """What is said of a record with an atomic number that there is not."""
    return f"record {record} of {source} has the atomic number {z}; elements are 1 to {HEAVIEST}"


def with_shift(edge_index: Tensor, edge_shift: Tensor | None) -> dict[str, Tensor]:
    """A graph's fields for its neighbour list."""
    if edge_shift is None:
        return {"edge_index": edge_index}
    return {"edge_index": edge_index, "edge_shift": edge_shift}


def find_neighbours(k: int, graph: Any, cutoff: float) -> tuple[Tensor, Tensor | None]:
    """The neighbour list of record k.

    Raises:
        DataError: it has none, and says the record.
    """
    try:
        return neighbours(graph["pos"], cutoff, graph.get("cell"), graph.get("pbc"))
    except DataError as error:
        raise DataError(f"record {k}: {error}") from None


def add_neighbours(graphs: Sequence[Data], cutoff: float) -> None:
    """Store neighbour lists in graphs that are held in memory."""
    for k, graph in enumerate(graphs):
        edges = find_neighbours(k, graph.to_dict(), cutoff)
        graph.update(with_shift(*edges))
        graph.update(edge_record(graph, cutoff))


def edge_record(graph: Any, cutoff: float) -> dict[str, Tensor]:
    """What a graph's neighbour list says of itself."""
    cell, pbc = graph.get("cell"), graph.get("pbc")
    return record(graph["pos"], cutoff, graph["edge_index"].shape[1], cell, pbc)


def _kind(name: str, values: np.ndarray) -> np.dtype[Any]:
    if name in EXACT:
        return np.dtype(np.float64)
    if values.dtype.kind in "iu":
        return np.dtype(np.int64)
    return values.dtype.newbyteorder("=")


def _position(index: int, length: int) -> int:
    k = index + length if index < 0 else index
    if not 0 <= k < length:
        raise IndexError(f"graph {index} of {length}")
    return int(k)


def _stretches(offset: np.ndarray, nodes: int = 1 << 20) -> Iterator[tuple[int, int]]:
    """Consecutive graphs a to b with about so many nodes, so that no whole array is in memory."""
    a = 0
    while a < len(offset) - 1:
        b = int(np.searchsorted(offset, offset[a] + nodes, side="right")) - 1
        b = max(b, a + 1)
        yield a, b
        a = b


def _file_of(values: np.ndarray) -> np.ndarray | Path:
    """The file of an array that maps one whole, else the array."""
    whole = isinstance(values, np.memmap) and isinstance(values.base, mmap.mmap)
    return Path(values.filename) if whole else values  # type: ignore[attr-defined]


def _loaded(values: np.ndarray | Path) -> np.ndarray:
    if not isinstance(values, Path):
        return values
    try:
        return np.load(values, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        raise DataError(
            f"the cached array {values} is gone or damaged; load the data again"
        ) from None
