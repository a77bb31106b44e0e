"""Taking turns: the order, what fails, limits of time."""

from __future__ import annotations

import time

import pytest

from egnn_prune.bench.turns import free_megabytes, take_turns
from egnn_prune.system.time_limit import OutOfTime, time_limit


def test_runs_take_turns_and_the_first_turn_says_how_many():
    order: list[str] = []
    told: list[float] = []

    def turns(seconds: float) -> int:
        told.append(seconds)
        return 3

    runs = {name: lambda name=name: order.append(name) for name in "ABC"}
    times, failed = take_turns(runs, turns, "cpu", clock=lambda run, _: run() or 500.0)
    assert order == list("ABCABCABC") and told == [1.5] and not failed
    assert times == {"A": [500.0] * 3, "B": [500.0] * 3, "C": [500.0] * 3}


def test_a_run_that_fails_leaves_the_round():
    calls = {"good": 0, "bad": 0}

    def good() -> None:
        calls["good"] += 1

    def bad() -> None:
        calls["bad"] += 1
        if calls["bad"] == 2:
            raise RuntimeError("broken")

    times, failed = take_turns({"bad": bad, "good": good}, lambda _: 4, "cpu")
    assert calls == {"good": 4, "bad": 2} and list(times) == ["good"]
    assert str(failed["bad"]) == "broken"


def test_time_limit_ends_what_swallows_exceptions():
    start = time.perf_counter()
    with pytest.raises(OutOfTime), time_limit(0.05):
        while time.perf_counter() - start < 5:
            try:
                time.sleep(0.01)
            except Exception:
                pass
    with time_limit(0.05):
        pass
    time.sleep(0.1)  # rings no more


def test_memory_can_be_asked_for():
    assert free_megabytes("cpu") > 10
