"""Revised MD17: trajectories of ten small molecules at a tightly converged PBE/def2-SVP level."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from egnn_prune.data.array_files import npz_arrays
from egnn_prune.data.dataset import GraphDataset
from egnn_prune.data.duplicates import grouped_splits
from egnn_prune.data.local import VARIABLE, local_data
from egnn_prune.data.trajectory import (
    UNITS,
    Names,
    random_trajectory_splits,
    read_trajectory,
    trajectory_splits,
)
from egnn_prune.errors import ConfigError, DataError

MOLECULES = (
    "aspirin",
    "azobenzene",
    "benzene",
    "ethanol",
    "malonaldehyde",
    "naphthalene",
    "paracetamol",
    "salicylic",
    "toluene",
    "uracil",
)
NAMES = Names("nuclear_charges", "coords", "energies", "forces")
#: Where the file lies below the data folder: alone, or in the unpacked archive of the release.
PLACES = ("molecules/rmd17/rmd17_{}.npz", "rmd17/rmd17_{}.npz", "rmd17/npz_data/rmd17_{}.npz")


def load_rmd17(
    path: str | Path | None = None,
    target: str | None = None,
    seed: int = 0,
    subset: str | None = None,
) -> GraphDataset:
    """Configurations of one molecule with energies and forces.

    ============== ============= =========================================
    attribute      unit          meaning
    ============== ============= =========================================
    pos [N, 3]     Angstrom
    y [1]          eV            total energy (the file: kcal/mol)
    forces [N, 3]  eV/Angstrom   (the file: kcal/(mol Angstrom))
    row [1]                      row of the file
    ============== ============= =========================================

    All in float64. The split is the release's first (01): its 1,000 test rows are ``test``; of its
    1,000 training rows a seeded 50 are ``val`` and 950 ``train``, the recipe of NequIP, so that
    "1,000 training configurations" include the validation. It is read from
    ``split_01_MOLECULE.npz`` (arrays ``train`` and ``test``) beside the file, or from the release's
    ``index_train_01.csv`` and ``index_test_01.csv`` beside it or in ``../splits``; row numbers are
    rows of the file. Without either, a seeded random split of the same sizes is made, and the
    name of the data set ends in ``-random``.

    Source: Christensen and von Lilienfeld (Mach. Learn.: Sci. Technol. 1, 045018, 2020).

    Args:
        path: the file, or a folder with files called ``rmd17_MOLECULE.npz``; by default, those in
            the data folder.
        target: ``"energy"``, the only one.
        seed: chooses the validation configurations.
        subset: the molecule, one of :data:`MOLECULES`; ethanol, unless ``path`` is a file.

    Raises:
        ConfigError: no such molecule or target.
        DataError: the file is missing (says where to get it) or cannot be used.
    """
    check_request(path, target, subset, MOLECULES, "rmd17")
    file = find_file(path, subset or "ethanol", PLACES)
    if file is None:
        name = f"rmd17_{subset or 'ethanol'}.npz"
        raise DataError(
            f"{name} was not found; unpack rmd17.tar.bz2 (https://doi.org/10.6084/m9.figshare."
            f"12672038) in the folder that {VARIABLE} names, so that rmd17/npz_data/{name} is "
            "there, or give the file with data.path=FILE"
        )
    graphs = read_trajectory(file, NAMES)
    molecule = file.stem.removeprefix("rmd17_")
    official = official_split(file, molecule, len(graphs))
    if official:
        splits, notes = trajectory_splits(*official, seed), list[str]()
    else:
        split = partial(random_trajectory_splits, seed=seed)
        splits, notes = grouped_splits(graphs, split, file.name)
    return GraphDataset(
        name=f"rmd17-{molecule}" + ("" if official else "-random"),
        target="energy",
        unit="eV",
        extensive=True,
        graphs=graphs,
        splits=splits,
        units=UNITS,
        notes=notes,
    )


def check_request(
    path: str | Path | None,
    target: str | None,
    subset: str | None,
    molecules: tuple[str, ...],
    source: str,
) -> None:
    """Refuse what the source does not have.

    Raises:
        ConfigError: another target than the energy, an unknown molecule, or a molecule that is not
            the file's.
    """
    if target not in (None, "energy"):
        raise ConfigError(f"data={source} has the target energy only, not {target!r}")
    if subset is None:
        return
    if subset not in molecules:
        raise ConfigError(f"data.subset must be one of {', '.join(molecules)}, not {subset!r}")
    if path is not None and Path(path).is_file() and subset not in Path(path).stem:
        raise ConfigError(f"data.path={path} is not the file of data.subset={subset}; give one")


def find_file(path: str | Path | None, molecule: str, places: tuple[str, ...]) -> Path | None:
    """The file given, or the molecule's in the folder given or in the data folder.

    Args:
        path: a file, a folder, or ``None``.
        molecule: its name.
        places: where it may lie below the data folder.
    """
    if path is None:
        found = (local_data(place.format(molecule)) for place in places)
        return next((file for file in found if file), None)
    path = Path(path)
    if not path.is_dir():
        return path
    files = (path / Path(place).name.format(molecule) for place in places)
    return next((file for file in files if file.is_file()), None)


def split_files(file: Path, molecule: str) -> list[Path]:
    """Where the release says split 01: one file, one each for train and test, or none."""
    own = file.with_name(f"split_01_{molecule}.npz")
    if own.is_file():
        return [own]
    folders = (file.parent, file.parent / "splits", file.parent.parent / "splits")
    released = next((f for f in folders if (f / "index_train_01.csv").is_file()), None)
    return [released / f"index_{part}_01.csv" for part in ("train", "test")] if released else []


def official_split(file: Path, molecule: str, count: int) -> tuple[Tensor, Tensor] | None:
    """Row numbers of split 01's train and test, or ``None`` without a file that says them.

    Raises:
        DataError: the split's file is damaged, or its rows are not rows of ``file``.
    """
    files = split_files(file, molecule)
    if not files:
        return None
    where = files[0]
    try:
        if len(files) == 1:
            rows_of = npz_arrays(where, ("train", "test"))
            found = rows_of["train"], rows_of["test"]
        else:
            found = tuple(np.loadtxt(f, dtype=np.int64, ndmin=1) for f in files)  # type: ignore[assignment]
    except Exception as error:  # numpy and zipfile raise some ten different ones
        raise DataError(f"{where} cannot be read; get a fresh copy ({error})") from None
    rows = np.concatenate(found)
    if rows.dtype.kind not in "iu" or rows.ndim != 1:
        raise DataError(f"{where} must hold row numbers")
    if rows.min() < 0 or rows.max() >= count:
        raise DataError(
            f"{where} names row {rows.max()}, but {file.name} has {count} configurations; use the "
            "split and the file of one release"
        )
    if len(np.unique(rows)) < len(rows):
        raise DataError(f"{where} names a row twice, within or across train and test")
    train, test = (torch.from_numpy(part.astype(np.int64)) for part in found)
    return train, test
