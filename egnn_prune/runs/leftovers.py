"""What killed processes left in folders of runs, and nobody will read again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from egnn_prune.runs.run_folder import OWN, UNFINISHED
from egnn_prune.runs.status import RunStatus, runs_below, status_of
from egnn_prune.system.files import UNFINISHED as BEING_WRITTEN


@dataclass(frozen=True)
class Leftover:
    """A file or a folder that can go.

    Attributes:
        path: of it.
        why: what it is.
        bytes: how much it takes.
    """

    path: Path
    why: str
    bytes: int

    def remove(self) -> None:
        """Delete it."""
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)


def leftovers(folder: Path) -> Iterator[Leftover]:
    """What can go from all runs below a folder in which nobody works now.

    These are half-written files, saved states of fits whose run is finished, and runs that were
    stopped before they had anything to go on from. Results stay.
    """
    for run in runs_below(folder):
        status = status_of(run)
        if status.state == "working":
            continue
        if _is_empty(run, status):
            yield _leftover(run, "a run that was stopped before it had anything")
            continue
        for path in run.rglob(f".*{BEING_WRITTEN}"):
            yield _leftover(path, "half-written")
        if status.state == "finished" and (run / UNFINISHED).is_dir():
            yield _leftover(run / UNFINISHED, "the state of fits that are finished")


def _is_empty(run: Path, status: RunStatus) -> bool:
    """Whether a run holds nothing but what says which run it is."""
    own = {"config.yaml", "run.lock", *OWN}
    files = (p for p in run.rglob("*") if p.is_file() and not p.name.endswith(BEING_WRITTEN))
    return not status.done and all(p.relative_to(run).as_posix() in own for p in files)


def _leftover(path: Path, why: str) -> Leftover:
    files = path.rglob("*") if path.is_dir() else iter([path])
    return Leftover(path, why, sum(p.stat().st_size for p in files if p.is_file()))
