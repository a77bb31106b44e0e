"""Several processes agree where they must, and one process needs none of it."""

from __future__ import annotations

import random
import socket
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from several import in_several

from egnn_prune.errors import ConfigError, InputError
from egnn_prune.system import distributed as d
from egnn_prune.system.files import read_json, write_json


def test_one_process_is_what_it_was():
    def fail():
        raise InputError("no")

    assert d.place() == (0, 1) and d.is_first()
    assert d.broadcast(3) == 3 and d.gathered(3) == [3]
    assert d.total(2.5) == 2.5 and d.any_of_us(True) and not d.any_of_us(False)
    assert d.decided(lambda: 4) == d.after_the_first(lambda: 4) == 4
    assert d.part_of([1, 2]) == [1, 2] and d.joined([[1, 2]]) == [1, 2]
    with pytest.raises(InputError):
        d.decided(fail)
    with d.several(1, 1, "here") as device:
        assert device == "here"


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_parts_are_joined_again(monkeypatch, count):
    for length in (0, 1, 2, 5, 11):
        parts = []
        for rank in range(count):
            monkeypatch.setattr(d, "_place", (rank, count))
            parts.append(d.part_of(range(length)))
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert d.joined(parts) == list(range(length))


@pytest.fixture
def untold(monkeypatch):
    for name in (*d.TOLD, *d.TOLD_BY_SLURM, "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_who_was_started_alone_is_told_how_to_start(untold):
    assert d.told() is None
    with pytest.raises(ConfigError, match="need 4 processes, and there is 1; start them by"):
        with d.several(2, 2):
            pass
    for name, value in zip(d.TOLD, "130", strict=True):
        untold.setenv(name, value)
    assert d.told() == (1, 3, 0)
    with pytest.raises(ConfigError, match="need 2 processes, and there are 3"):
        with d.several(2):
            pass
    untold.setenv("WORLD_SIZE", "many")
    with pytest.raises(ConfigError, match="must be numbers"):
        d.told()


def test_slurm_tells_its_tasks_and_a_batch_script_is_none(untold):
    untold.setenv("SLURM_PROCID", "0")
    untold.setenv("SLURM_LOCALID", "0")
    untold.setenv("SLURM_NTASKS", "4")
    assert d.told() is None  # sbatch without srun
    for name, value in zip(d.TOLD_BY_SLURM, "010", strict=True):
        untold.setenv(name, value)
    assert d.told() is None  # an interactive step
    for name, value in zip(d.TOLD_BY_SLURM, "341", strict=True):
        untold.setenv(name, value)
    assert d.told() == (3, 4, 1)


def test_nobody_says_where_the_first_process_is(untold):
    for name, value in zip(d.TOLD, "020", strict=True):
        untold.setenv(name, value)
    with pytest.raises(ConfigError, match="MASTER_ADDR"):
        with d.several(2):
            pass
    assert d.place() == (0, 1)


def test_the_others_do_not_come(untold):
    """Nobody waits for them for days."""
    for name, value in zip(d.TOLD, "020", strict=True):
        untold.setenv(name, value)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    untold.setenv("MASTER_ADDR", "127.0.0.1")
    untold.setenv("MASTER_PORT", str(port))
    untold.setattr(d, "RENDEZVOUS", timedelta(seconds=1))
    with pytest.raises(ConfigError, match="process 0 of 2 did not meet the others"):
        with d.several(2):
            pass
    assert d.place() == (0, 1)


def exchange(folder: Path) -> dict:
    """What one of three processes sees."""
    rank, count = d.place()
    with d.several(count):  # as a second job of the same processes
        assert d.gathered(rank) == [0, 1, 2]
    d._place = rank, count
    seen = {"place": (rank, count), "broadcast": d.broadcast(rank), "all": d.gathered(rank)}
    seen |= {"sum": d.total(rank + 0.5), "any": d.any_of_us(rank == 1), "none": d.any_of_us(False)}

    def alone() -> tuple:
        return rank, d.place(), d.decided(lambda: "inner"), d.part_of([1, 2])

    seen["decided"] = d.decided(alone)
    try:
        d.decided(lambda: read_json(folder / f"nothing{rank}"))
    except InputError as error:
        seen["sentence"] = str(error)
    seen["after a failure"] = d.place()
    write_json(folder / f"written{rank}.json", {"by": rank})
    d.gathered(None)
    seen["written"] = sorted(path.name for path in folder.glob("written*"))

    def leave() -> bool:
        there = (folder / "left").exists()
        (folder / "left").touch()
        return there

    seen["found what the first left"] = d.after_the_first(leave)
    torch.manual_seed(rank)
    d.agree_on_draws()
    seen["draw"] = float(torch.rand(()))
    part = d.part_of(range(8))
    seen["joined"] = d.joined(d.gathered(part))
    return seen


def test_three_processes(tmp_path):
    found = in_several(3, "test_distributed:exchange", tmp_path)
    assert [f["place"] for f in found] == [(0, 3), (1, 3), (2, 3)]
    assert [f["found what the first left"] for f in found] == [False, True, True]
    for f in found:
        assert f["broadcast"] == 0 and f["all"] == [0, 1, 2] and f["sum"] == 4.5
        assert f["any"] and not f["none"]
        assert f["decided"] == (0, (0, 1), "inner", [1, 2])
        assert "nothing0 is missing" in f["sentence"]
        assert f["after a failure"] == f["place"]
        assert f["written"] == ["written0.json"] and f["draw"] == found[0]["draw"]
        assert f["joined"] == list(range(8))


def test_joined_takes_parts_that_are_lists_of_anything():
    everything = [random.random() for _ in range(7)]
    assert d.joined([everything[0::2], everything[1::2]]) == everything
