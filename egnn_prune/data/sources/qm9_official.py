"""QM9's official files: where they come from, and their numbers in float64."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
from ase.data import atomic_numbers
from tqdm import tqdm

from egnn_prune.data.cache import Arrays, cache_folder, cached
from egnn_prune.data.download import download
from egnn_prune.data.local import local_data
from egnn_prune.errors import DataError

ARCHIVE, UNCHARACTERIZED = "qm9.zip", "uncharacterized.txt"
ADVICE = "or give a file of QM9 with data=qm9 data.path=FILE.npz"
PIECE = 2_000  # molecules


def official_arrays() -> Arrays:
    """All molecules that passed QM9's consistency check, in the layout of ``npz``.

    The two files are taken from ``molecules/qm9`` in ``EGNN_PRUNE_DATA``, else downloaded into the
    cache from where PyG's ``QM9`` gets them.

    Raises:
        DataError: a file cannot be downloaded or is damaged.
    """
    archive, doubtful = (_file(name) for name in (ARCHIVE, UNCHARACTERIZED))
    skipped = _skipped(doubtful)

    def parse_qm9(path: Path) -> Iterator[Arrays]:
        return molecules(path, skipped)

    return cached(archive, parse_qm9, others=[doubtful])


def molecules(path: Path, skipped: frozenset[int]) -> Iterator[Arrays]:
    """The molecules of ``qm9.zip``, in pieces.

    Args:
        path: holds ``gdb9.sdf`` (positions) and ``gdb9.sdf.csv`` (targets), in the same order.
        skipped: numbers of molecules to leave out, counted from 1 as in the files.

    Raises:
        DataError: the archive or a molecule in it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            with archive.open("gdb9.sdf.csv") as table:
                names = table.readline().decode().strip().split(",")[1:]
                targets = np.loadtxt(
                    table, delimiter=",", usecols=range(1, len(names) + 1), ndmin=2
                )
            yield {"offset": np.zeros(1, dtype=np.int64), "target_names": np.array(names)}
            with archive.open("gdb9.sdf") as structures:
                yield from _pieces(io.TextIOWrapper(structures), targets, skipped, path)
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise some ten different ones
        what = " ".join(str(error).split())
        raise DataError(f"{path} is damaged ({what}); delete it and load again") from None


def _pieces(
    lines: TextIO, targets: np.ndarray, skipped: frozenset[int], path: Path
) -> Iterator[Arrays]:
    kept = [k for k in range(len(targets)) if k + 1 not in skipped]
    wanted, atoms, progress = iter(kept), 0, tqdm(total=len(targets), desc=path.name, delay=2)
    found = _structures(lines, len(targets), path)
    with progress:
        for rows in iter(lambda: list(islice(wanted, PIECE)), []):
            offset, z, pos = [], [], []
            last = rows[-1]
            needed = frozenset(rows)
            for k, (elements, points) in found:
                progress.update()
                if k in needed:
                    atoms += len(elements)
                    offset.append(atoms)
                    z += elements
                    pos += points
                if k == last:
                    break
            yield {
                "offset": np.array(offset, dtype=np.int64),
                "z": np.array(z, dtype=np.uint8),
                "pos": np.array(pos, dtype=np.float64),
                "targets": targets[rows],
                "index": np.array(rows, dtype=np.int32) + 1,
            }


Structure = tuple[list[int], list[list[float]]]


def _structures(lines: TextIO, count: int, path: Path) -> Iterator[tuple[int, Structure]]:
    """Elements and positions in Angstrom of each V2000 record of an SDF file."""
    numbers = cache(lambda symbol: atomic_numbers[symbol])
    for k in range(count):
        head = list(islice(lines, 4))
        try:
            atoms = [line.split(None, 4) for line in islice(lines, int(head[3][:3]))]
            yield k, ([numbers(a[3]) for a in atoms], [[float(v) for v in a[:3]] for a in atoms])
        except (IndexError, KeyError, ValueError):
            raise DataError(f"molecule {k + 1} in {path} is damaged; get a fresh copy") from None
        for line in lines:
            if line.startswith("$$$$"):
                break


def _skipped(path: Path) -> frozenset[int]:
    """Numbers of the molecules that failed the check: between 9 lines of text and 2 at the end."""
    lines = path.read_text().split("\n")[9:-2]
    try:
        return frozenset(int(line.split()[0]) for line in lines)
    except (IndexError, ValueError):
        raise DataError(f"{path} is no list of QM9's doubtful molecules; delete it") from None


def _file(name: str) -> Path:
    if placed := local_data(f"molecules/qm9/{name}"):
        return placed
    from torch_geometric.datasets import QM9

    url = QM9.raw_url if name == ARCHIVE else QM9.raw_url2
    return download(url, cache_folder() / "downloads" / "qm9" / name, ADVICE)
