"""One pass of one case: everybody takes turns, and each network becomes a row."""

from __future__ import annotations

import gc
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from egnn_prune.bench.ceilings import Ceilings
from egnn_prune.bench.contender import Contender, Unavailable
from egnn_prune.bench.contenders import contender, difference
from egnn_prune.bench.fresh import fresh_ms
from egnn_prune.bench.inputs import Inputs, inputs_of
from egnn_prune.bench.memory import allocated_peak
from egnn_prune.bench.passes import call, results
from egnn_prune.bench.plan import USUAL, Entry, Turns, Unit
from egnn_prune.bench.turns import free_megabytes, take_turns
from egnn_prune.bench.work import egnn_work, recorded_work
from egnn_prune.errors import InputError
from egnn_prune.system.time_limit import OutOfTime, time_limit

EAGER_LIMIT = 600.0
"""Seconds that the first calls of an eager network may take."""
Row = dict[str, Any]
Said = Callable[[str], object]


@dataclass(frozen=True)
class Conditions:
    """Under which everything is measured.

    Attributes:
        device: such as ``cpu``.
        threads: of torch.
        turns: how often.
        compile_limit: seconds that a program may take to be compiled and run once.
        fresh_limit: seconds that a fresh process may take.
    """

    device: str
    threads: int
    turns: Turns = USUAL
    compile_limit: float = 120.0
    fresh_limit: float = 180.0


def row_of(unit: Unit, entry: Entry, conditions: Conditions, **found: object) -> Row:
    """A row of ``benchmark.json``; what was not measured is ``None``."""
    row: Row = {
        "case": unit.case.name,
        "variant": entry.variant,
        "compiled": entry.compiled,
        "pass": unit.name,
        "ms_median": None,
        "ms_iqr": None,
        "peak_mb": None,
        "threads": conditions.threads,
        "device": conditions.device,
        "max_abs_diff_to_textbook": None,
        "fresh_ms": None,
        "fresh_faults": None,
        "floor_ms": None,
        "edges": None,
        "turns": 0,
        "skipped": None,
    }
    return row | found


def measured(unit: Unit, conditions: Conditions, ceilings: Ceilings, say: Said) -> list[Row]:
    """The rows of a unit, one an entry, those that could not be measured with the reason.

    Args:
        unit: one pass of one case.
        conditions: threads, device and limits.
        ceilings: of the machine; new shapes are measured here.
        say: told what is being done.
    """
    torch.compiler.reset()
    device = conditions.device
    inputs = inputs_of(unit.case, device)
    edges = inputs.edge_index.shape[1]
    built: dict[Entry, _Ready] = {}
    rows: dict[Entry, Row] = {}
    for entry in unit.entries:
        say(f"{entry}")
        reason = _no_room(unit, edges, device)
        if reason is None:
            try:
                built[entry] = _prepared(entry, unit, inputs, conditions)
                continue
            except (Exception, OutOfTime) as error:  # whatever it is, the row says it
                reason = _sentence(error, entry, conditions)
        rows[entry] = row_of(unit, entry, conditions, edges=edges, skipped=reason)
    say("taking turns")
    gc.collect()
    runs = {entry: ready.run for entry, ready in built.items()}
    times, failed = take_turns(runs, conditions.turns.of, device)
    for entry, problem in failed.items():
        reason = _sentence(problem, entry, conditions)
        rows[entry] = row_of(unit, entry, conditions, edges=edges, skipped=reason)
    for entry, values in times.items():
        ready = built[entry]
        low, high = np.percentile(values, [25, 75])
        found: Row = {
            "ms_median": statistics.median(values),
            "ms_iqr": float(high - low),
            "max_abs_diff_to_textbook": ready.difference,
            "edges": edges,
            "turns": len(values),
        }
        try:
            found["peak_mb"] = allocated_peak(ready.run, device)
            found["floor_ms"] = _floor(entry, ready, unit, inputs, ceilings)
        except Exception as error:  # what was timed stays
            found["skipped"] = f"memory or floor: {_sentence(error, entry, conditions)}"
        rows[entry] = row_of(unit, entry, conditions, **found)
    for entry in (e for e in times if e.variant in unit.fresh and not e.compiled):
        say(f"{entry} in a fresh process")
        rows[entry] |= _fresh(unit, entry, conditions)
    return [rows[entry] for entry in unit.entries]


@dataclass(frozen=True)
class _Ready:
    """A network that has run once."""

    network: Contender
    run: Callable[[], object]
    difference: float | None


def _prepared(entry: Entry, unit: Unit, inputs: Inputs, conditions: Conditions) -> _Ready:
    device, case = conditions.device, unit.case
    network = contender(entry.variant, case, device, entry.compiled)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other people's networks and of compilers
        worst = None
        with time_limit(conditions.compile_limit if entry.compiled else EAGER_LIMIT):
            if network.expected is not None:
                found = results(unit.name, network, inputs)
                expected = results(unit.name, network.expected, inputs)
                worst = difference(found, expected, network.columns)
            run = call(unit.name, network, inputs)
            run()
    return _Ready(network, run, worst)


def _floor(entry: Entry, ready: _Ready, unit: Unit, inputs: Inputs, ceilings: Ceilings) -> float:
    """Of the function that is computed: the textbook's is that of ours without removed channels."""
    if ready.network.twin is not None:
        nodes, edges = len(inputs.pos), inputs.edge_index.shape[1]
        return ceilings.floor_ms(egnn_work(ready.network.twin, nodes, edges, unit.name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        eager = contender(entry.variant, unit.case, ceilings.device)  # compiled code hides its work
        return ceilings.floor_ms(recorded_work(call(unit.name, eager, inputs)))


def _fresh(unit: Unit, entry: Entry, conditions: Conditions) -> Row:
    try:
        ms, faults = fresh_ms(
            unit.case.name,
            entry.variant,
            unit.name,
            conditions.threads,
            conditions.device,
            conditions.fresh_limit,
        )
    except InputError as error:
        return {"skipped": str(error)}
    return {"fresh_ms": ms, "fresh_faults": faults}


def _no_room(unit: Unit, edges: int, device: str) -> str | None:
    """Why the textbook, which needs most, would not fit into memory."""
    case = unit.case
    layers = 1 if unit.name == "infer" else case.layers
    needed = 4e-6 * edges * layers * (10 * case.hidden + 20)
    free = free_megabytes(device)
    if needed < 0.8 * free:
        return None
    return f"needs about {needed / 1e3:.1f} GB of memory, and {free / 1e3:.1f} GB are free"


def _sentence(error: BaseException, entry: Entry, conditions: Conditions) -> str:
    if isinstance(error, OutOfTime):
        limit = conditions.compile_limit
        return (
            f"not compiled within {limit:.0f} s"
            if entry.compiled
            else f"took over {EAGER_LIMIT:.0f} s"
        )
    if isinstance(error, Unavailable | InputError):
        return str(error)
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]
