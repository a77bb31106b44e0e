"""Files that are written atomically, complete or not there at all; and which files to ignore."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, TextIO

import numpy as np

from egnn_prune.errors import InputError

#: How the names of files end that are still being written.
UNFINISHED = ".unfinished"
#: What Windows, macOS and storage servers leave in folders, besides names that begin with a dot.
CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"})


def is_clutter(relative: PurePath) -> bool:
    """Whether a path is, or lies in, something that nobody meant as data.

    These are hidden files and folders (``.ipynb_checkpoints``, ``.Trash``, the ``._*`` copies that
    macOS makes) and those of :data:`CLUTTER`, in any case.

    Args:
        relative: below the folder that the user named, whose own path may have any name.
    """
    return any(part.startswith(".") or part.lower() in CLUTTER for part in relative.parts)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path that becomes ``path`` when the block succeeds, and vanishes otherwise.

    Its content is on the disk before it gets its name, so that a power cut cannot leave an empty
    file behind. A killed process may leave the temporary file, see :func:`remove_unfinished`.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.
    """
    if path.exists() and not path.is_file():  # a folder; a device, which would be gone afterwards
        raise InputError(f"{path} is no ordinary file; choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED)
        os.close(handle)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another folder") from None
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes files that only their owner can read
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; free some space"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def growing(path: Path) -> Iterator[TextIO]:
    """A text file that is written bit by bit in its place; what was flushed outlives the process.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; free some space, or choose another "
            "folder"
        ) from None


def remove_unfinished(folder: Path) -> None:
    """Delete what killed processes left of :func:`atomic`; nobody else may be writing there."""
    for left in folder.rglob(f".*{UNFINISHED}"):
        left.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, readable by a person, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays as one ``.npz``, atomically."""
    with atomic(path) as temporary, temporary.open("wb") as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        InputError: the file cannot be read or is damaged.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is missing or damaged: {error}") from None
