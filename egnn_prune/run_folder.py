"""The folder of a run: what is finished, what can be continued, what must not be overwritten."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from omegaconf import OmegaConf

from egnn_prune.errors import ConfigError, InputError
from egnn_prune.files import atomic, read_json, write_json

#: Settings that say where and how the job runs, not what it computes.
NOT_HASHED = ("out", "reuse", "name", "title", "threads", "workers")


class Described(Protocol):
    """Settings of a job that has a folder."""

    name: str
    out: str | None
    data: Any


def digest(content: Any) -> str:
    """Twelve hexadecimal digits that name a piece of configuration."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class RunFolder:
    """Runs stages once: each leaves its files and, last, ``stages/<name>.json``.

    Args:
        settings: the whole configuration.

    Raises:
        ConfigError: the folder holds a run with another configuration.
        InputError: the folder cannot be written to.
    """

    def __init__(self, settings: Described) -> None:
        self.settings = settings
        everything = asdict(settings)  # type: ignore[call-overload]
        content = {k: v for k, v in everything.items() if k not in NOT_HASHED}
        if settings.data.path and Path(settings.data.path).is_file():
            data = Path(settings.data.path).read_bytes()
            content["data"]["sha256"] = hashlib.sha256(data).hexdigest()
        self.content, self.hash = content, digest(content)
        self.path = Path(settings.out).expanduser() if settings.out else self._default_path()
        config = self.path / "config.yaml"
        self.reuse = [Path(other) for other in getattr(settings, "reuse", [])]
        for other in self.reuse:
            if not other.is_dir():
                raise ConfigError(f"reuse names {other}, but there is no such folder")
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"out={self.path} is a file, not a folder; choose another")
        if self.path.exists() and any(self.path.iterdir()) and not config.exists():
            raise ConfigError(
                f"out={self.path} holds files that are not a run; choose a new or empty folder"
            )
        if config.exists():
            found = read_json(self.path / "stages" / "run.json").get("config_hash")
            begun = [p for p in (self.path / "stages").glob("*.json") if p.stem != "run"]
            begun += (self.path / "seeds").glob("*.json")
            if found != self.hash and begun:
                raise ConfigError(
                    f"{self.path} holds a run with other settings; choose another out=DIR, or "
                    "delete that folder"
                )
            if found == self.hash:
                return
        write_json(self.path / "stages" / "run.json", {"config_hash": self.hash})
        with atomic(config) as temporary:  # last: where it stands, the folder is complete
            temporary.write_text(OmegaConf.to_yaml(OmegaConf.structured(settings)))

    def _default_path(self) -> Path:
        """The latest unfinished run of these settings, or a new folder named by the time."""
        begun = Path("runs").glob(f"*-{self.settings.name}/stages/run.json")
        for config in sorted(begun, reverse=True):
            unfinished = not (config.parent / "report.json").exists()
            if unfinished and read_json(config).get("config_hash") == self.hash:
                return config.parents[1]
        date = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        return Path("runs") / f"{date}-{self.settings.name}"

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
        """
        everything = (*sections, "seed", "device", "precision")
        key = digest({s: self.content[s] for s in everything if s in self.content})
        marker = self.path / "stages" / f"{name}.json"
        if marker.exists() and all((self.path / file).exists() for file in files):
            return read_json(marker)
        for other in self.reuse:
            theirs = other / "stages" / f"{name}.json"
            if theirs.exists() and read_json(theirs)["key"] == key:
                self._copy(other, (*files, f"stages/{name}.json"))
                return read_json(marker)
        start = time.perf_counter()
        facts = work()
        facts = {"key": key, "seconds": time.perf_counter() - start, **facts}
        write_json(marker, facts)
        return facts

    def _copy(self, other: Path, files: tuple[str, ...]) -> None:
        for name in files:
            if not (other / name).is_file():
                raise InputError(f"{other} lacks {name}; leave it out of reuse")
            with atomic(self.path / name) as temporary:
                shutil.copyfile(other / name, temporary)
