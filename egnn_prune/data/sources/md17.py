"""MD17 and its revision: trajectories of ten small molecules with energies and forces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from egnn_prune.data.array_files import npz_arrays
from egnn_prune.data.dataset import GraphDataset
from egnn_prune.data.duplicates import grouped_splits
from egnn_prune.data.local import VARIABLE, local_data
from egnn_prune.data.sources.trajectory import (
    UNITS,
    Names,
    random_trajectory_splits,
    read_trajectory,
    trajectory_splits,
)
from egnn_prune.data.store import GraphStore
from egnn_prune.errors import ConfigError, DataError

MOLECULES = (
    *("aspirin", "azobenzene", "benzene", "ethanol", "malonaldehyde", "naphthalene"),
    *("paracetamol", "salicylic", "toluene", "uracil"),
)


@dataclass(frozen=True)
class Release:
    """Files with one molecule each.

    Attributes:
        source: what it is called, and how its files begin.
        benzene: the name of that molecule; of all others it is the same.
        names: of the arrays.
        places: where a molecule's file may lie below the data folder.
        advice: where a file that is missing can be had.
    """

    source: str
    benzene: str
    names: Names
    places: tuple[str, ...]
    advice: str

    @property
    def molecules(self) -> list[str]:
        """Names of the molecules."""
        return [self.benzene if name == "benzene" else name for name in MOLECULES]

    def find(self, path: str | Path | None, molecule: str | None) -> Path | None:
        """The file given, or the molecule's in the folder given or in the data folder."""
        molecule = molecule or "ethanol"
        if path is None:
            found = (local_data(place.format(molecule)) for place in self.places)
            return next((file for file in found if file), None)
        path = Path(path)
        if not path.is_dir():
            return path
        files = (path / Path(place).name.format(molecule) for place in self.places)
        return next((file for file in files if file.is_file()), None)

    def file(self, path: str | Path | None, target: str | None, molecule: str | None) -> Path:
        """The same, once it is known that there is such a molecule and target.

        Raises:
            ConfigError: another target than the energy, an unknown molecule, or a molecule that is
                not the file's.
            DataError: there is no such file; says where to get it.
        """
        if target not in (None, "energy"):
            raise ConfigError(f"data={self.source} has the target energy only, not {target!r}")
        if molecule is not None and molecule not in self.molecules:
            known = ", ".join(self.molecules)
            raise ConfigError(f"data.subset must be one of {known}, not {molecule!r}")
        if molecule and path and Path(path).is_file() and molecule not in Path(path).stem:
            raise ConfigError(
                f"data.path={path} is not the file of data.subset={molecule}; give one"
            )
        file = self.find(path, molecule)
        if file is None:
            name = f"{self.source}_{molecule or 'ethanol'}.npz"
            advice = self.advice.format(name=name, folder=f"the folder that {VARIABLE} names")
            raise DataError(f"{name} was not found; {advice}, or give the file with data.path=FILE")
        return file


MD17 = Release(
    "md17",
    "benzene2017",
    Names("z", "R", "E", "F"),
    # older copies are called MOLECULE_dft.npz
    ("molecules/md17/md17_{}.npz", "md17/md17_{}.npz", "md17/{}_dft.npz"),
    "get it from http://www.quantum-machine.org/gdml/data/npz/{name} and put it into md17 in "
    "{folder}",
)
REVISED = Release(
    "rmd17",
    "benzene",
    Names("nuclear_charges", "coords", "energies", "forces"),
    # alone, or in the unpacked archive of the release
    ("molecules/rmd17/rmd17_{}.npz", "rmd17/rmd17_{}.npz", "rmd17/npz_data/rmd17_{}.npz"),
    "unpack rmd17.tar.bz2 (https://doi.org/10.6084/m9.figshare.12672038) in {folder}, so that "
    "rmd17/npz_data/{name} is there",
)
RELEASES = {release.source: release for release in (MD17, REVISED)}


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
        subset: the molecule, such as aspirin; ethanol, unless ``path`` is a file.

    Raises:
        ConfigError: no such molecule or target.
        DataError: the file is missing (says where to get it) or cannot be used.
    """
    file = REVISED.file(path, target, subset)
    graphs = read_trajectory(file, REVISED.names)
    molecule = file.stem.removeprefix("rmd17_")
    official = official_split(file, molecule, len(graphs))
    if official:
        splits = trajectory_splits(*official, seed)
        return _dataset(f"rmd17-{molecule}", graphs, splits)
    return _randomly_split(f"rmd17-{molecule}-random", graphs, seed, file)


def load_md17(
    path: str | Path | None = None,
    target: str | None = None,
    seed: int = 0,
    subset: str | None = None,
) -> GraphDataset:
    """Configurations of one molecule with energies and forces, as :func:`load_rmd17` has them.

    Energies in the file are in kcal/mol and lengths in Angstrom, unless it declares others
    (``e_unit``, ``r_unit``, ``f_unit``). There is no official split: a seeded 950 configurations
    train, 50 validate and 1,000 test; of fewer than 2,000 configurations, 10 % test and 5 % of the
    rest validate.

    MD17's energies are noisy (loose convergence): the revised set has replaced it in comparisons.

    Source: Chmiela et al. (Sci. Adv. 3, e1603015, 2017).

    Args:
        path: the file, or a folder with files called ``md17_MOLECULE.npz``; by default, those in
            the data folder.
        target: ``"energy"``, the only one.
        seed: of the split.
        subset: the molecule, such as aspirin; ethanol, unless ``path`` is a file.

    Raises:
        ConfigError: no such molecule or target.
        DataError: the file is missing (says where to get it) or cannot be used.
    """
    file = MD17.file(path, target, subset)
    molecule = file.stem.removeprefix("md17_").removesuffix("_dft")
    return _randomly_split(f"md17-{molecule}", read_trajectory(file, MD17.names), seed, file)


def _randomly_split(name: str, graphs: GraphStore, seed: int, file: Path) -> GraphDataset:
    split = partial(random_trajectory_splits, seed=seed)
    return _dataset(name, graphs, *grouped_splits(graphs, split, file.name))


def _dataset(
    name: str, graphs: GraphStore, splits: dict[str, Tensor], notes: Sequence[str] = ()
) -> GraphDataset:
    return GraphDataset(
        name=name,
        target="energy",
        unit="eV",
        extensive=True,
        graphs=graphs,
        splits=splits,
        units=UNITS,
        notes=list(notes),
    )


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
