"""How the C library keeps memory that was freed."""

from __future__ import annotations

import torch

#: The largest block whose size glibc learns from: just below its limit of 32 MiB.
LEARNT_FROM = 31 << 20


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks of up to 31 MiB (62 MiB in all) for the next ones.

    In a fresh process every larger tensor is mapped anew and handed back when it dies, so that each
    pass of a network touches thousands of pages for the first time: half of its time. The limit
    from which blocks are mapped rises to the largest mapped block that was freed (``mallopt(3)``,
    "dynamic mmap threshold"), so one such block, which is never touched, is all it takes. Without
    glibc nothing happens.
    """
    torch.empty(LEARNT_FROM, dtype=torch.uint8)
