"""QM9: 134,000 small organic molecules with 19 properties at B3LYP/6-31G(2df,p)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ase.units
import torch
from torch import Tensor

from egnn_prune.data.cache import Arrays
from egnn_prune.data.dataset import GraphDataset, random_splits
from egnn_prune.data.local import local_data
from egnn_prune.data.sources.npz import column_of, flat_store, own_or_random_splits, read_npz
from egnn_prune.data.sources.qm9_official import official_arrays
from egnn_prune.data.store import Texts
from egnn_prune.errors import ConfigError, DataError

HARTREE = ase.units.Hartree
KCAL_MOL = ase.units.kcal / ase.units.mol
SAMPLE = "molecules/qm9_12k.npz"
SUBSETS = ("full", "12k")
#: From this size on a file counts as the full set, whose split is customary.
FULL, TRAIN, VAL = 130_000, 110_000, 10_000
SPLIT_SEED = 0


@dataclass(frozen=True)
class Property:
    """A target of QM9.

    Attributes:
        unit: the customary one, which the graphs have.
        filed_in: the official files' unit.
        factor: of the official number.
        extensive: whether it is a sum over atoms to first order, so that a term per element is
            fitted and subtracted.
    """

    unit: str
    filed_in: str
    factor: float = 1.0
    extensive: bool = False


def _same(unit: str, extensive: bool = False) -> Property:
    return Property(unit, unit, 1.0, extensive)


def _hartree(extensive: bool) -> Property:
    return Property("eV", "Hartree", HARTREE, extensive)


PROPERTIES: dict[str, Property] = {
    **dict.fromkeys(("A", "B", "C"), _same("GHz")),
    "mu": _same("D"),
    "alpha": _same("Bohr^3", extensive=True),
    **dict.fromkeys(("homo", "lumo", "gap"), _hartree(extensive=False)),
    "r2": _same("Bohr^2"),
    **dict.fromkeys(("zpve", "u0", "u298", "h298", "g298"), _hartree(extensive=True)),
    "cv": _same("cal/(mol K)", extensive=True),
    **dict.fromkeys(
        ("u0_atom", "u298_atom", "h298_atom", "g298_atom"),
        Property("eV", "kcal/mol", KCAL_MOL, extensive=True),
    ),
}


def load_qm9(
    path: str | Path | None = None,
    target: str | None = None,
    subset: str | None = None,
    split_seed: int = SPLIT_SEED,
) -> GraphDataset:
    """QM9, or a part of it, with one of its 19 targets.

    ============================= =========== ========= ===========================================
    target                        unit        extensive
    ============================= =========== ========= ===========================================
    A, B, C                       GHz         no        rotational constants
    mu                            D           no        length of the dipole
    alpha                         Bohr^3      yes       isotropic polarisability
    homo, lumo, gap               eV          no        orbital energies and their difference
    r2                            Bohr^2      no        electronic spatial extent
    zpve                          eV          yes       zero-point vibrational energy
    u0, u298                      eV          yes       internal energy at 0 K and 298.15 K
    h298, g298                    eV          yes       enthalpy, free energy at 298.15 K
    cv                            cal/(mol K) yes       heat capacity at 298.15 K
    u0_atom, u298_atom,           eV          yes       the same less those of the free atoms;
    h298_atom, g298_atom                                ``u0_atom`` is the default
    ============================= =========== ========= ===========================================

    The official files have Hartree and kcal/mol; a file with ``target_units`` may have either.
    Everything stays float64: a total energy of -17,660 eV has 2 meV of float32 spacing. For
    extensive targets the model's scale subtracts a least-squares term per element, which makes
    ``u0`` and ``u0_atom`` one learning problem. PyG's own ``QM9`` has these numbers in float32, so
    its addresses are used here, but not its arrays.

    Splits do not depend on the job's seed, since errors on different test sets do not compare:
    110,000 / 10,000 / the rest at random for the full set (SchNet and after; 3,054 molecules that
    failed their consistency check are left out), 80/10/10 at random for smaller files, or the
    file's own ``split``.

    Source: Ramakrishnan et al. 2014 (doi:10.1038/sdata.2014.22); split: Schuett et al. 2018.

    Args:
        path: a file in the layout of :func:`~egnn_prune.data.sources.npz.load_npz`, with the
            columns of QM9.
        target: see the table.
        subset: without a path, ``"full"``: the official files, downloaded once (90 MB);
            ``"12k"``: the sample ``molecules/qm9_12k.npz`` in ``EGNN_PRUNE_DATA``. Unless given:
            the sample where it is, else the official files.
        split_seed: of the random split.

    Raises:
        ConfigError: no such target or subset.
        DataError: the data cannot be found, downloaded or used.
    """
    target = target or "u0_atom"
    if target not in PROPERTIES:
        raise ConfigError(f"qm9 has no target {target!r}; it has {', '.join(PROPERTIES)}")
    name, arrays = _arrays(path, subset)
    factor = _factor(arrays, target, name)
    wanted = PROPERTIES[target]
    store = flat_store(arrays, target, name, (factor, 1.0, 1.0))
    split = partial(qm9_splits, seed=split_seed)
    splits, notes = own_or_random_splits(arrays, store, split, name)
    return GraphDataset(
        name=name,
        target=target,
        unit=wanted.unit,
        extensive=wanted.extensive,
        graphs=store,
        splits=splits,
        notes=notes,
        smiles=Texts(arrays["smiles"]) if "smiles" in arrays else [],
        units={"pos": "Angstrom", "y": wanted.unit},
    )


def qm9_splits(count: int, seed: int = SPLIT_SEED) -> dict[str, Tensor]:
    """The customary sizes for the full set, 80/10/10 for a part of it."""
    if count < FULL:
        return random_splits(count, seed)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    train, val, test = order.tensor_split([TRAIN, TRAIN + VAL])
    return {"train": train, "val": val, "test": test}


def _arrays(path: str | Path | None, subset: str | None) -> tuple[str, Arrays]:
    if subset is not None and subset not in SUBSETS:
        raise ConfigError(f"data.subset of qm9 must be one of {', '.join(SUBSETS)}, not {subset!r}")
    if path is not None and subset is not None:
        raise ConfigError("qm9 takes data.path or data.subset, not both")
    found = Path(path) if path is not None else None
    if found is None and subset != "full":
        found = local_data(SAMPLE)
        if found is None and subset is not None:
            raise DataError(
                f"{SAMPLE} was not found; set EGNN_PRUNE_DATA to the folder that holds it"
            )
    if found is None:
        return "qm9", official_arrays()
    return found.stem, read_npz(found)


def _factor(arrays: Arrays, target: str, name: str) -> float:
    """What brings the file's numbers to the customary unit."""
    wanted = PROPERTIES[target]
    column = column_of(arrays, target, name)
    if "target_units" not in arrays:
        return wanted.factor
    declared = str(arrays["target_units"][column])
    known = {wanted.unit: 1.0, wanted.filed_in: wanted.factor}
    if declared not in known:
        raise DataError(
            f"{name} declares {target} in {declared!r}; qm9 reads it in {' or '.join(known)}"
        )
    return known[declared]
