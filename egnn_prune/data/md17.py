"""MD17: the original trajectories of small molecules, in the layout of sGDML."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from egnn_prune.data.dataset import GraphDataset
from egnn_prune.data.duplicates import grouped_splits
from egnn_prune.data.local import VARIABLE
from egnn_prune.data.rmd17 import check_request, find_file
from egnn_prune.data.trajectory import UNITS, Names, random_trajectory_splits, read_trajectory
from egnn_prune.errors import DataError

MOLECULES = (
    "aspirin",
    "azobenzene",
    "benzene2017",
    "ethanol",
    "malonaldehyde",
    "naphthalene",
    "paracetamol",
    "salicylic",
    "toluene",
    "uracil",
)
NAMES = Names("z", "R", "E", "F")
#: Where the file lies below the data folder; older copies are called ``MOLECULE_dft.npz``.
PLACES = ("molecules/md17/md17_{}.npz", "md17/md17_{}.npz", "md17/{}_dft.npz")


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
        subset: the molecule, one of :data:`MOLECULES`; ethanol, unless ``path`` is a file.

    Raises:
        ConfigError: no such molecule or target.
        DataError: the file is missing (says where to get it) or cannot be used.
    """
    check_request(path, target, subset, MOLECULES, "md17")
    file = find_file(path, subset or "ethanol", PLACES)
    if file is None:
        name = f"md17_{subset or 'ethanol'}.npz"
        raise DataError(
            f"{name} was not found; get it from http://www.quantum-machine.org/gdml/data/npz/{name}"
            f" and put it into md17 in the folder that {VARIABLE} names, or give the file with "
            "data.path=FILE"
        )
    graphs = read_trajectory(file, NAMES)
    split = partial(random_trajectory_splits, seed=seed)
    splits, notes = grouped_splits(graphs, split, file.name)
    return GraphDataset(
        name=f"md17-{file.stem.removeprefix('md17_').removesuffix('_dft')}",
        target="energy",
        unit="eV",
        extensive=True,
        graphs=graphs,
        splits=splits,
        units=UNITS,
        notes=notes,
    )
