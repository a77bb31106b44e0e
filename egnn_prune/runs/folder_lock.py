"""One process at a time works in a folder: an advisory lock that ends with its holder."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from egnn_prune.errors import ConfigError, InputError

#: Stays in the folder when the lock is gone: two processes must never lock two files of one name.
NAME = "run.lock"
#: How long a lock is waited for: others may look at it, or take it to clean up.
MOMENT_S = 0.5


class FolderLock:
    """Keeps every other process and thread out of a folder for as long as this object lives.

    The operating system holds the lock (``flock``; on Windows its like, through filelock), so a
    process that is killed leaves none behind. Make one with :func:`lock_folder`.
    """

    def __init__(self, lock: FileLock) -> None:
        self.thread = threading.current_thread()
        weakref.finalize(self, lock.release, force=True)


#: What this process holds: jobs run others within, which may ask for the same folder again.
_held: weakref.WeakValueDictionary[Path, FolderLock] = weakref.WeakValueDictionary()


def lock_folder(folder: Path, wait_s: float = MOMENT_S) -> FolderLock:
    """Hold a folder, which is made where it is missing; the thread that holds it may ask again.

    Args:
        folder: nobody else works in it as long as somebody keeps what is returned.
        wait_s: how long to wait for another process.

    Raises:
        ConfigError: another process or thread works there; names the folder and the process.
        InputError: the folder cannot be written to.
    """
    place = folder / NAME
    refuse_strange(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        key = folder.resolve()
        if (mine := _own(key)) is not None:
            return mine
        if place.is_symlink() or (place.exists() and not place.is_file()):
            raise InputError(f"{place} is no ordinary file; delete it, or choose another out")
        holder = _holder(place)  # before the attempt: old versions of filelock empty the file
        lock = FileLock(place, timeout=wait_s, thread_local=False)
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"{holder} is working in {folder}; wait until it has ended, or choose another out=DIR"
        ) from None
    except FileExistsError:
        raise ConfigError(f"out={folder} is {what_is_there(folder)}; choose another") from None
    except OSError as error:
        raise InputError(f"cannot write {place}: {error.strerror}; choose another out") from None
    if holder != _this_process():
        with suppress(OSError):  # Windows keeps even its holder from a locked file
            place.write_text(f"{os.getpid()}\n")
    _held[key] = found = FolderLock(lock)
    return found


def refuse_strange(folder: Path) -> None:
    """Refuse what cannot be the name of a folder.

    Raises:
        ConfigError: the name holds a zero byte, bytes that are no text, or an unknown user.
        InputError: the name is too long, or its folder cannot be looked into.
    """
    name = str(folder)
    if "\0" in name or any("\ud800" <= c <= "\udfff" for c in name):
        raise ConfigError(f"out={name!r} is no valid text (UTF-8); choose another")
    try:
        folder.expanduser().exists()
    except RuntimeError:
        raise ConfigError(f"out={name} is below the home of nobody; choose another") from None
    except OSError as error:
        shown = name if len(name) < 200 else f"{name[:100]}..."
        raise InputError(f"cannot use out={shown}: {error.strerror}; choose another") from None


def what_is_there(folder: Path) -> str:
    """What stands in the place of a folder, in words."""
    return "a link to nowhere" if folder.is_symlink() else "a file, not a folder"


def _own(key: Path) -> FolderLock | None:
    """What this thread holds; who waits for another one's must not keep it alive."""
    lock = _held.get(key)
    if lock is not None and not lock.thread.is_alive():
        lock.thread = threading.current_thread()
    return lock if lock is not None and lock.thread is threading.current_thread() else None


def _holder(place: Path) -> str:
    with suppress(OSError, ValueError):
        with place.open(encoding="ascii") as file:
            number = int(file.read(20))
        return _this_process() if number == os.getpid() else f"process {number}"
    return "another process"


def _this_process() -> str:
    return f"process {os.getpid()} (this one)"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a job's output folder while the block runs; a refused job leaves nothing behind."""
    refuse_strange(folder)
    there = folder.exists()
    lock = lock_folder(folder)
    try:
        yield
    finally:
        unused = not there and {p.name for p in folder.iterdir()} <= {NAME}
        if unused:
            (folder / NAME).unlink()  # while it is held: whoever waits looks again
        del lock
        if unused:
            with suppress(OSError):  # somebody else began right now
                folder.rmdir()
