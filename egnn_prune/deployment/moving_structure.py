"""One structure whose atoms move, such as in molecular dynamics: what stays is done once."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from egnn_prune.deployment.atom_pass import AtomPass, atom_pass
from egnn_prune.deployment.moving_graph import MovingGraph
from egnn_prune.deployment.recorded_pass import RecordedPass
from egnn_prune.errors import ConfigError
from egnn_prune.graphs import checked, graph_of_node
from egnn_prune.graphs.batch_record import forget_edges
from egnn_prune.prediction import Prediction, members_of
from egnn_prune.uncertainty import Estimator, MCDropout

#: Steps before a pass is recorded, which takes about as long as so many of them.
RECORD_AFTER = 100
#: Edges of the largest structure whose passes are recorded: beyond, arithmetic is what costs.
RECORD_EDGES = 4_000
#: By how much the room for edges grows when a structure gets denser.
GROWTH = 1.25
#: What a pass may find beside the prediction.
PARTS = [field.name for field in fields(AtomPass)][1:]


#: What a pass was asked for, by name.
Asked = tuple[tuple[str, bool], ...]


class MovingStructure(MovingGraph):
    """A structure, checked and encoded once, of which positions and cell change.

    In every step the atoms get the edges of a :class:`~egnn_prune.graphs.SkinList`. After
    :data:`RECORD_AFTER` steps the pass is recorded (:class:`RecordedPass`) and replayed from then
    on. The record has room for more edges than there are; what is left of it is filled with edges
    longer than the cutoff, which change nothing.

    Args:
        method: an uncertainty method, not calibrated.
        graph: ``z [N]``, ``pos [N, 3]``, and ``cell [1, 3, 3]``, ``pbc [1, 3]`` where periodic.
        device: where the network is.
        compiled: whether passes are compiled, at the first step.

    Raises:
        DataError: the model cannot use the structure.
    """

    def __init__(
        self, method: Estimator, graph: Data, device: torch.device, compiled: bool = False
    ) -> None:
        super().__init__(graph, _cutoff(method.network))
        self._device, self._compile = device, compiled
        self.method = method.holding() if isinstance(method, MCDropout) else method
        batch = copy.copy(graph)
        batch.batch = graph_of_node(graph)
        batch.ptr = torch.tensor([0, len(graph.pos)])
        batch = batch.to(device)
        prepared: list[Data] = [  # each checks
            getattr(network, "prepared", copy.copy)(batch) for network in members_of(method.network)
        ]
        self._base = prepared[0]
        forget_edges(self._base)
        self._base.found_edges = False  # they are given, from here on
        self._records: dict[Asked, RecordedPass] = {}
        self._names: dict[Asked, list[str]] = {}
        self._states: dict[Asked, Any] = {}
        self._calls, self._recordable = 0, True

    def atom_pass(self, **asked: bool) -> AtomPass:
        """What :func:`~egnn_prune.deployment.atom_pass.atom_pass` finds where the atoms are now.

        Args:
            asked: ``forces``, ``stress``, ``members``.

        Raises:
            ConfigError: members of a single one were asked for.
            DataError: the atoms lie too far apart for a neighbour search, or too close.
        """
        index, shift = self.neighbours()
        self._calls += 1
        if not self._recordable or not (self._compile or self._calls > RECORD_AFTER):
            return self._plain(index, shift if self._periodic else None, asked)
        key, state = tuple(sorted(asked.items())), self._state()
        record = self._records.get(key)
        same = record is not None and self._states[key] == state and record.is_current()
        if record is None or not same or record.shapes[1][1] < index.shape[1]:
            record = self._record(index, shift, asked)
            if record is None:
                return self._plain(index, shift if self._periodic else None, asked)
            self._records[key], self._states[key] = record, state
        names, inputs = self._names[key], self._inputs(index, shift, record.shapes[1][1])
        values = record(*inputs)
        first = len(fields(Prediction))
        rest = dict.fromkeys(PARTS) | dict(zip(names, values[first:], strict=True))
        return AtomPass(Prediction(*values[:first]), **rest)

    def _plain(self, index: Tensor, shift: Tensor | None, asked: dict[str, bool]) -> AtomPass:
        """The pass as the model itself does it."""
        device = self._device
        cell = self.graph.cell.to(device) if self._periodic else None
        shift = None if shift is None else shift.to(device)
        return self._passed(asked, self.graph.pos.to(device), index.to(device), shift, cell)

    def _passed(
        self,
        asked: dict[str, bool],
        pos: Tensor,
        index: Tensor,
        shift: Tensor | None = None,
        cell: Tensor | None = None,
    ) -> AtomPass:
        batch = copy.copy(self._base)
        batch.pos, batch.edge_index = pos, index
        if shift is not None:
            batch.edge_shift = shift
        if cell is not None:
            batch.cell = cell
        with checked():
            return atom_pass(self.method, batch, **asked)

    # ------------------------------------------------------------------ recorded

    def _tensors(self) -> list[Tensor]:
        return [*self.method.parameters(), *self.method.buffers()]

    def _state(self) -> Any:
        """What a record rests on: which tensors, modes and hooks the model has now."""
        modules = self.method.modules()
        how = [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in modules]
        return [id(tensor) for tensor in self._tensors()], how

    def _record(self, index: Tensor, shift: Tensor, asked: dict[str, bool]) -> RecordedPass | None:
        """The pass, recorded with room for some more edges; ``None`` where it cannot be."""
        edges = index.shape[1]
        if not self._compile and edges > RECORD_EDGES:
            return None
        inputs = self._inputs(index, shift, edges if self.cutoff is None else room_for(edges))

        def function(*inputs: Tensor) -> list[Tensor]:
            found = self._passed(asked, *inputs)
            there = {name: getattr(found, name) for name in PARTS}
            there = {name: value for name, value in there.items() if value is not None}
            self._names[tuple(sorted(asked.items()))] = list(there)
            return [*vars(found.prediction).values(), *there.values()]

        try:
            record = RecordedPass(function, inputs, self._tensors(), self._compile)
            if not _follows(record, function, inputs):
                raise ConfigError("the model's pass cannot be recorded: it reads values")
        except ConfigError as error:
            self._recordable = False
            if self._compile:
                warnings.warn(f"{error}; it runs as it is, not compiled", stacklevel=2)
            return None
        return record

    def _inputs(self, index: Tensor, shift: Tensor, room: int) -> list[Tensor]:
        """What is recorded passes read, with edges that change nothing in front of the list.

        They lead from atom 0 to an image of itself beyond the cutoff: the list stays sorted.
        """
        free = room - index.shape[1]
        if free:
            assert self.cutoff is not None
            index = torch.cat([index.new_zeros(2, free), index], 1)
            far = shift.new_zeros(free, 3)
            far[:, 0] = 2 * self.cutoff
            shift = torch.cat([far, shift])
        inputs = [self.graph.pos, index, shift]
        if self._periodic:
            inputs.append(self.graph.cell)
        return [tensor.to(self._device) for tensor in inputs]


def room_for(edges: int) -> int:
    """Room for a number of edges that may grow: one of few sizes, each a quarter more."""
    room = 32
    while room < edges:
        room = 8 * math.ceil(GROWTH * room / 8)
    return room


def _cutoff(network: nn.Module) -> float | None:
    """The longest cutoff of the networks; ``None`` where one of them reads all pairs."""
    options = [getattr(module, "options", None) for module in network.modules()]
    cutoffs = [o.cutoff for o in options if o is not None and hasattr(o, "cutoff")]
    return None if None in cutoffs else max(cutoffs, default=None)


def _follows(record: RecordedPass, function: Any, inputs: list[Tensor]) -> bool:
    """Whether a record says what the function does for other positions and cells, too."""
    pos = inputs[0]
    steps = torch.arange(pos.numel(), dtype=pos.dtype, device=pos.device).sin().view_as(pos)
    index, *lattice = inputs[1:]
    moved = [pos + 0.01 * steps, index, *(1.003 * tensor for tensor in lattice)]
    return all(
        bool((new - old).abs().max() <= 1e-4 * old.abs().max() + 1e-12)
        for new, old in zip(record(*moved), function(*moved), strict=True)
    )
