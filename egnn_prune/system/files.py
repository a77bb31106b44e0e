"""Files that are written atomically, complete or not there at all; and which files to ignore."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

import numpy as np

from egnn_prune.errors import InputError
from egnn_prune.system.distributed import is_first

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

#: How the names of files end that are still being written.
UNFINISHED = ".unfinished"
#: A longer one is none of ours: read, it would take some ten times as much memory.
LARGEST_JSON = 100_000_000
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

    Its content is on the disk before it gets its name, and so is the name before this returns: a
    power cut leaves the old file or the new one. A killed process may leave the temporary file,
    see :func:`remove_unfinished`. Of several processes that work on one job the first one writes.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.
    """
    if not is_first():
        with tempfile.TemporaryDirectory() as elsewhere:
            yield Path(elsewhere) / path.name
        return
    try:
        if path.exists() and not path.is_file():  # a folder; a device, which would be gone
            raise InputError(f"{path} is no ordinary file; choose another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        start = f".{path.name[:100]}."  # the whole of a long name would be too long
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=start, suffix=UNFINISHED)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another folder") from None
    temporary = Path(name)
    claimed = _claim(handle)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes files that only their owner can read
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except InputError:
        raise
    except Exception as error:
        reason = _why_not_written(error)
        if reason is None:
            raise
        raise InputError(f"cannot write {path}: {reason}; free some space") from None
    finally:
        with suppress(OSError):  # the disk may have become one that can only be read
            temporary.unlink(missing_ok=True)
        if claimed is not None:
            os.close(claimed)


def _why_not_written(error: Exception) -> str | None:
    """Why the system did not write a file; nothing where the error is another one.

    safetensors and torch write files by themselves, and have errors of their own for a full disk.
    """
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if type(error).__name__ == "SafetensorError" and "I/O error: " in str(error):
        return str(error).partition("I/O error: ")[2].partition(" (os error")[0]
    if isinstance(error, RuntimeError) and "inline_container.cc" in str(error):
        return "the file could not be written whole"
    return None


def _claim(handle: int) -> int | None:
    """Show other processes that a temporary file is being written, for as long as it is open."""
    if fcntl is None:  # Windows keeps open files from being replaced
        os.close(handle)
        return None
    with suppress(OSError):  # some network folders know no locks
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def _sync_folder(folder: Path) -> None:
    """Put the names of a folder's files on the disk, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def is_half_written(path: Path) -> bool:
    """Whether a file has a name that :func:`atomic` gives while it writes."""
    return path.name.startswith(".") and path.name.endswith(UNFINISHED)


def unfinished_below(folder: Path) -> Iterator[Path]:
    """What killed processes left of :func:`atomic`: such files that nobody is writing now."""
    for left in folder.rglob(f".*{UNFINISHED}"):
        with suppress(OSError):
            if stat.S_ISREG(left.lstat().st_mode) and not is_locked(left):
                yield left


def remove_unfinished(folder: Path) -> None:
    """Delete what killed processes left of :func:`atomic`; what is being written stays."""
    for left in list(unfinished_below(folder)):
        with suppress(OSError):
            left.unlink()


def is_locked(path: Path) -> bool:
    """Whether a process has locked an ordinary file; also where that cannot be found out.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if fcntl is None:
        return _is_locked_on_windows(path)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise
    except OSError:
        return True
    try:  # shared: of those who look, none disturbs another
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _is_locked_on_windows(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.read(1)
            return False
    except FileNotFoundError:
        raise
    except OSError:
        return True


def write_json(path: Path, content: Any) -> None:
    """Write JSON, readable by a person, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays as one ``.npz``, atomically."""
    with atomic(path) as temporary, temporary.open("wb") as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, such as :func:`write_json` writes.

    Raises:
        InputError: the file is missing, damaged, very large, or holds something else.
    """
    return parsed_json(read_text(path), path)


def read_text(path: Path) -> str:
    """A text file of a sensible size.

    Raises:
        InputError: the file is missing, very large, or no text.
    """
    try:
        state = path.stat()  # before it is opened: whoever opens a pipe waits
        if not stat.S_ISREG(state.st_mode):
            raise InputError(f"{path} is missing or damaged: it is no ordinary file")
        if state.st_size > LARGEST_JSON:
            raise InputError(
                f"{path} is missing or damaged: it has {state.st_size:,} bytes, and files of its "
                f"kind have at most {LARGEST_JSON:,}"
            )
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise damaged(path, error) from None


def parsed_json(text: str, path: Path) -> dict[str, Any]:
    """The object that the text of a file says.

    Raises:
        InputError: it is no JSON, nested too deeply, or no object.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise damaged(path, error) from None
    if not isinstance(found, dict):
        kind = "nothing" if found is None else f"a {type(found).__name__}"
        raise InputError(f"{path} is missing or damaged: it holds {kind} instead of an object")
    return found


def damaged(path: Path, error: Exception) -> InputError:
    """What to say of a file that could not be read."""
    if isinstance(error, OSError) and error.strerror:
        why = error.strerror
    elif isinstance(error, UnicodeDecodeError):
        why = "it is no text"
    elif isinstance(error, RecursionError):
        why = "it is nested too deeply"
    else:
        why = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
    return InputError(f"{path} is missing or damaged: {why}")
