"""A data set of graphs: what every source returns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch_geometric.data import Data

from egnn_prune.data.store import CHECKED, GraphStore, GraphView, add_neighbours, not_finite
from egnn_prune.errors import ConfigError, DataError

SPLITS = ("train", "val", "test", "ood")


@dataclass
class GraphDataset:
    """Graphs with one scalar target each, split once and for all.

    Attributes:
        name: where the graphs come from.
        target: what ``Data.y [1]`` holds.
        unit: its unit.
        extensive: whether the target grows with the number of atoms (then an energy per element
            is fitted and subtracted).
        graphs: ``Data(z [N], pos [N, 3] in Angstrom and float64 (models take differences of
            positions before they round to their own precision), y [1], row [1], ...)``, in a list
            or in a :class:`GraphStore` that makes them from arrays.
        splits: for each of train, val, test, ood the row numbers of its graphs (ood may be empty).
        smiles: one string per graph where the source has them.
        outputs: ``"graph"``: ``y [1]`` is a number of the graph; ``"positions"``: ``y [N, n]`` says
            where every node will be, and nodes carry features ``x [N, f]`` instead of elements.
        units: unit of every quantity in the graphs, such as ``{"pos": "Angstrom", "forces":
            "eV/Angstrom"}``.
        references: energy of an isolated atom of each element that the source has one of, in the
            target's unit; they are in no split.
        notes: what is to be said of how the source was read, a sentence each.
        types: by ``row`` what each graph is, such as the ``config_type`` of extended XYZ (empty
            where it has none); empty where no graph has one.
    """

    name: str
    target: str
    unit: str
    extensive: bool
    graphs: Sequence[Data]
    splits: dict[str, Tensor]
    smiles: Sequence[str] = field(default_factory=list)
    outputs: str = "graph"
    units: dict[str, str] = field(default_factory=dict)
    references: dict[int, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    types: Sequence[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse graphs that cannot be used, naming the first one."""
        check_records(self.graphs, self.name)
        for split in ("train", "val", "test"):
            if len(self.splits.get(split, ())) == 0:
                raise DataError(f"data set {self.name} has no graphs in its {split} split")
        self.splits.setdefault("ood", torch.empty(0, dtype=torch.long))

    def split(self, name: str) -> GraphView:
        """The graphs of a split, to be used as a list."""
        return GraphView(self.graphs, self.splits[name])

    def targets(self, split: str) -> Tensor:
        """``y`` of all graphs in a split, one after another, without building lazy graphs."""
        if isinstance(self.graphs, GraphStore) and "y" in self.graphs.graphs:
            return self.graphs.column("y", self.splits[split])
        return torch.cat([graph.y for graph in self.split(split)])

    def types_of(self, split: str) -> list[str]:
        """What each graph of a split is; empty where the source says so of none in it."""
        found = [self.types[row] for row in self.splits[split].tolist()] if self.types else []
        return found if any(found) else []

    @property
    def elements(self) -> list[int]:
        """Atomic numbers in the training split, sorted; none where nodes carry features."""
        return self.elements_of("train")

    def elements_of(self, split: str) -> list[int]:
        """Atomic numbers in a split, sorted."""
        rows = self.splits[split]
        if self.outputs == "positions" or not len(rows):
            return []
        if isinstance(self.graphs, GraphStore):
            return self.graphs.elements(rows)
        return torch.cat([g.z for g in self.split(split)]).unique().tolist()

    def limited(self, train: int | None, seed: int = 0) -> GraphDataset:
        """The same data with at most ``train`` random training graphs; other splits stay whole."""
        if train is None:
            return self
        if train < 2:
            raise ConfigError(f"data.limit must leave at least 2 training graphs, not {train}")
        generator = torch.Generator().manual_seed(seed)
        rows = self.splits["train"]
        kept = rows[torch.randperm(len(rows), generator=generator)[:train]]
        splits = {**self.splits, "train": kept}
        return replace(self, splits=splits)

    def with_cutoff(self, cutoff: float | None) -> GraphDataset:
        """Graphs with neighbour lists, searched for once (all pairs, without one, are cheap).

        Lists of graphs get theirs now, lazy graphs when they are used first.

        Raises:
            ConfigError: the graphs have features of their own edges, which new edges would lack.
            DataError: a record has no neighbour list, such as one with a cell of no volume.
        """
        if cutoff is None:
            return self
        if getattr(self.graphs[0], "edge_attr", None) is not None:
            raise ConfigError(
                f"{self.name} brings edges with features of their own, which a neighbour list "
                f"within model.cutoff={cutoff:g} would lack; use model.cutoff=null"
            )
        if isinstance(self.graphs, GraphStore):
            return replace(self, graphs=self.graphs.with_cutoff(cutoff))
        add_neighbours(self.graphs, cutoff)
        return self


def split_hash(splits: dict[str, Tensor]) -> str:
    """SHA-256 of which rows are in which split, whatever their order: names a split in results."""
    rows = {name: sorted(splits[name].tolist()) for name in sorted(splits) if len(splits[name])}
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


def check_records(graphs: Sequence[Data], source: str) -> None:
    """Refuse records with missing, non-finite or misshapen numbers.

    Raises:
        DataError: names the source, the record and what is wrong with it.
    """
    if isinstance(graphs, GraphStore):
        return graphs.check(source)
    if not graphs:
        raise DataError(f"{source} holds no graphs")
    for i, graph in enumerate(graphs):
        where = f"record {i} of {source}"
        if graph.pos is None or graph.pos.dim() != 2 or len(graph.pos) == 0:
            raise DataError(f"{where} needs positions [atoms, dimensions] for at least one atom")
        if getattr(graph, "z", None) is not None and graph.z.shape != graph.pos.shape[:1]:
            raise DataError(f"{where} has {len(graph.z)} elements for {len(graph.pos)} positions")
        for name in CHECKED:
            value = getattr(graph, name, None)
            if value is not None and not torch.isfinite(value).all():
                raise DataError(not_finite(i, source, name))


def random_splits(n: int, seed: int = 0, val: float = 0.1, test: float = 0.1) -> dict[str, Tensor]:
    """A seeded random split into train, val and test (at least one graph each)."""
    if n < 3:
        raise DataError(f"{n} graphs cannot be split into train, val and test; 3 are the least")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    n_val, n_test = max(1, int(val * n)), max(1, int(test * n))
    return {
        "train": order[n_val + n_test :],
        "val": order[:n_val],
        "test": order[n_val : n_val + n_test],
    }
