"""How much memory a computation needs at its worst moment, and how much there is."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from egnn_prune.errors import ConfigError, InputError

#: The environment variable that replaces what :func:`free_bytes` finds, in GB (10^9 bytes).
LIMIT_GB = "EGNN_PRUNE_MEMORY_GB"
#: What the kernel says of the machine and of a container.
MACHINE = Path("/proc/meminfo")
CONTAINER = Path("/sys/fs/cgroup")


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, from birth to death.

    Attributes:
        now: bytes alive.
        peak: the largest that ``now`` was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # views and results in place share the storage of what they were made of: not new
        before = {id(s) for s in map(_storage, tree_leaves((args, kwargs))) if s is not None}
        result = func(*args, **(kwargs or {}))
        for storage in map(_storage, tree_leaves(result)):
            if storage is None or id(storage) in before or id(storage) in self._known:
                continue
            key, size = id(storage), storage.nbytes()
            self._known[key] = weakref.ref(storage, partial(self._died, key, size))
            self.now += size
        self.peak = max(self.peak, self.now)
        return result

    def _died(self, key: int, size: int, _: object) -> None:
        self.now -= size
        del self._known[key]


def _storage(value: Any) -> torch.UntypedStorage | None:
    return value.untyped_storage() if isinstance(value, Tensor) else None


def peak_megabytes(run: Callable[[], object], device: str | torch.device) -> float:
    """The most memory that a call holds at once, beyond what was there before, in MB (10^6 bytes).

    On a GPU what torch's allocator handed out at its peak. On a CPU, where no allocator counts, the
    bytes of all tensors that are alive at once of those that the call's operations made, also
    those that autograd keeps for the way back; scratch space inside an operation is not seen.

    Args:
        run: the computation, such as a pass forth and back. Called twice.
        device: where it runs.
    """
    run()  # what is allocated once and for all
    if torch.device(device).type == "cuda":
        return gpu_peak_megabytes(run, device)
    with _LiveTensors() as tensors:
        run()
    return tensors.peak / 1e6


def gpu_peak_megabytes(run: Callable[[], object], device: str | torch.device) -> float:
    """What torch's allocator hands out on a GPU at its peak during a call, in MB (10^6 bytes)."""
    torch.cuda.synchronize(device)
    start = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - start) / 1e6


def free_bytes() -> float:
    """Memory that a computation on the CPU can still take; infinity where nobody says.

    What the machine has left, or the container (control groups, version 2), unless the environment
    variable ``EGNN_PRUNE_MEMORY_GB`` says how much it shall be.

    Raises:
        ConfigError: the variable is no positive number.
    """
    if stated := os.environ.get(LIMIT_GB):
        try:
            limit = 1e9 * float(stated)
        except ValueError:
            limit = math.nan
        if not limit > 0:
            raise ConfigError(f"{LIMIT_GB} must be a positive number of GB, not {stated!r}")
        return limit
    left = [_first_number(line) * 1024 for line in _lines(MACHINE) if "MemAvailable" in line]
    most, used = (_lines(CONTAINER / f"memory.{name}") for name in ("max", "current"))
    if most and used and most[0].isdigit():
        left.append(max(_first_number(most[0]) - _first_number(used[0]), 0.0))
    return min(left, default=math.inf)


def gigabytes(number: float) -> str:
    """Bytes as a user reads them: three digits, in GB (10^9 bytes)."""
    return f"{number / 1e9:,.0f} GB" if number >= 1e11 else f"{number / 1e9:.3g} GB"


def refuse_beyond_memory(needed: float, what: str, advice: str = "") -> None:
    """Refuse what cannot fit into memory, before any of it is taken.

    Args:
        needed: bytes.
        what: that takes them; begins the sentence.
        advice: what to do about it, besides freeing memory.

    Raises:
        InputError: there is less.
    """
    if needed <= (free := free_bytes()):
        return
    raise InputError(
        f"{what} would take some {gigabytes(needed)} of memory, and {gigabytes(free)} are "
        f"free; {advice or 'free some, or use a larger machine'} ({LIMIT_GB}=N sets another limit)"
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # another system
        return []


def _first_number(text: str) -> float:
    return float(next((word for word in text.split() if word.isdigit()), "inf"))
