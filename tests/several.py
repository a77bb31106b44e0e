"""A function that several processes run together, and what each of them returns."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch

from egnn_prune.system.distributed import place, several
from egnn_prune.system.launch import end_with_the_launcher, launch

WORKER = "import sys; sys.path.insert(0, {tests!r}); import several; several.worker()"


def in_several(count: int, work: str, folder: Path) -> list[Any]:
    """What ``work``, a ``module:function`` of the folder's path, returns in every process."""
    tests = str(Path(__file__).parent)
    code = WORKER.format(tests=tests)
    command = [sys.executable, "-W", "ignore", "-c", code, str(count), work, str(folder)]
    assert launch(count, command) == 0
    return [torch.load(folder / f"{rank}.pt") for rank in range(count)]


def worker() -> None:
    """Such a process."""
    count, work, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    end_with_the_launcher()
    torch.set_num_threads(1)
    name, _, function = work.partition(":")
    for room in Path(__file__).parent.glob("*/"):
        sys.path.append(str(room))
    with several(count):
        rank = place()[0]
        found = getattr(importlib.import_module(name), function)(folder)
    torch.save(found, folder / f"{rank}.pt")
