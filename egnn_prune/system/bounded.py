"""Tensors are counted before memory is taken for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode

#: Functions of torch that make tensors of a size that they are told.
FACTORIES = {"empty", "zeros", "ones", "full", "rand", "randn", "eye", "arange", "linspace"}


class AsksForTooMuch(ValueError):
    """More numbers were asked for than the limit.

    Args:
        asked: how many, at least; what would have been asked for next is not known.
        message: what to say.
    """

    def __init__(self, asked: float, message: str = "") -> None:
        super().__init__(message or f"at least {asked:,.3g} numbers are asked for")
        self.asked = asked


class Bounded(TorchFunctionMode):
    """Within this context functions of torch make no more numbers than a limit.

    A module of an absurd width is refused when it asks for its first weights, in no time.

    Args:
        limit: numbers, whatever their precision, of all tensors together.
    """

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit, self.asked = limit, 0.0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count what functions that make tensors are asked for.

        Raises:
            AsksForTooMuch: it is more than the limit.
        """
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in FACTORIES:
            given = [*args, *(kwargs[k] for k in ("size", "end", "steps", "n") if k in kwargs)]
            self.asked += _numel([v for v in given if not isinstance(v, Tensor | str | Generator)])
            if self.asked > self.limit:
                raise AsksForTooMuch(self.asked)
        return func(*args, **kwargs)


def _numel(sizes: Sequence[Any]) -> float:
    """At most so many entries: the product of whole numbers, listed or not."""
    entries = 1.0
    for size in sizes:
        for n in size if isinstance(size, list | tuple) else [size]:
            if isinstance(n, int | float) and not isinstance(n, bool):
                entries *= max(1.0, float(n))
    return entries
