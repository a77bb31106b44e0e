"""Numbers from whatever library they come, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from egnn_prune.errors import InputError


class Array(Protocol):
    """A NumPy array, or what can be seen as one."""

    def __array__(self) -> Any:
        """The NumPy array."""
        ...


#: A tensor, a NumPy array (or a pandas column and the like), a list of numbers, or one number.
Numbers = Tensor | Array | Sequence[Any] | float


def as_tensor(values: Numbers, name: str, device: torch.device | None = None) -> Tensor:
    """The values as a tensor; lists of Python's floats in float64.

    Args:
        values: see :data:`Numbers`. A tensor is returned as it is, with its autograd history.
        name: what they are, for the message.
        device: where to put what was no tensor.

    Raises:
        InputError: they are no numbers, or rows of different lengths.
    """
    if isinstance(values, Tensor):
        return values
    array = getattr(values, "__array__", None)
    try:
        # a copy: PyTorch shares no memory that is read-only or runs backwards
        found = torch.as_tensor(values if array is None else array().copy(), device=device)
        if array is None and found.is_floating_point():
            found = torch.as_tensor(values, dtype=torch.float64, device=device)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(
            f"{name} must be a tensor, a NumPy array or a list of numbers, not "
            f"{type(values).__name__} ({str(error).splitlines()[0].rstrip('.')})"
        ) from None
    return found
