"""Many configurations of one molecule in an ``.npz``: what the two MD17 sources share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from egnn_prune.data.array_files import npz_arrays, npz_names
from egnn_prune.data.cache import Arrays, cached
from egnn_prune.data.store import GraphStore
from egnn_prune.data.units import declared_units, kind_of
from egnn_prune.errors import DataError

#: "1,000 training configurations" of the literature are 950 to train and 50 to validate on.
TRAINING, VALIDATION, TEST = 1000, 50, 1000
UNITS = {"pos": "Angstrom", "y": "eV", "forces": "eV/Angstrom"}


@dataclass(frozen=True)
class Names:
    """What the arrays are called in the file: ``[n], [M, n, 3], [M], [M, n, 3]``."""

    elements: str
    positions: str
    energies: str
    forces: str

    @property
    def required(self) -> tuple[str, str, str, str]:
        """The arrays that the file must hold."""
        return self.elements, self.positions, self.energies, self.forces


def read_trajectory(path: Path, names: Names) -> GraphStore:
    """The configurations of a file in eV and Angstrom, float64.

    Numbers are in kcal/mol, Angstrom and kcal/mol/Angstrom, unless strings beside them declare
    others: ``e_unit``, ``r_unit``, ``f_unit``, or any other key that
    :func:`~egnn_prune.data.units.kind_of` knows.

    Raises:
        DataError: the file is missing or truncated, lacks an array, or its arrays do not fit
            together or hold NaN; names the file, and the record where it is one.
    """

    def parse(path: Path) -> Iterator[Arrays]:
        """One array at a time: a file may hold a million configurations."""
        try:
            yield from _arrays(names, path)
        except DataError:
            raise
        except Exception as error:  # numpy, zipfile and zlib raise some ten different ones
            raise DataError(f"{path} is not a readable .npz; get a fresh copy ({error})") from None

    def check(arrays: Arrays) -> None:
        _store(arrays).check(path.name)

    return _store(cached(path, parse, variant=repr(names), check=check))


def _store(arrays: Arrays) -> GraphStore:
    return GraphStore(
        arrays["offset"],
        nodes={name: arrays[name] for name in ("z", "pos", "forces")},
        graphs={"y": arrays["y"]},
    )


def _arrays(names: Names, path: Path) -> Iterator[Arrays]:
    there = npz_names(path)
    missing = [name for name in names.required if name not in there]
    if missing:
        raise DataError(
            f"{path} lacks the array(s) {', '.join(missing)}; it has {', '.join(there)}"
        )
    given = npz_arrays(path, [name for name in there if kind_of(name)])
    if any(unit.size != 1 or unit.dtype.kind not in "US" for unit in given.values()):
        raise DataError(f"{', '.join(given)} of {path.name} must be one string each, such as 'eV'")
    texts = {name: unit.astype(str).item() for name, unit in given.items()}
    units = declared_units(texts, path.name, energy="kcal/mol")
    energy, length, force = units.factors(path.name)
    z = npz_arrays(path, [names.elements])[names.elements]
    y = _numbers(names.energies, path).reshape(-1)
    if z.dtype.kind not in "iu" or z.ndim != 1 or not len(z):
        raise DataError(f"{names.elements} of {path.name} must be a flat array of atomic numbers")
    if not len(y):
        raise DataError(f"{path.name} holds no configurations")
    shape = (len(y), len(z), 3)
    for key, name, factor in (("pos", names.positions, length), ("forces", names.forces, force)):
        values = _numbers(name, path)
        if values.shape != shape:
            raise DataError(f"{name} of {path.name} has shape {values.shape}, not {shape}")
        yield {key: values.reshape(-1, 3) * factor}
    yield {
        "y": y * energy,
        "z": np.tile(z, len(y)),
        "offset": np.arange(len(y) + 1, dtype=np.int64) * len(z),
    }


def _numbers(name: str, path: Path) -> np.ndarray:
    values = npz_arrays(path, [name])[name]
    if values.dtype.kind not in "iuf":
        raise DataError(f"{name} of {path.name} must hold numbers, not {values.dtype}")
    return values.astype(np.float64, copy=False)


def trajectory_splits(train: Tensor, test: Tensor, seed: int) -> dict[str, Tensor]:
    """Train, val and test, where the training configurations include those to validate on.

    Args:
        train: ``[n]`` row numbers; a seeded 5 % of them (50 of 1,000) become ``val``.
        test: row numbers.
        seed: chooses them.
    """
    held_out = max(1, len(train) * VALIDATION // TRAINING)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    return {"train": train[order[held_out:]], "val": train[order[:held_out]], "test": test}


def random_trajectory_splits(count: int, seed: int) -> dict[str, Tensor]:
    """A seeded 950/50/1,000 of ``count`` configurations; 10 % to test on where there are few.

    Raises:
        DataError: fewer than 3 configurations.
    """
    if count < 3:
        raise DataError(f"{count} configurations cannot be split; 3 are the least")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    test = TEST if count >= TRAINING + TEST else max(1, count // 10)
    return trajectory_splits(order[test : test + TRAINING], order[:test], seed)
