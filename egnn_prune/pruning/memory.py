"""The most memory that a forward pass holds at a time."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from egnn_prune.channels import evaluating


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that tensors made within this mode keep alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.tensors: Counter[int] = Counter()  # by storage: views share one

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {_storage(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                key, size = _storage(tensor), tensor.untyped_storage().nbytes()
                if key not in self.tensors and key in known:
                    continue  # a view of something from outside
                if not self.tensors[key]:
                    self.now += size
                    self.peak = max(self.peak, self.now)
                self.tensors[key] += 1
                weakref.finalize(tensor, self._gone, key, size)
        return result

    def _gone(self, key: int, size: int) -> None:
        self.tensors[key] -= 1
        if not self.tensors[key]:
            del self.tensors[key]
            self.now -= size


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def peak_memory(model: nn.Module, run: Callable[[nn.Module], Any]) -> int:
    """Bytes of tensors alive at the worst moment of a pass without gradients, weights aside.

    Counts what the operators return, on any device; a kernel's own workspace is not seen.

    Args:
        model: the network.
        run: calls it once, such as ``lambda m: m(batch)``.
    """
    with evaluating(model), torch.no_grad(), _LiveBytes() as live:
        run(model)
    return live.peak
