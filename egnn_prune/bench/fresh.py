"""First calls in a process of their own, where the allocator has kept no memory yet.

A long-lived process finds its edge-sized tensors where the last call left them; a fresh one asks
the operating system for them, page by page. What is timed are the first calls after importing and
after one call on a tiny batch of another shape.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from contextlib import suppress
from typing import Any

from egnn_prune.bench.cases import CASES
from egnn_prune.errors import InputError

CALLS = 3
"""Timed in each process; their median is the number."""
_MARK = "fresh "


def fresh_ms(
    case: str, variant: str, name: str, threads: int, device: str, limit: float
) -> tuple[float, int | None]:
    """Median of the first calls in ms, and page faults a call, in a new process.

    Args:
        case: its name.
        variant: whose network.
        name: the pass.
        threads: that torch may use.
        device: where.
        limit: seconds after which the process is ended.

    Raises:
        InputError: the process failed or took too long.
    """
    job = {"case": case, "variant": variant, "name": name, "threads": threads, "device": device}
    command = [sys.executable, "-m", "egnn_prune.bench.fresh", json.dumps(job)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=limit,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"a fresh process took more than {limit:.0f} s") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode or not lines:
        last = done.stderr.strip().splitlines() or ["no message"]
        raise InputError(f"a fresh process failed: {last[-1]}")
    found = json.loads(lines[-1].removeprefix(_MARK))
    return statistics.median(found["ms"]), found["faults"]


def first_calls(job: dict[str, Any]) -> dict[str, Any]:
    """What the new process does: times and page faults of its first calls."""
    import resource

    import torch

    if not job["variant"].startswith("ours"):
        _leave_the_allocator_alone()

    from egnn_prune.bench.contenders import contender
    from egnn_prune.bench.inputs import inputs_of, tiny_inputs
    from egnn_prune.bench.passes import call
    from egnn_prune.system.timing import milliseconds

    torch.set_num_threads(job["threads"])
    case, device = CASES[job["case"]], job["device"]
    network = contender(job["variant"], case, device)
    inputs = inputs_of(case, device)
    call(job["name"], network, tiny_inputs(case, device))()
    run = call(job["name"], network, inputs)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    times = [milliseconds(run, device) for _ in range(CALLS)]
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return {"ms": times, "faults": faults // CALLS}


def _leave_the_allocator_alone() -> None:
    """What our networks set for the whole process when they are imported, others do not have.

    (Warm turns are in one process, where all of them have it.)
    """
    with suppress(ImportError):
        from egnn_prune.system import malloc

        malloc.keep_freed_memory = lambda: None


if __name__ == "__main__":
    print(_MARK + json.dumps(first_calls(json.loads(sys.argv[1]))))
