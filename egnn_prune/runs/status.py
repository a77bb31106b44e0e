"""What runs are doing: finished, working, stopped or failed, and how far they are."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from egnn_prune.errors import InputError
from egnn_prune.runs.folder_lock import NAME
from egnn_prune.runs.run_folder import FAILED, NOW, UNFINISHED
from egnn_prune.system.files import read_json

#: Folders below the one that is looked through: of a study, of its seed, of its arm.
DEPTH = 4


@dataclass(frozen=True)
class Progress:
    """How far a fit was when it was saved last.

    Attributes:
        step: optimiser steps done.
        steps: of the whole fit.
        seconds: that they took.
        age: seconds since the save.
    """

    step: int
    steps: int
    seconds: float
    age: float

    @property
    def left(self) -> float:
        """Seconds until the fit ends, if it went on as before; unknown (NaN) at the beginning."""
        if not self.step:
            return math.nan
        return max(0.0, self.seconds / self.step * (self.steps - self.step) - self.age)


@dataclass(frozen=True)
class RunStatus:
    """A run, seen from outside.

    Attributes:
        path: its folder.
        state: ``"finished"``, ``"working"``, ``"stopped"`` (the same command goes on), ``"failed"``
            (so would the same command, with ``error``) or ``"damaged"``.
        done: stages that are finished.
        stage: that it works on, or worked on last.
        error: one line, where it failed or is damaged.
        progress: of the fit in that stage.
        changed: when a file of it was written last, in seconds since 1970.
        metrics: of a finished run, as ``metrics.json`` has them.
    """

    path: Path
    state: str
    done: int
    stage: str = ""
    error: str = ""
    progress: Progress | None = None
    changed: float = 0.0
    metrics: dict[str, Any] | None = None


def runs_below(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Folders of runs in a folder, itself included, by name; links are not followed."""
    if (folder / "stages" / "run.json").is_file():
        yield folder
        return
    if depth:
        with suppress(OSError):
            for child in sorted(folder.iterdir()):
                if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
                    yield from runs_below(child, depth - 1)


def status_of(run: Path) -> RunStatus:
    """What a run is doing. Nothing that is damaged there stops the look at it."""
    stages = run / "stages"
    done = [path for path in stages.glob("*.json") if "key" in _read(path)]
    changed = max((p.stat().st_mtime for p in (*done, stages / "run.json")), default=0.0)
    now, failed = _read(stages / NOW), _read(stages / FAILED)
    stage = str(now.get("stage") or failed.get("stage") or "")
    if (stages / "report.json").is_file():
        try:
            metrics = read_json(run / "metrics.json") if (run / "metrics.json").exists() else {}
        except InputError as wrong:
            return RunStatus(run, "damaged", len(done), error=str(wrong), changed=changed)
        found = metrics if isinstance(metrics, dict) else {}
        return RunStatus(run, "finished", len(done), changed=changed, metrics=found)
    progress = _progress(run / UNFINISHED / stage) if stage else None
    state, error = "stopped", ""
    if is_held(run):
        state = "working"
    elif failed:
        state, error = "failed", str(failed.get("error", ""))
    return RunStatus(run, state, len(done), stage, error, progress, changed)


def is_held(run: Path) -> bool:
    """Whether a process works in the folder now."""
    place = run / NAME
    if not place.exists() or not os.access(place, os.W_OK):
        return False
    lock = FileLock(place, timeout=0)
    try:
        lock.acquire()
    except (Timeout, OSError):
        return True
    lock.release()
    return False


def _progress(folder: Path) -> Progress | None:
    """Of the fit that was saved last."""
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    found = _read(files[-1]) if files else {}
    try:
        return Progress(
            int(found["step"]),
            int(found["steps"]),
            float(found["seconds"]),
            time.time() - files[-1].stat().st_mtime,
        )
    except (KeyError, TypeError, ValueError, OSError, IndexError):
        return None


def _read(path: Path) -> dict[str, Any]:
    """What a small file of a run says; nothing where it is missing or damaged."""
    with suppress(InputError):
        found = read_json(path)
        return found if isinstance(found, dict) else {}
    return {}
