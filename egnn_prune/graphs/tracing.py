"""Whether models may read values, and whether they have to check them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

_STATE = threading.local()


def has_values() -> bool:
    """Whether values may be read: neither ``torch.compile`` nor :func:`tracing` is at work."""
    return not (torch.compiler.is_compiling() or getattr(_STATE, "traced", False))


def must_check() -> bool:
    """Whether a batch has to be checked: it can be, and nobody did before (:func:`checked`)."""
    return has_values() and not getattr(_STATE, "checked", False)


def is_transformed() -> bool:
    """Whether autocast or functorch are at work, which the blocks' own ways back cannot follow."""
    autocast = torch.is_autocast_enabled("cpu")
    return autocast or bool(torch._C._are_functorch_transforms_active())


@contextmanager
def _set(name: str) -> Iterator[None]:
    before = getattr(_STATE, name, False)
    setattr(_STATE, name, True)
    try:
        yield
    finally:
        setattr(_STATE, name, before)


def tracing() -> AbstractContextManager[None]:
    """Within this context, and this thread, our models leave out what reads values."""
    return _set("traced")


def checked() -> AbstractContextManager[None]:
    """Within this context, and this thread, our models take batches as they are.

    For structures that were checked and connected before, and of which only the atoms moved.
    """
    return _set("checked")
