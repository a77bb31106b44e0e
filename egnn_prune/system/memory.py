"""How much memory a computation needs at its worst moment."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


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
