"""Work of a seed that takes no time, dies, fails, or says what it was called with."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from egnn_prune.configs.settings import JobsSettings
from egnn_prune.errors import DataError
from egnn_prune.system.files import read_json, write_json


@dataclass
class WorkSettings:
    out: str
    threads: int | None = None
    workers: int = 2
    dies: int = -1  # the seed whose process is killed, the first time
    always: bool = False
    fails: int = -1
    wrong: int = -1
    waits: bool = False  # until somebody ends it
    jobs: JobsSettings = field(default_factory=JobsSettings)


def work(settings: WorkSettings, seed: int) -> list[dict[str, Any]]:
    """Rows with everything that must come back as it is; keeps what it has finished."""
    done = Path(settings.out) / f"seed{seed}.json"
    calls = Path(settings.out) / f"calls{seed}"
    with calls.open("a") as file:
        file.write("x")
    if done.exists():
        return read_json(done)["rows"]
    if seed == settings.dies and (settings.always or len(calls.read_text()) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if settings.waits:
        write_json(Path(settings.out) / f"ids{seed}.json", {"ids": [os.getpid(), os.getppid()]})
        time.sleep(600)
    if seed == settings.fails:
        raise ZeroDivisionError("a fault of ours")
    if seed == settings.wrong:
        raise DataError("the file has no forces")
    generator = torch.Generator().manual_seed(seed)
    number = float(torch.rand(1, generator=generator, dtype=torch.float64))
    rows = [{"seed": seed, "x": number, "text": "a"}, {"seed": seed, "x": 1 / 3, "text": ""}]
    write_json(done, {"rows": rows})
    time.sleep(0.05)
    return rows
