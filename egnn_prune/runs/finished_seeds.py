"""Rows of seeds whose jobs ended: the same command starts no process for them again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from egnn_prune import __version__
from egnn_prune.configs.settings import Settings
from egnn_prune.data.inputs import graph_inputs
from egnn_prune.errors import InputError
from egnn_prune.runs.folder_lock import NAME
from egnn_prune.runs.result_store import Row
from egnn_prune.runs.run_folder import NOT_HASHED, UNFINISHED, WATCHED
from egnn_prune.runs.stage_marker import digest
from egnn_prune.system.files import is_half_written, read_json, write_json
from egnn_prune.system.git import git_commit

#: Their folder, in that of the study.
FINISHED = "finished"
#: Files of a seed are read for their fingerprint up to this many bytes in all, about two seconds.
WHOLE = 1 << 30
#: Folders in which files come and go without a change of results.
_PASSING = {UNFINISHED, *(name.strip("/") for name in WATCHED)}


class FinishedSeeds:
    """Rows of each seed, in ``finished/seedN.json`` of the study's folder.

    They are believed with the settings, input files and version of this package that they were
    found with, and as long as all files of the seed are what they were. What is not believed, or
    cannot be read, is as good as missing: the seed is run again, and finds what it kept itself.

    Args:
        folder: of the study.
        settings: of the study, a dataclass; some say where and how it runs, not what it finds.
        work: the name of what finds the rows.

    Raises:
        DataError: an input file of the study cannot be read.
    """

    def __init__(self, folder: Path, settings: Any, work: str) -> None:
        self.folder = folder
        content = {k: v for k, v in asdict(settings).items() if k not in NOT_HASHED}
        files = graph_inputs(settings.data) if isinstance(settings, Settings) else {}
        self.asked = [work, __version__, git_commit(), content, files]

    def of(self, seeds: Sequence[int]) -> dict[int, list[Row]]:
        """The rows of those seeds that are finished."""
        found = {seed: self._read(seed) for seed in seeds}
        return {seed: rows for seed, rows in found.items() if rows is not None}

    def keep(self, seed: int, rows: list[Row]) -> None:
        """Write down what a seed found, after all of its files.

        Rows that would be read as others are not kept, nor is anything on a full disk.
        """
        with suppress(OSError, TypeError, ValueError, RecursionError):  # InputError is a ValueError
            read = json.loads(json.dumps(rows))
            if read == rows or repr(read) == repr(rows):  # NaN differs from itself
                content = {"key": self._key(seed, read), "rows": read}
                write_json(self._place(seed), content)

    def _read(self, seed: int) -> list[Row] | None:
        try:
            found = read_json(self._place(seed))
            rows: list[Row] = found["rows"]
            return rows if found["key"] == self._key(seed, rows) else None
        except (InputError, OSError, KeyError, RecursionError):
            return None

    def _place(self, seed: int) -> Path:
        return self.folder / FINISHED / f"seed{seed}.json"

    def _key(self, seed: int, rows: list[Row]) -> str:
        """Of the rows and all that they depend on."""
        return digest([self.asked, seed, self._fingerprint(seed), rows])

    def _fingerprint(self, seed: int) -> list[tuple[str, str]]:
        """Names and contents of the files of a seed; of very much content, sizes and times."""
        files = sorted(self._files(seed))
        stats = [file.stat() for file in files]
        whole = sum(stat.st_size for stat in stats) <= WHOLE
        found = []
        for file, stat in zip(files, stats, strict=True):
            state = f"{stat.st_size} {stat.st_mtime_ns}"
            if whole:
                with file.open("rb") as content:
                    state = hashlib.file_digest(content, "sha256").hexdigest()
            found.append((file.relative_to(self.folder).as_posix(), state))
        return found

    def _files(self, seed: int) -> Iterator[Path]:
        """What is named for the seed: ``seed3/...``, ``ethanol-seed3.json``, ``seeds/3.json``.

        A seed that shares names with another one is run again once too often, at worst.
        """
        # neither the digits of a longer number or of a fraction, nor those of "3bpa"
        number = re.compile(rf"(?<![\d.]){seed}(?!\d|\.\d|[a-z])")
        for path in self.folder.rglob("*"):
            parts = path.relative_to(self.folder).parts
            named = next((part for part in parts if re.search(r"\d", part)), "")
            if parts[0] == FINISHED or not number.search(named) or _PASSING & {*parts}:
                continue
            if path.name != NAME and not is_half_written(path) and path.is_file():
                yield path
