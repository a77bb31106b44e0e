"""Runs that take turns, and limits of time and memory on them."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch

from egnn_prune.system.timing import milliseconds

Key = TypeVar("Key", bound=Hashable)


def take_turns(
    runs: Mapping[Key, Callable[[], object]],
    turns: Callable[[float], int],
    device: str,
    clock: Callable[[Callable[[], object], str], float] = milliseconds,
) -> tuple[dict[Key, list[float]], dict[Key, Exception]]:
    """Times in ms of each run, in the order A B C A B C ..., so that a busy machine slows all.

    A run that fails leaves the round, and the others go on.

    Args:
        runs: what takes turns; each has run before.
        turns: how many, told how many seconds the first turn took.
        device: where.
        clock: milliseconds of a run.

    Returns:
        Times, and what went wrong.
    """
    times: dict[Key, list[float]] = {key: [] for key in runs}
    failed: dict[Key, Exception] = {}
    turn, last = 0, 1
    while turn < last:
        for key, run in runs.items():
            if key in failed:
                continue
            try:
                times[key].append(clock(run, device))
            except Exception as error:  # whatever it is, it becomes a row of the table
                failed[key] = error
        turn += 1
        if turn == 1:
            last = turns(sum(map(sum, times.values())) / 1e3)
    return {key: t for key, t in times.items() if key not in failed}, failed


def free_megabytes(device: str) -> float:
    """Memory that can still be had, in MB."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 1e6
    try:
        with open("/proc/meminfo") as lines:
            found = dict(line.split(":", 1) for line in lines)
        return int(found["MemAvailable"].split()[0]) / 1e3
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
