"""A file that grows piece by piece, every piece whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from egnn_prune.errors import InputError


class GrowingFile:
    """Text that is appended; what was written outlives the process.

    A piece that does not fit on the disk is taken back, so that what is there stays readable. Used
    as a context, errors of the disk inside become one sentence.

    Args:
        path: the file; its folder is made where it is missing.
        size: bytes of it that are kept, such as those that a killed run stands for; what comes
            behind them (half a piece, perhaps) is cut off.

    Attributes:
        size: bytes that are there.

    Raises:
        InputError: the file cannot be written, or is shorter than ``size``.

    Example:
        >>> with GrowingFile(folder / "trajectory.extxyz") as file:
        ...     written = file.write("a frame")
        ...
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path, self.size = path, size
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise self._sentence(error) from None
        there = os.fstat(self._handle).st_size
        if there < size:
            os.close(self._handle)
            raise InputError(f"{path} was {size} bytes long, and is {there} now; move it away")
        if there > size:
            os.ftruncate(self._handle, size)
        os.lseek(self._handle, size, os.SEEK_SET)

    def write(self, text: str) -> int:
        """Append a piece.

        Raises:
            OSError: it does not fit; nothing of it is left.
        """
        left = memoryview(text.encode())
        total = len(left)
        try:
            while left:
                left = left[os.write(self._handle, left) :]
        except OSError as error:
            os.ftruncate(self._handle, self.size)
            os.lseek(self._handle, self.size, os.SEEK_SET)
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self.size += total
        return len(text)

    def sync(self) -> None:
        """Bring all of it to the disk, so that it outlives the machine, too."""
        os.fsync(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        os.close(self._handle)
        if isinstance(error, OSError) and not isinstance(error, InputError):
            raise self._sentence(error) from None

    def _sentence(self, error: OSError) -> InputError:
        return InputError(
            f"cannot write {error.filename or self.path}: {error.strerror or error}; free some "
            "space, or choose another folder"
        )
