"""``.npy`` files that are written and read in pieces."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

PIECE = 1 << 24  # bytes
#: Members of archives that grow beyond this size and by more than this factor are refused:
#: coordinates, energies and text shrink to a tenth at best.
BOMB_BYTES, BOMB_RATIO = 1 << 30, 200


class ColumnWriter:
    """A ``.npy`` file that grows along the first axis of its array.

    Args:
        path: the file.
        first: the first piece, for its dtype and shape (it is not written yet).

    Raises:
        TypeError: the array holds Python objects, which only pickling could store.
    """

    def __init__(self, path: Path, first: np.ndarray) -> None:
        if first.dtype.hasobject:
            raise TypeError(f"{path.name} would hold Python objects")
        self.dtype, self.tail, self.scalar = first.dtype, first.shape[1:], first.ndim == 0
        self.rows = 0
        self.file = path.open("wb")
        self._write_header()
        self.start = self.file.tell()

    def append(self, piece: np.ndarray) -> None:
        """Write another piece.

        Raises:
            TypeError: its dtype or shape does not continue the array.
        """
        if piece.dtype != self.dtype or piece.shape[1:] != self.tail:
            raise TypeError(
                f"a piece of {piece.dtype} {piece.shape} does not continue one of {self.dtype} "
                f"(..., {self.tail})"
            )
        if self.scalar and (piece.ndim or self.rows):
            raise TypeError("a number cannot be continued")
        self.rows += 1 if self.scalar else len(piece)
        if piece.nbytes:  # dates and records have no buffer of their own
            self.file.write(np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data)

    def close(self) -> None:
        """Write the final number of rows and close the file."""
        self.file.seek(0)
        self._write_header()
        assert self.file.tell() == self.start, "numpy pads headers so that arrays can grow"
        self.file.close()

    def abandon(self) -> None:
        """Close the file as it is."""
        try:
            self.file.close()
        except OSError:  # a full disk: what is buffered is lost, and so it should be
            pass

    def _write_header(self) -> None:
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": () if self.scalar else (self.rows, *self.tail),
        }
        np.lib.format.write_array_header_2_0(self.file, header)


def joined(pieces: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What a :class:`ColumnWriter` for each name would hold, in memory."""
    parts: dict[str, list[np.ndarray]] = {}
    for piece in pieces:
        for name, values in piece.items():
            parts.setdefault(name, []).append(np.asanyarray(values))
    return {k: v[0] if len(v) == 1 else np.concatenate(v) for k, v in parts.items()}


def npz_pieces(path: Path, names: Collection[str] | None = None) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of an ``.npz``, one after another, in pieces of about 16 MB; never unpickles.

    What an array says of its size is compared with its member of the archive before anything is
    allocated for it.

    Args:
        path: the file.
        names: of the wanted arrays; all, unless given.

    Raises:
        ValueError: a member is no ``.npy`` file, is there twice, ends early, holds pickled
            objects, or says that it is larger than it is; or more is packed into it than numbers
            can be.
        Exception: what ``zipfile`` and ``zlib`` raise for damaged archives.
    """
    with zipfile.ZipFile(path) as archive:
        seen = set()
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name in seen:
                raise ValueError(f"it has two arrays called {name}")
            seen.add(name)
            if names is not None and name not in names:
                continue
            packed = max(1, member.compress_size)
            if member.file_size > BOMB_BYTES and member.file_size > BOMB_RATIO * packed:
                raise ValueError(
                    f"{name} would grow from {packed:,} to {member.file_size:,} bytes; store it "
                    "without compression if that is meant"
                )
            with archive.open(member) as stream:
                try:
                    for piece in _npy_pieces(stream, member.file_size):
                        yield {name: piece}
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
                if stream.read(1):  # reading on to the end also compares the checksum
                    raise ValueError(f"{name} is longer than it says")


def npz_names(path: Path) -> list[str]:
    """The names of the arrays in an ``.npz``.

    Raises:
        Exception: what ``zipfile`` raises for damaged archives.
    """
    with zipfile.ZipFile(path) as archive:
        return [member.removesuffix(".npy") for member in archive.namelist()]


def npz_arrays(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """Some arrays of an ``.npz``, as :func:`npz_pieces` reads them, in memory."""
    return joined(npz_pieces(path, names))


def _npy_pieces(stream: IO[bytes], size: int) -> Iterator[np.ndarray]:
    """The pieces of an ``.npy`` file of so many bytes."""
    shape, fortran, dtype = _npy_header(stream)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects")
    if any(type(n) is not int or n < 0 for n in shape):  # True counts as a whole number, too
        raise ValueError(f"it says that its shape is {shape}")
    width = int(np.prod(shape[1:], dtype=object))
    if shape and shape[0] and not width:
        raise ValueError(f"its shape {shape} has rows with nothing in them")
    wanted = width * (shape[0] if shape else 1) * dtype.itemsize
    if wanted > (held := size - stream.tell()):
        raise ValueError(f"its shape {shape} needs {wanted:,} bytes, but it has {held:,}")
    if fortran or not shape:
        count = int(np.prod(shape, dtype=object))
        yield _read(stream, dtype, count).reshape(shape, order="F" if fortran else "C")
        return
    rows = max(1, PIECE // max(1, width * dtype.itemsize))
    for start in range(0, max(shape[0], 1), rows):  # what has no rows still is one piece
        n = min(rows, shape[0] - start)
        yield _read(stream, dtype, n * width).reshape(n, *shape[1:])


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    readers: dict[tuple[int, int], Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of the .npy format is not supported")
    return readers[version](stream)


def _read(stream: IO[bytes], dtype: np.dtype[Any], count: int) -> np.ndarray:
    wanted = count * dtype.itemsize
    content = stream.read(wanted) if wanted else b""
    while len(content) < wanted:
        more = stream.read(wanted - len(content))
        if not more:
            raise ValueError("an array ends early")
        content += more
    return np.frombuffer(content, dtype=dtype, count=count)
