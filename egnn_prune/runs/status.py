"""What runs are doing: finished, working, stopped or failed, and how far they are."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egnn_prune.errors import InputError
from egnn_prune.runs.folder_lock import NAME
from egnn_prune.runs.run_folder import FAILED, NOW, UNFINISHED
from egnn_prune.runs.stage_marker import read_marker
from egnn_prune.system.files import is_locked, read_json

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
    if os.path.isfile(folder / "stages" / "run.json"):  # Path's own raises where it may not look
        yield folder
    elif depth:
        for child in _folders_in(folder):
            yield from runs_below(child, depth - 1)


def studies_below(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Folders of studies, sweeps and comparisons: held, with their seeds or with their table."""
    if os.path.isfile(folder / "stages" / "run.json"):
        return
    if os.path.isfile(folder / NAME) and (is_held(folder) or _tables(folder) or _seeds(folder)):
        yield folder
    if depth:
        for child in _folders_in(folder):
            yield from studies_below(child, depth - 1)


def _folders_in(folder: Path) -> list[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        names = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
        return [folder / name for name in sorted(names) if not name.startswith(".")]
    return []


def _tables(folder: Path) -> list[Path]:
    """What a finished study leaves: a table and the same in words."""
    return [p for p in sorted(folder.glob("*.csv")) if os.path.isfile(p.with_suffix(".txt"))]


def _seeds(folder: Path) -> list[Path]:
    """What the seeds of a study have: folders, and files of rows."""
    return [p for p in folder.glob("*seed*") if re.match(r"(.*-)?seed_?\d", p.name)]


def study_of(folder: Path) -> RunStatus:
    """What a study is doing; its runs are listed by themselves."""
    tables = _tables(folder)
    changed = max((_mtime(p) for p in (*tables, folder / NAME)), default=0.0)
    state = "working" if is_held(folder) else "finished" if tables else "stopped"
    return RunStatus(folder, state, 0, " ".join(t.stem for t in tables) or "study", changed=changed)


def status_of(run: Path, held: bool | None = None) -> RunStatus:
    """What a run is doing. Nothing that is damaged there stops the look at it.

    Args:
        run: its folder.
        held: whether a process works in it; found out, unless given.
    """
    held = is_held(run) if held is None else held
    stages = run / "stages"
    markers = [p for p in sorted(stages.glob("*.json")) if p.name not in (NOW, FAILED)]
    known, wrong = 0, ""
    for path in markers:
        try:
            known += "key" in read_marker(path)
        except InputError as error:
            wrong = wrong or str(error).removeprefix(f"{run}/")
    now, failed = _read(stages / NOW), _read(stages / FAILED)
    stage = str(now.get("stage") or failed.get("stage") or "")
    if not re.fullmatch(r"\w[\w.-]*", stage):  # part of a path, and a file may say anything
        stage = ""
    saved = sorted((run / UNFINISHED).rglob("*.*"), key=_mtime)
    own = (*markers, stages / NOW, stages / FAILED, *saved[-1:])
    changed = max((_mtime(path) for path in own), default=0.0)
    progress = _progress(run / UNFINISHED / stage) if stage else None
    finished = os.path.isfile(stages / "report.json")
    if held and (now or not finished):
        return RunStatus(run, "working", known, stage, progress=progress, changed=changed)
    metrics: dict[str, Any] = {}
    if finished and not wrong and os.path.lexists(run / "metrics.json"):
        try:
            metrics = read_json(run / "metrics.json")
        except InputError as error:
            wrong = str(error).removeprefix(f"{run}/")
    if wrong:
        return RunStatus(run, "damaged", known, stage, wrong, changed=changed)
    if finished:
        return RunStatus(run, "finished", known, changed=changed, metrics=metrics)
    if failed:
        said = (str(failed.get("error", "")).splitlines() or [""])[0]
        return RunStatus(run, "failed", known, stage, said, progress, changed)
    return RunStatus(run, "stopped", known, stage, "", progress, changed)


def is_held(run: Path) -> bool:
    """Whether a process works in the folder now; also where that cannot be found out."""
    try:
        return is_locked(run / NAME)
    except FileNotFoundError:
        return False


def _progress(folder: Path) -> Progress | None:
    """Of the fit that was saved last."""
    files = sorted(folder.glob("*.json"), key=_mtime)
    found = _read(files[-1]) if files else {}
    try:
        step, steps, seconds = int(found["step"]), int(found["steps"]), float(found["seconds"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if not (0 <= step <= steps and 0 <= seconds < math.inf):
        return None
    # a clock that was set back makes files of the future
    return Progress(step, steps, seconds, max(0.0, time.time() - _mtime(files[-1])))


def _mtime(path: Path) -> float:
    """When a file was written, in seconds since 1970; 0 where it is gone by now."""
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _read(path: Path) -> dict[str, Any]:
    """What a small file of a run says; nothing where it is missing or damaged."""
    with suppress(InputError):
        return read_json(path)
    return {}
