"""The folder of a run: what is finished, what can be continued, what must not be overwritten."""

from __future__ import annotations

import os
import platform
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from omegaconf import OmegaConf

from egnn_prune.configs import declaration
from egnn_prune.data.inputs import graph_inputs
from egnn_prune.errors import ConfigError, InputError, lost_process_sentence
from egnn_prune.runs.default_folder import default_folder
from egnn_prune.runs.folder_lock import NAME, lock_folder, refuse_strange, what_is_there
from egnn_prune.runs.stage_marker import digest, read_marker, write_marker
from egnn_prune.system.distributed import decided, is_first
from egnn_prune.system.files import (
    atomic,
    is_half_written,
    read_json,
    remove_unfinished,
    write_json,
)

#: Settings that say where and how the job runs, not what it computes.
NOT_HASHED = ("out", "reuse", "name", "title", "threads", "workers", "trainer", "jobs")
#: The folder of what a stage has done so far, below it one for each stage.
UNFINISHED = "unfinished"
#: Beside the files of finished stages: which one is being worked on, and how the last one failed.
NOW, FAILED = "now.json", "failed.json"
#: Files that say which run it is and what it does, and hold no result.
OWN = tuple(f"stages/{name}" for name in ("run.json", NOW, FAILED))
#: Folders of what a fit can be watched by.
WATCHED = ("curves/", "tensorboard/", "wandb/", "jobs/")
#: Where runs without an ``out`` go.
DEFAULT = Path("runs")


class Described(Protocol):
    """Settings of a job that has a folder."""

    name: str
    out: str | None
    data: Any


def slug(label: str) -> str:
    """A label as part of a file's name."""
    return re.sub(r"[^\w.]+", "-", label).strip("-")


