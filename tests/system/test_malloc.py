"""Freed memory is there for the next tensor, and is not mapped anew."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from egnn_prune.system.malloc import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the system's C library is not glibc")
def test_tensors_use_the_pages_of_those_before_them():
    keep_freed_memory()
    size = 4 << 20  # above the limit of 128 kB from which glibc maps blocks at first

    def faults(times: int) -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(times):
            torch.ones(size // 4)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults(3)
    assert faults(20) < 20 * size / resource.getpagesize() / 4
