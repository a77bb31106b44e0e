"""Files are parsed once: their arrays are kept on disk and mapped into memory."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from egnn_prune.data.array_files import ColumnWriter, joined
from egnn_prune.errors import DataError

VARIABLE = "EGNN_PRUNE_CACHE"
INDEX, SUMS = "contents.json", "sha256"
BLOCK = 1 << 22
ABANDONED_AFTER_S = 24 * 3600.0

#: Arrays by name.
Arrays = dict[str, np.ndarray]
#: Reads a file into arrays: all at once, or in pieces that follow each other along the first axis.
Parser = Callable[[Path], Arrays | Iterable[Arrays]]

log = logging.getLogger(__name__)
#: Entries that this process has compared with their checksums, and their files' states then.
_intact: dict[Path, list[tuple[int, int]]] = {}


class CannotKeep(Exception):
    """The cache cannot be written to; the data are read into memory instead."""


def cache_folder() -> Path:
    """``EGNN_PRUNE_CACHE``, else ``egnn_prune`` in ``XDG_CACHE_HOME``, else in ``~/.cache``.

    What lies there can be deleted at any time; it is made again when it is needed.
    """
    if folder := os.environ.get(VARIABLE):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "egnn_prune"


def cached(
    path: str | Path,
    parse: Parser,
    version: int = 1,
    *,
    variant: str = "",
    others: Sequence[Path] = (),
    check: Callable[[Arrays], None] | None = None,
) -> Arrays:
    """The arrays in a file: parsed the first time, later mapped read-only from the cache.

    The key is the SHA-256 of the content of the file and of ``others`` with the parser's name,
    ``version`` and ``variant``, so a file that changes is parsed again and a copy is not. The
    arrays appear in the cache at once and complete: they are written into a temporary folder,
    checked, and renamed. What lies in the cache has a checksum of its own: where it is damaged, the
    file is parsed again. A parser that yields pieces never holds more than one of them, so that
    files larger than memory work. Where the cache cannot be written to (a full or read-only disk),
    the arrays are in memory.

    Args:
        path: the file.
        parse: ``path -> {name: array}``, or a generator of such dicts, whose arrays are appended
            along the first axis (each name with one dtype and one shape but for that axis).
        version: of the parser; raise it when its result changes.
        variant: whatever else the result depends on, such as the names of the wanted columns.
        others: further files that the parser reads.
        check: called with the arrays before they are kept; raises ``DataError`` where they cannot
            be used.

    Returns:
        Arrays by name, read-only where they are mapped; copy what you want to change.

    Raises:
        DataError: there is no such file, it cannot be read, or changes while it is read.
        Exception: whatever ``parse`` and ``check`` raise; nothing is kept then.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}; check data.path")
    before = _states(path, *others)
    rest = "|".join([variant, *map(sha256, others)])
    key = sha256(path) + (f"-{hashlib.sha256(rest.encode()).hexdigest()[:12]}" if rest else "")
    kind = f"{parse.__module__.rpartition('.')[2]}.{parse.__name__}-{version}"
    folder = cache_folder() / kind / key
    if (found := _opened(folder)) is not None:
        return found
    try:
        with _appearing(folder) as temporary:
            _write(temporary, _pieces(parse(path)))
            if check is not None:
                written = _opened(temporary)
                assert written is not None
                check(written)
            if _states(path, *others) != before:
                raise DataError(f"{path} changed while it was read; load it when it is complete")
        if (found := _opened(folder)) is not None:
            return found
    except CannotKeep as error:
        log.info("%s; %s is read into memory", error, path)
    arrays = joined(_pieces(parse(path)))
    if check is not None:
        check(arrays)
    return arrays


def sha256(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal digits.

    Raises:
        DataError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        bar = tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc=path.name, delay=2)
        with path.open("rb") as file, bar:
            while block := file.read(BLOCK):
                digest.update(block)
                bar.update(len(block))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    return digest.hexdigest()


def _states(*paths: Path) -> list[tuple[int, int]]:
    stats = [path.stat() for path in paths]
    return [(stat.st_size, stat.st_mtime_ns) for stat in stats]


def _pieces(parsed: Arrays | Iterable[Arrays]) -> Iterator[Arrays]:
    if isinstance(parsed, dict):
        yield parsed
    else:
        yield from parsed


def _write(folder: Path, pieces: Iterator[Arrays]) -> None:
    """One file an array, numbered, since a name from a user's file need not be one of a file."""
    writers: dict[str, ColumnWriter] = {}
    try:
        for piece in pieces:
            for name, values in piece.items():
                values = np.asanyarray(values)
                with _writing(folder):
                    if name not in writers:
                        writers[name] = ColumnWriter(folder / f"{len(writers)}.npy", values)
                    writers[name].append(values)
        with _writing(folder):
            for writer in writers.values():
                writer.close()
            sums = [sha256(folder / f"{k}.npy") for k in range(len(writers))]
            (folder / INDEX).write_text(json.dumps({"names": list(writers), SUMS: sums}))
    finally:
        for writer in writers.values():
            writer.abandon()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotKeep(f"cannot write to {folder.parent}: {error.strerror}") from None


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``folder`` when the block succeeds, and vanishes otherwise.

    Raises:
        CannotKeep: nothing can be written there.
    """
    with _writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder.parent)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
    try:
        yield temporary
        with _writing(folder):
            try:
                os.rename(temporary, folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster, with the same arrays
                    raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """What a killed process left behind."""
    for folder in parent.glob(".making-*"):
        try:
            if time.time() - folder.stat().st_mtime > ABANDONED_AFTER_S:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # another process removed it
            continue


def _opened(folder: Path) -> Arrays | None:
    """The arrays in a folder of the cache; ``None`` where it is not there or damaged."""
    if not folder.is_dir():  # one that appears from now on is complete, and is not removed below
        return None
    try:
        index = json.loads((folder / INDEX).read_text())
        files = [folder / f"{k}.npy" for k in range(len(index["names"]))]
        _compare(folder, files, index[SUMS])
        return {str(name): _mapped(k) for name, k in zip(index["names"], files, strict=True)}
    except Exception as error:  # JSON of another kind, arrays of another kind, a disk that fails
        log.info("the cached arrays in %s are damaged (%s) and made again", folder, error)
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _compare(folder: Path, files: Sequence[Path], sums: Sequence[str]) -> None:
    """Compare files with their checksums, once in a process while nobody writes to them.

    Raises:
        ValueError: one is another.
    """
    if _intact.get(folder) == (states := _states(*files)):
        return
    for file, stated in zip(files, sums, strict=True):
        if sha256(file) != stated:
            raise ValueError(f"{file.name} has another checksum")
    _intact[folder] = states


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:  # what holds nothing cannot be mapped
        array = np.load(path, allow_pickle=False)
        if array.size:
            raise
        return array
