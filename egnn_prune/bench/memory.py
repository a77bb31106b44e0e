"""The most memory that a call holds at once, of compiled programs too."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from egnn_prune.system.memory import gpu_peak_megabytes


@contextmanager
def _silent_libraries() -> Iterator[None]:
    """Away with what C++ writes past Python to the standard error: that a profiler starts."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def allocated_peak(run: Callable[[], object], device: str) -> float:
    """What torch's allocators hand out at once during a call, in MB (10^6 bytes).

    On a CPU from the profiler's list of all that was taken and given back. Unlike
    :func:`egnn_prune.system.memory.peak_megabytes`, which follows operations and agrees with it
    on eager code, this sees the buffers of compiled programs; scratch space that a library takes
    past torch is not seen by either.

    Args:
        run: called once; whatever is made once and for all must be there already.
        device: where it runs.
    """
    if torch.device(device).type == "cuda":
        return gpu_peak_megabytes(run, device)
    activities = [ProfilerActivity.CPU]
    with _silent_libraries(), profile(activities=activities, profile_memory=True) as profiled:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiled.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = [e for e in events if e.get("name") == "[memory]"]
    now = peak = 0
    for change in sorted(changes, key=lambda e: e["ts"]):
        now += change["args"]["Bytes"]
        peak = max(peak, now)
    return peak / 1e6
