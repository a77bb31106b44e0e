"""How long networks of other widths take: measured by turns, and remembered."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from egnn_prune.channels import evaluating
from egnn_prune.errors import InputError
from egnn_prune.system.files import read_json, write_json
from egnn_prune.system.timing import Clock, alternating_times

#: Times in ms of networks that take turns, by their names; every network has equally many.
Times = Mapping[str, Sequence[float]]
#: Measures networks against each other. Whoever has another idea of time gives another function.
Measure = Callable[[Mapping[str, nn.Module]], Times]


@dataclass(frozen=True)
class TakingTurns:
    """Wall times of ``run(model)``, without gradients, in evaluation mode.

    The models take turns, so that a busy machine slows all alike; compare them pair by pair.

    Attributes:
        run: calls a model, such as ``lambda m: m(batch)``.
        repeats: timed calls of each.
        warmup: calls of each before that.
        compiled: compile every model first, for its own shapes. That takes many seconds a model,
            and a search for a budget looks at dozens.
        clock: tells the time, in seconds.
    """

    run: Callable[[nn.Module], Any]
    repeats: int = 9
    warmup: int = 2
    compiled: bool = False
    clock: Clock = time.perf_counter

    def __call__(self, models: Mapping[str, nn.Module]) -> dict[str, list[float]]:
        """Times in ms of every model."""
        first = next((p for m in models.values() for p in m.parameters()), torch.empty(0))
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            for model in models.values():
                stack.enter_context(evaluating(model))
            if self.compiled:
                from torch._dynamo import config

                # every shape is a program of its own; by default the ninth would run uncompiled
                stack.enter_context(config.patch(recompile_limit=1 << 16))
                for model in models.values():
                    before = model._compiled_call_impl  # a caller's network stays what it is
                    stack.callback(setattr, model, "_compiled_call_impl", before)
                    model.compile(dynamic=False)
            runs = {name: self._call(model) for name, model in models.items()}
            return alternating_times(runs, self.repeats, self.warmup, first.device, self.clock)

    def _call(self, model: nn.Module) -> Callable[[], Any]:
        return lambda: self.run(model)


@dataclass
class Remembered:
    """Measurements that are kept in a file, so that who continues sees the same numbers.

    Times differ from run to run, and with them the channels that a budget in time removes. What was
    measured once for networks of some shapes is read from the file afterwards.

    Attributes:
        measure: what is asked where the file knows nothing.
        path: a JSON file; it need not exist.
        rows: what was measured so far.
    """

    measure: Measure
    path: Path
    rows: dict[str, Times] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.exists():
            rows = read_json(self.path).get("times_ms")
            if not isinstance(rows, dict) or not all(map(_are_times, rows.values())):
                raise InputError(f"{self.path} is damaged; delete it, and times are measured again")
            self.rows = rows

    def __call__(self, models: Mapping[str, nn.Module]) -> Times:
        """Times in ms of every model."""
        key = _shapes(models)
        if key not in self.rows:
            measured = self.measure(models).items()
            self.rows[key] = {name: [round(t, 4) for t in times] for name, times in measured}
            threads = torch.get_num_threads()
            about = {"threads": threads, "torch": str(torch.__version__)}
            write_json(self.path, {**about, "times_ms": self.rows})
        return self.rows[key]


def model_shapes(model: nn.Module) -> list[Any]:
    """What a model's time depends on: its class and the shapes of its tensors, as plain JSON."""
    tensors = (*model.parameters(), *model.buffers())
    return [type(model).__name__, [list(t.shape) for t in tensors]]


def _are_times(row: Any) -> bool:
    """Whether this is what :class:`Remembered` keeps of some models."""
    return isinstance(row, dict) and all(
        isinstance(times, list) and times and all(isinstance(t, (int, float)) for t in times)
        for times in row.values()
    )


def _shapes(models: Mapping[str, nn.Module]) -> str:
    content = {name: model_shapes(model) for name, model in models.items()}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
