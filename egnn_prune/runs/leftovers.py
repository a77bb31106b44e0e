"""What killed processes left in folders of runs, and nobody will read again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from egnn_prune.errors import InputError
from egnn_prune.runs.folder_lock import NAME, lock_folder
from egnn_prune.runs.run_folder import NOW, OWN, UNFINISHED
from egnn_prune.runs.status import RunStatus, is_held, runs_below, status_of
from egnn_prune.system.files import is_half_written, unfinished_below


@dataclass(frozen=True)
class Leftover:
    """A file or a folder that can go.

    Attributes:
        path: of it.
        why: what it is.
        bytes: how much it takes.
        run: the folder of the run that it belongs to.
    """

    path: Path
    why: str
    bytes: int
    run: Path

    def remove(self) -> None:
        """Delete it, after another look, while nobody else works there.

        Raises:
            InputError: somebody works there now, it is no leftover any more, or the system keeps
                it.
        """
        held = lock_folder(self.run)
        if self.path not in [left.path for left in _of_run(self.run)]:
            raise InputError(f"{self.path} has changed meanwhile; look again")
        try:
            if self.path == self.run:
                _remove_held(self.run)
            elif self.path.is_dir():
                shutil.rmtree(self.path)
            else:
                self.path.unlink()
        except OSError as error:
            raise InputError(f"cannot delete {self.path}: {error.strerror}") from None
        finally:
            del held
        if self.path == self.run:
            with suppress(OSError):  # somebody else began right now
                self.run.rmdir()


def _remove_held(run: Path) -> None:
    """Delete what is in a folder that this process holds, its lock last."""
    for child in run.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        elif child.name != NAME:
            child.unlink()
    (run / NAME).unlink()  # while it is held: whoever waits for it looks again


def leftovers(folder: Path) -> Iterator[Leftover]:
    """What can go from all runs below a folder in which nobody works now.

    These are half-written files, saved states of fits whose run is finished, and runs that were
    stopped before they had anything to go on from. Results stay.
    """
    for run in runs_below(folder):
        if not is_held(run):
            yield from _of_run(run)


def _of_run(run: Path) -> Iterator[Leftover]:
    status = status_of(run, held=False)
    if status.state == "stopped" and _is_empty(run, status):
        yield _leftover(run, run, "a run that was stopped before it had anything")
        return
    for path in unfinished_below(run):
        yield _leftover(run, path, "half-written")
    saved = run / UNFINISHED
    repaired = os.path.lexists(run / "stages" / NOW)  # somebody began to make a lost file again
    if status.state == "finished" and not repaired and saved.is_dir() and not saved.is_symlink():
        yield _leftover(run, saved, "the state of fits that are finished")


def _is_empty(run: Path, status: RunStatus) -> bool:
    """Whether a run holds nothing but what says which run it is."""
    own = {"config.yaml", NAME, *OWN}
    for path in run.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            continue
        if path.is_symlink() or not path.is_file():  # nothing that we make
            return False
        if path.relative_to(run).as_posix() not in own and not is_half_written(path):
            return False
    return not status.done


def _leftover(run: Path, path: Path, why: str) -> Leftover:
    size = 0
    for file in path.rglob("*") if path.is_dir() else [path]:
        with suppress(OSError):
            size += 0 if file.is_dir() else file.lstat().st_size
    return Leftover(path, why, size, run)
