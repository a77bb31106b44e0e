"""The folder of a run: what is finished, what can be continued, what must not be overwritten."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from omegaconf import OmegaConf

from egnn_prune.data.inputs import graph_inputs
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.runs.folder_lock import NAME, lock_folder
from egnn_prune.system.files import atomic, read_json, remove_unfinished, write_json

#: Settings that say where and how the job runs, not what it computes.
NOT_HASHED = ("out", "reuse", "name", "title", "threads", "workers", "trainer")
#: The folder of what a stage has done so far, below it one for each stage.
UNFINISHED = "unfinished"
#: Beside the files of finished stages: which one is being worked on, and how the last one failed.
NOW, FAILED = "now.json", "failed.json"
#: Files that say which run it is and what it does, and hold no result.
OWN = tuple(f"stages/{name}" for name in ("run.json", NOW, FAILED))
#: Folders of what a fit can be watched by.
WATCHED = ("curves/", "tensorboard/", "wandb/")
#: Where runs without an ``out`` go.
DEFAULT = Path("runs")


class Described(Protocol):
    """Settings of a job that has a folder."""

    name: str
    out: str | None
    data: Any


def digest(content: Any) -> str:
    """Twelve hexadecimal digits that name a piece of configuration."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def slug(label: str) -> str:
    """A label as part of a file's name."""
    return re.sub(r"[^\w.]+", "-", label).strip("-")


class RunFolder:
    """Runs stages once: each leaves its files and, last, ``stages/<name>.json``.

    While this object lives, no other process works in the folder (see :mod:`folder_lock`), unless
    the run in it is finished: then nothing is written any more, unless a file of it is missing.

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
        everything = asdict(settings)  # type: ignore[call-overload]
        content = {k: v for k, v in everything.items() if k not in NOT_HASHED}
        content["data"]["files"] = graph_inputs(settings.data) if inputs is None else inputs
        if later:
            content["later"] = later
        self.content, self.hash = content, digest(content)
        self._working: list[tuple[str, Counter[str]]] = []
        self.reuse = [Path(other) for other in getattr(settings, "reuse", [])]
        for other in self.reuse:
            if not other.is_dir():
                raise ConfigError(f"reuse names {other}, but there is no such folder")
        if settings.out:
            self.path = Path(settings.out).expanduser()
            self._check_place()
            self._begin()
        else:
            held = lock_folder(DEFAULT, wait_s=60)  # one at a time looks for a folder and takes it
            self.path = self._default_path()
            self._begin()
            del held

    def _begin(self) -> None:
        """Take the folder, make sure that it is this run's, and write down whose it is."""
        run, config = self.path / "stages" / "run.json", self.path / "config.yaml"
        if self.finished and self._found_hash() == self.hash:
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
        write_json(run, {"config_hash": self.hash})
        with atomic(config) as temporary:  # last: where it stands, the folder is complete
            temporary.write_text(OmegaConf.to_yaml(OmegaConf.structured(self.settings)))

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
        names = {p.name for p in self.path.iterdir()} if self.path.exists() else set()
        begun = "config.yaml" in names or names <= {NAME, "stages"}
        if not begun and (NAME not in names or hasattr(self, "_lock")):
            raise ConfigError(
                f"out={self.path} holds files that are not a run; choose a new or empty folder"
            )

    def _found_hash(self) -> Any:
        found = read_json(self.path / "stages" / "run.json")
        return found.get("config_hash") if isinstance(found, dict) else None

    def _results(self) -> Iterator[Path]:
        """What a run has left, but for what says which run it is and curves of a started fit."""
        for path in self.path.rglob("*"):
            place = path.relative_to(self.path).as_posix()
            own = place in ("config.yaml", NAME, *OWN) or place.startswith(WATCHED)
            if path.is_file() and not own:
                yield path

    def _default_path(self) -> Path:
        """The latest unfinished run of these settings, or a new folder named by the time."""
        begun = DEFAULT.glob(f"*-{self.settings.name}/stages/run.json")
        for config in sorted(begun, reverse=True):
            unfinished = not (config.parent / "report.json").exists()
            if unfinished and read_json(config).get("config_hash") == self.hash:
                return config.parents[1]
        date = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        for number in count(1):
            mark = f"_{number}" if number > 1 else ""
            path = DEFAULT / f"{date}{mark}-{self.settings.name}"
            with suppress(FileExistsError):
                path.mkdir(parents=True)
                return path
        raise AssertionError("count never ends")

    @property
    def finished(self) -> bool:
        """Whether the last stage is complete."""
        return (self.path / "stages" / "report.json").exists()

    def stage(
        self,
        name: str,
        sections: tuple[str, ...],
        files: tuple[str, ...],
        work: Callable[[], dict[str, Any]],
    ) -> dict[str, Any]:
        """Do the work unless it is done, here or in a folder that may be reused.

        Args:
            name: of the stage.
            sections: the settings that its result depends on.
            files: what the work leaves in the folder.
            work: writes the files and returns facts for the stage's JSON.

        Returns:
            The facts, with ``seconds`` added.

        Raises:
            ConfigError: the folder came to hold another run, or another process works in it.
        """
        everything = (*sections, "seed", "device", "precision")
        key = digest({s: self.content[s] for s in everything if s in self.content})
        marker = self.path / "stages" / f"{name}.json"
        if marker.exists() and all((self.path / file).exists() for file in files):
            found = read_json(marker)
            if not isinstance(found, dict) or found.get("key") != key:
                raise ConfigError(
                    f"stage {name} in {self.path} was run with other settings or other data; "
                    "choose another out=DIR, or delete that folder"
                )
            return found
        self._hold()
        for other in self.reuse:
            theirs = other / "stages" / f"{name}.json"
            if theirs.exists() and read_json(theirs).get("key") == key:
                self._copy(other, (*files, f"stages/{name}.json"))
                return read_json(marker)
        start = time.perf_counter()
        outputs = self._worked(name, work)
        self._hold()
        outputs = {"key": key, "seconds": time.perf_counter() - start, **outputs}
        write_json(marker, outputs)
        (self.path / "stages" / NOW).unlink(missing_ok=True)
        shutil.rmtree(self.path / UNFINISHED / name, ignore_errors=True)
        with suppress(OSError):  # another stage is not done
            (self.path / UNFINISHED).rmdir()
        return outputs

    def _worked(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What the work returns; the folder says what is being done, and how it failed."""
        now, failed = (self.path / "stages" / place for place in (NOW, FAILED))
        failed.unlink(missing_ok=True)
        write_json(now, {"stage": name, "process": os.getpid(), "host": platform.node()})
        self._working.append((name, Counter()))
        try:
            return work()
        except Exception as error:
            with suppress(InputError):  # the disk may be full
                first = (str(error).splitlines() or [type(error).__name__])[0]
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