class RunFolder:
    """Runs stages once: each leaves its files and, last, ``stages/<name>.json``.

    While this object lives, no other job works in the folder (see :mod:`folder_lock`), unless the
    run in it is finished: then nothing is written any more, unless a file of it is missing. Of
    several processes of one job the first holds the folder, and says what is finished.

    Args:
        settings: the whole configuration.
        inputs: fingerprints of the files that the job reads, by what they are; by default those
            of ``settings.data``. They belong to the configuration.
        later: fingerprints of files that only late stages read, the section ``later``.

    Raises:
        ConfigError: the folder holds a run with another configuration or with other data, or
            another process works in it.
        InputError: the folder cannot be written to, or an input file cannot be read.
    """

    def __init__(
        self,
        settings: Described,
        inputs: dict[str, str] | None = None,
        later: dict[str, str] | None = None,
    ) -> None:
        self.settings = settings
        everything = declaration.content(settings)
        content = {k: v for k, v in everything.items() if k not in NOT_HASHED}
        content["data"]["files"] = graph_inputs(settings.data) if inputs is None else inputs
        if later:
            content["later"] = later
        self.content, self.hash = content, digest(content)
        self._working: list[tuple[str, Counter[str]]] = []
        self.reuse = [Path(other) for other in getattr(settings, "reuse", [])]
        for other in self.reuse:
            if not os.path.isdir(other):  # Path.is_dir raises where a name is too long
                raise ConfigError(f"reuse names {other}, but there is no such folder")
        self.path = decided(self._taken)

    def _taken(self) -> Path:
        """The folder, which is this run's from now on."""
        if self.settings.out:
            refuse_strange(Path(self.settings.out))
            self.path = Path(self.settings.out).expanduser()
            self._check_place()
            self._begin()
        else:
            held = lock_folder(DEFAULT, wait_s=60)  # one at a time looks for a folder and takes it
            self.path = default_folder(DEFAULT, self.settings.name, self.hash)
            self._begin()
            del held
        return self.path

    def _begin(self) -> None:
        """Take the folder, make sure that it is this run's, and write down whose it is."""
        run, config = self.path / "stages" / "run.json", self.path / "config.yaml"
        if self._is_finished() and self._found_hash() == self.hash:
            return
        self._lock = lock_folder(self.path)
        self._check_place()  # again: now nobody else changes it
        remove_unfinished(self.path)
        if config.exists():
            found = self._found_hash()
            if found != self.hash and any(self._results()):
                raise self._another_run()
            if found == self.hash:
                return
            self._forget()
        write_json(run, {"config_hash": self.hash})
        with atomic(config) as temporary:  # last: where it stands, the folder is complete
            text = OmegaConf.to_yaml(OmegaConf.structured(self.settings))
            temporary.write_text(text, encoding="utf-8")

    def _forget(self) -> None:
        """Delete what another run without results had begun."""
        shutil.rmtree(self.path / UNFINISHED, ignore_errors=True)
        for name in (NOW, FAILED):
            _delete(self.path / "stages" / name)

    def _hold(self) -> None:
        """Make sure, before anything is written, that the folder is locked and is this run's."""
        if not hasattr(self, "_lock"):  # it was finished, but lacks a file
            self._lock = lock_folder(self.path)
        if self._found_hash() != self.hash:  # this thread may have begun another run meanwhile
            raise self._another_run()

    def _another_run(self) -> ConfigError:
        return ConfigError(
            f"{self.path} holds a run with other settings or other data; choose another "
            "out=DIR, or delete that folder"
        )

    def _check_place(self) -> None:
        """Refuse what cannot be the folder of a run."""
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"out={self.path} is a file, not a folder; choose another")
        if self.path.is_symlink() and not self.path.exists():
            raise ConfigError(f"out={self.path} is {what_is_there(self.path)}; choose another")
        try:
            names = {p.name for p in self.path.iterdir()} if self.path.exists() else set()
        except OSError as error:
            raise InputError(
                f"cannot read out={self.path}: {error.strerror}; choose another"
            ) from None
        begun = "config.yaml" in names or names <= {NAME, "stages"}
        if not begun and (NAME not in names or hasattr(self, "_lock")):
            raise ConfigError(
                f"out={self.path} holds files that are not a run; choose a new or empty folder"
            )

    def _found_hash(self) -> Any:
        try:
            return read_json(self.path / "stages" / "run.json").get("config_hash")
        except InputError as wrong:
            raise InputError(f"{wrong}; choose another out=DIR, or delete that folder") from None

    def _results(self) -> Iterator[Path]:
        """What a run has left, but for what says which run it is and curves of a started fit."""
        for path in self.path.rglob("*"):
            place = path.relative_to(self.path).as_posix()
            begun = place.startswith((*WATCHED, f"{UNFINISHED}/")) or is_half_written(path)
            own = place in ("config.yaml", NAME, *OWN) or begun
            if path.is_file() and not own:
                yield path

    @property
    def finished(self) -> bool:
        """Whether the last stage is complete.

        Raises:
            InputError: what says so is damaged.
        """
        return decided(self._is_finished)

    def _is_finished(self) -> bool:
        marker = self.path / "stages" / "report.json"
        return marker.exists() and "key" in self._marker(marker)

    def _marker(self, path: Path) -> dict[str, Any]:
        """What a finished stage of this run wrote down."""
        try:
            return read_marker(path)
        except InputError as wrong:
            raise InputError(f"{wrong}; delete it, and that stage is run again") from None

    def outputs(self, name: str) -> dict[str, Any]:
        """What a finished stage wrote down.

        Raises:
            InputError: the stage is not finished, or what it wrote down is damaged.
        """
        return self._marker(self.path / "stages" / f"{name}.json")

    def stage(
        self,
        name: str,
        sections: tuple[str, ...],
        files: tuple[str, ...],
        work: Callable[[], dict[str, Any]],
        alone: bool = False,
    ) -> dict[str, Any]:
        """Do the work unless it is done, here or in a folder that may be reused.

        Args:
            name: of the stage.
            sections: the settings that its result depends on.
            files: what the work leaves in the folder.
            work: writes the files and returns facts for the stage's JSON.
            alone: of several processes the first one does it, and the others wait.

        Returns:
            The facts, with ``seconds`` added.

        Raises:
            ConfigError: the folder came to hold another run, or another process works in it.
        """
        everything = (*sections, "seed", "device", "precision")
        key = digest({s: self.content[s] for s in everything if s in self.content})
        found = decided(lambda: self._done(name, key, files))
        if found is not None:
            return found
        start = time.perf_counter()
        outputs = decided(lambda: self._worked(name, work)) if alone else self._worked(name, work)
        outputs = {"key": key, "seconds": time.perf_counter() - start, **outputs}
        return decided(lambda: self._ended(name, outputs))

    def _done(self, name: str, key: str, files: tuple[str, ...]) -> dict[str, Any] | None:
        """What a stage wrote down, here or in a folder that may be reused."""
        marker = self.path / "stages" / f"{name}.json"
        if marker.exists() and all((self.path / file).exists() for file in files):
            found = self._marker(marker)
            if found.get("key") != key:
                raise ConfigError(
                    f"stage {name} in {self.path} was run with other settings or other data; "
                    "choose another out=DIR, or delete that folder"
                )
            return found
        self._hold()
        for other in self.reuse:
            theirs = other / "stages" / f"{name}.json"
            if theirs.exists() and self._theirs(theirs).get("key") == key:
                self._copy(other, (*files, f"stages/{name}.json"))
                return self._marker(marker)
        return None

    def _ended(self, name: str, outputs: dict[str, Any]) -> dict[str, Any]:
        """Write down that a stage is done."""
        self._hold()
        write_marker(self.path / "stages" / f"{name}.json", outputs)
        self._say_now()
        shutil.rmtree(self.path / UNFINISHED / name, ignore_errors=True)
        with suppress(OSError):  # another stage is not done
            (self.path / UNFINISHED).rmdir()
        return outputs

    def _theirs(self, marker: Path) -> dict[str, Any]:
        try:
            return read_marker(marker)
        except InputError as wrong:
            raise InputError(f"{wrong}; leave that folder out of reuse") from None

    def _say_now(self) -> None:
        """Write down which stage is being worked on, for who looks from outside."""
        if not is_first():
            return
        now = self.path / "stages" / NOW
        if self._working:
            about = {"process": os.getpid(), "host": platform.node()}
            write_json(now, {"stage": self._working[-1][0], **about})
        else:
            _delete(now)

    def _worked(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What the work returns; the folder says what is being done, and how it failed."""
        failed = self.path / "stages" / FAILED
        if is_first():
            _delete(failed)
        self._working.append((name, Counter()))
        try:
            self._say_now()
            return work()
        except Exception as error:
            if is_first() and not failed.exists():  # a stage within this one may have said it
                with suppress(InputError):  # the disk may be full
                    lines = lost_process_sentence(error) or str(error)
                    first = (lines.splitlines() or [type(error).__name__])[0]
                    write_json(failed, {"stage": name, "error": first})
            raise
        finally:
            self._working.pop()

    def unfinished(self, label: str) -> Path | None:
        """A file for what the present stage has done of a part of its work; gone when it is done.

        A stage does the same parts in the same order whenever it is begun, so a part that comes
        several times gets a file each time. Outside of a stage there is none.

        Args:
            label: of the part.
        """
        if not self._working:
            return None
        stage, parts = self._working[-1]
        parts[label] += 1
        return self.path / UNFINISHED / stage / f"{slug(label)}-{parts[label]}.ckpt"

    def _copy(self, other: Path, files: tuple[str, ...]) -> None:
        for name in files:
            if not (other / name).is_file():
                raise InputError(f"{other} lacks {name}; leave it out of reuse")
            with atomic(self.path / name) as temporary:
                shutil.copyfile(other / name, temporary)


def _delete(path: Path) -> None:
    """Delete a file that may be missing.

    Raises:
        InputError: the system keeps it.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot delete {path}: {error.strerror}; choose another out") from None
