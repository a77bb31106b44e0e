"""Arrays that a run kept in an ``.npz``, read back as if a stranger had written them."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from egnn_prune.errors import DataError, InputError
from egnn_prune.system.memory_limit import refuse_beyond_memory

#: What to do about a file that a stage of a run keeps.
MADE_AGAIN = "delete it, and the same command makes it again"


def read_arrays(
    path: Path, names: Collection[str] | None = None, advice: str = "get a fresh copy"
) -> dict[str, NDArray[np.generic]]:
    """Arrays of an ``.npz``, never unpickled; what nobody asks for is not read.

    Args:
        path: the file.
        names: of the wanted arrays, all of which must be there; all in the file, unless given.
        advice: what to do where it cannot be read.

    Raises:
        DataError: it is missing or damaged, or lacks an array; one sentence with the file.
        InputError: it would not fit into memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {m.filename.removesuffix(".npy"): m.file_size for m in archive.infolist()}
        wanted = list(sizes) if names is None else list(names)
        refuse_beyond_memory(sum(sizes.get(name, 0) for name in wanted), f"unpacked, {path}")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in wanted}
    except InputError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise some ten different ones
        what = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path} is not a readable .npz of plain numbers ({what}); {advice}"
        ) from None
