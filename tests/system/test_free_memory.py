"""How much memory is left, by the machine, its container or the user; and tensors counted first."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from egnn_prune.errors import ConfigError, InputError
from egnn_prune.system import memory_limit as memory
from egnn_prune.system.bounded import AsksForTooMuch, Bounded


@pytest.fixture
def said(tmp_path, monkeypatch):
    """A machine with 8,000 kB left, in a container with 5,000,000 of its 6,000,000 bytes used."""
    monkeypatch.setattr(memory, "MACHINE", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CONTAINER", tmp_path)
    monkeypatch.delenv(memory.LIMIT_GB, raising=False)
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    (tmp_path / "memory.max").write_text("6000000\n")
    (tmp_path / "memory.current").write_text("5000000\n")
    return tmp_path


def test_the_smaller_of_machine_and_container(said):
    assert memory.free_bytes() == 1_000_000
    (said / "memory.max").write_text("max\n")
    assert memory.free_bytes() == 8000 * 1024
    (said / "meminfo").unlink()
    assert memory.free_bytes() == math.inf


def test_the_user_may_know_better(said, monkeypatch):
    monkeypatch.setenv(memory.LIMIT_GB, "2.5")
    assert memory.free_bytes() == 2.5e9
    memory.refuse_beyond_memory(2e9, "this")
    with pytest.raises(InputError, match=r"this would take some 3 GB of memory, and 2\.5 GB are f"):
        memory.refuse_beyond_memory(3e9, "this")
    for nonsense in ("0", "-1", "much", "nan"):
        monkeypatch.setenv(memory.LIMIT_GB, nonsense)
        with pytest.raises(ConfigError, match="positive number of GB"):
            memory.free_bytes()


def test_tensors_are_counted_before_there_is_memory_for_them():
    with Bounded(1e6):
        nn.Linear(100, 100)
        torch.zeros(10, dtype=torch.long)
        with pytest.raises(AsksForTooMuch) as caught:
            nn.Linear(10**7, 10**7)
    assert caught.value.asked > 1e14
