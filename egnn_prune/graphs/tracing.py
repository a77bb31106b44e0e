"""Whether torch is tracing or compiling: then tensors hold no numbers to be checked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_TRACED = threading.local()


def has_values() -> bool:
    """Whether checks may read values: neither ``torch.compile`` nor :func:`tracing` is at work."""
    return not (torch.compiler.is_compiling() or getattr(_TRACED, "now", False))


@contextmanager
def tracing() -> Iterator[None]:
    """Within this context, and this thread, our models leave out what reads values."""
    _TRACED.now = True
    try:
        yield
    finally:
        _TRACED.now = False
