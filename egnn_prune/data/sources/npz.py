"""Molecules in one ``.npz``: flat arrays of atoms and an offset for each molecule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from egnn_prune.data.array_files import npz_names, npz_pieces
from egnn_prune.data.cache import Arrays, cached
from egnn_prune.data.config_weights import KEY, about_weights, check_weights
from egnn_prune.data.dataset import SPLITS, GraphDataset, random_splits
from egnn_prune.data.duplicates import grouped_splits, shared_structures
from egnn_prune.data.quantities import is_energy, is_extensive, is_per_atom
from egnn_prune.data.store import GraphStore, Texts
from egnn_prune.data.units import Units, kind_of, to_angstrom, to_ev
from egnn_prune.errors import DataError

#: Targets whose negative gradient ``forces`` are: the layout has one array of forces, and they are
#: those of the energy, from which atomisation energies differ by constants.
POTENTIALS = (
    *("energy", "total_energy", "potential_energy", "free_energy"),
    *("atomisation_energy", "atomization_energy", "u0", "u0_atom"),
)
#: Targets whose unit must be one of energy.
ENERGIES = (*POTENTIALS, "u298", "h298", "g298", "zpve", "homo", "lumo", "gap")
REQUIRED = ("offset", "z", "pos", "targets", "target_names")
#: All arrays of the layout; their names are read in any case.
LAYOUT = {
    *(*REQUIRED, "forces", "smiles", "split", "target_units", "pos_unit", "forces_unit", KEY),
}
UNDECLARED = "data unit"


def read_npz(path: Path) -> Arrays:
    """The arrays of a file in the layout of :func:`load_npz`, checked, from the cache.

    Raises:
        DataError: the file is missing, truncated or pickled, or its arrays cannot be used.
    """
    return cached(path, parse_npz, version=4, check=partial(check_arrays, name=path.name))


def parse_npz(path: Path) -> Iterator[Arrays]:
    """The arrays of a file in pieces, without ever unpickling; others are not even unpacked.

    Raises:
        DataError: the file is truncated or pickled.
    """
    try:
        every = npz_names(path)
        names = {name: name.lower() for name in every if name.lower() in LAYOUT}
        if len({*names.values()}) < len(names):
            raise ValueError("it has two arrays whose names differ in their case only")
        refused = {name for name in every if _declares_a_unit(name)}  # where check_arrays sees them
        for piece in npz_pieces(path, {*names, *refused}):
            yield {names.get(name, name): values for name, values in piece.items()}
    except Exception as error:  # numpy, zipfile and zlib raise some ten different ones
        raise DataError(
            f"{path} is not a readable .npz without pickled objects; get a fresh copy ({error})"
        ) from None


def check_arrays(arrays: Arrays, name: str) -> None:
    """Refuse arrays that do not fit together, and positions or forces that are no numbers.

    Raises:
        DataError: names the file, the array and, where it is one, the molecule.
    """
    missing = [key for key in REQUIRED if key not in arrays]
    if missing:
        raise DataError(
            f"{name} lacks the array(s) {', '.join(missing)}; it has {', '.join(arrays) or 'none'}"
        )
    for key, kinds in (("offset", "iu"), ("z", "iu"), ("split", "iu"), ("target_names", "U")):
        if key in arrays and (arrays[key].dtype.kind not in kinds or arrays[key].ndim != 1):
            wanted = "strings" if kinds == "U" else "integers"
            raise DataError(f"{key} of {name} must be a flat array of {wanted}")
    for key in ("pos", "targets", "forces"):
        if key in arrays and arrays[key].dtype.kind not in "iuf":
            raise DataError(f"{key} of {name} must hold numbers, not {arrays[key].dtype}")
    offset, atoms = arrays["offset"].astype(np.int64), len(arrays["z"])
    empty = (np.diff(offset) < 1).nonzero()[0]
    if len(empty):
        raise DataError(f"the offsets of {name} leave no atoms to molecule {empty[0]}")
    if len(offset) < 2 or offset[0] != 0 or offset[-1] != atoms:
        raise DataError(f"the offsets of {name} must run from 0 to its {atoms} atoms")
    count, targets = len(offset) - 1, len(arrays["target_names"])
    for key, shape in (
        ("pos", (atoms, arrays["pos"].shape[-1] if arrays["pos"].ndim == 2 else 3)),
        ("targets", (count, targets)),
        ("forces", arrays["pos"].shape),
        ("split", (count,)),
        ("smiles", (count,)),
        ("target_units", (targets,)),
        (KEY, (count,)),
    ):
        if key in arrays and arrays[key].shape != shape:
            raise DataError(f"{key} of {name} has shape {arrays[key].shape}, not {shape}")
    unknown = [key for key in arrays if key not in LAYOUT and _declares_a_unit(key)]
    if unknown:  # to pass it over would be to read other numbers than are meant
        raise DataError(
            f"{name} has the array(s) {', '.join(unknown)}, but units are declared by target_units "
            "(one of each target), pos_unit and forces_unit; rename or remove them"
        )
    for key in ("pos_unit", "forces_unit"):
        if key in arrays and (arrays[key].ndim or arrays[key].dtype.kind != "U"):
            raise DataError(f"{key} of {name} must be one string, such as 'Angstrom'")
    if not set(np.unique(arrays.get("split", ())).tolist()) <= {0, 1, 2, 3}:
        raise DataError(f"split of {name} must hold 0 train, 1 val, 2 test or 3 ood only")
    if KEY in arrays:
        check_weights(arrays[KEY], name)
    exact: Arrays = {str(key): arrays[key] for key in ("z", "pos", "forces") if key in arrays}
    GraphStore(offset, exact, {}).check(name)


def load_npz(path: str | Path, target: str | None = None, seed: int = 0) -> GraphDataset:
    """Read molecules from ``path``.

    The file holds ``offset [M+1]`` (molecule k owns atoms ``offset[k]:offset[k+1]``), ``z [A]``,
    ``pos [A, 3]``, ``targets [M, K]``, ``target_names [K]``, and optionally ``forces [A, 3]``,
    ``smiles [M]``, ``split [M]`` (0 train, 1 val, 2 test, 3 ood; without it a seeded random
    80/10/10 split is made) and ``config_weight [M]``, which multiplies a molecule's training loss.

    Units are strings: ``target_units [K]``, ``pos_unit`` (Angstrom, unless given) and
    ``forces_unit`` (the energy's per Angstrom; must be given where that is not eV). Energies,
    positions and forces come out in eV and Angstrom, other targets in their own unit, and targets
    without a unit as they are. Forces belong to the targets energy (total, potential or free, too),
    atomisation_energy, u0 and u0_atom; with others, whose gradient they are not, they are left out.
    Copies of a structure stay together in a random split, see :mod:`egnn_prune.data.duplicates`.

    Args:
        path: the file.
        target: one of ``target_names``; by default the first.
        seed: of the random split.

    Raises:
        DataError: the file cannot be used, has no such target, or declares units that are not
            known or do not fit together.
    """
    path = Path(path)
    arrays = read_npz(path)
    names = [str(n) for n in arrays["target_names"]]
    target = target or names[0]
    unit, factors = _units(arrays, target, path.name)
    store = flat_store(arrays, target, path.name, factors)
    units = {"pos": "Angstrom", "y": unit}
    if "forces" in store.nodes:
        units["forces"] = f"{unit}/Angstrom"
    splits, notes = own_or_random_splits(
        arrays, store, partial(random_splits, seed=seed), path.name
    )
    if KEY in arrays:
        notes = [*notes, *about_weights(arrays[KEY], splits["train"], path.name)]
    return GraphDataset(
        name=path.stem,
        target=target,
        unit=unit,
        extensive=is_extensive(target),
        graphs=store,
        splits=splits,
        smiles=Texts(arrays["smiles"]) if "smiles" in arrays else [],
        units=units,
        notes=[*_said(arrays, target, "forces" in store.nodes), *notes],
    )


def flat_store(
    arrays: Arrays, target: str, name: str, factors: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> GraphStore:
    """Lazy graphs over the arrays of a file.

    Args:
        arrays: see :func:`load_npz`.
        target: the column that becomes ``y``, in float64.
        name: the file, for messages.
        factors: what targets, positions and forces are multiplied with.

    Raises:
        DataError: there is no such target, or a record's is no number.
    """
    y = arrays["targets"][:, column_of(arrays, target, name)].astype(np.float64) * factors[0]
    nodes = {"z": arrays["z"], "pos": arrays["pos"]}
    if "forces" in arrays and target in POTENTIALS:
        nodes["forces"] = arrays["forces"]
    scales = {k: f for k, f in (("pos", factors[1]), ("forces", factors[2])) if f != 1.0}
    graphs = {"y": np.asarray(y)}
    if KEY in arrays and (arrays[KEY] != 1).any():
        graphs[KEY] = arrays[KEY]
    store = GraphStore(arrays["offset"], nodes, graphs, scales)
    store.check_column("y", name)
    return store


def splits_of(arrays: Arrays) -> dict[str, Tensor] | None:
    """The split that a file brings along."""
    if "split" not in arrays:
        return None
    return {
        name: torch.from_numpy(np.flatnonzero(arrays["split"] == i))
        for i, name in enumerate(SPLITS)
    }


def own_or_random_splits(
    arrays: Arrays, store: GraphStore, split: Callable[[int], dict[str, Tensor]], name: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The file's own split, or one at random that keeps copies together; what is to be said of it.

    Warns:
        SuspiciousDataWarning: the file's own split tests on structures that it trains on.
    """
    own = splits_of(arrays)
    if own is None:
        return grouped_splits(store, split, name)
    shared_structures(store, own, name)
    return own, []


def _said(arrays: Arrays, target: str, with_forces: bool) -> list[str]:
    column = column_of(arrays, target, "")
    declared = str(arrays["target_units"][column]) if "target_units" in arrays else ""
    units = {target: declared or "a unit not declared", "pos": _declared(arrays, "pos", "Angstrom")}
    if with_forces:
        units["forces"] = _declared(arrays, "forces", "eV/Angstrom")
    shown = ", ".join(f"{name} in {unit}" for name, unit in units.items())
    unused = "forces" in arrays and not with_forces
    return [f"read: {shown}"] + [f"not used: forces, which {target} has none of"] * unused


def _declared(arrays: Arrays, name: str, assumed: str) -> str:
    return str(arrays.get(f"{name}_unit", "")) or f"{assumed} (assumed, none is declared)"


def column_of(arrays: Arrays, target: str, name: str) -> int:
    """Which column of ``targets`` it is.

    Raises:
        DataError: none; says what there is.
    """
    names = [str(n) for n in arrays["target_names"]]
    if target not in names:
        raise DataError(f"{name} has no target {target!r}; it has {', '.join(names)}")
    return names.index(target)


def _units(arrays: Arrays, target: str, name: str) -> tuple[str, tuple[float, float, float]]:
    """The target's unit after loading, and the factors of targets, positions and forces."""
    column = column_of(arrays, target, name)
    unit = str(arrays["target_units"][column]).strip() if "target_units" in arrays else ""
    length = str(arrays.get("pos_unit", "Angstrom"))
    with_forces = "forces" in arrays and target in POTENTIALS
    forces = str(arrays["forces_unit"]) if with_forces and "forces_unit" in arrays else None
    try:
        position = to_angstrom(length)
        if unit in ("", UNDECLARED):
            if forces is not None:
                raise DataError("forces have a unit, but their energy has none; add target_units")
            return UNDECLARED, (1.0, position, 1 / position)
        named_energy = target in ENERGIES or (is_energy(target) and not is_per_atom(target))
        energy = to_ev(unit) if named_energy or _is_energy(unit) else None
        if energy is None:
            return unit, (1.0, position, 1.0)
        if with_forces and forces is None and (energy != 1 or position != 1):
            raise DataError(
                f"{target} is in {unit}, positions in {length}, and forces in an unknown unit; "
                "add forces_unit"
            )
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    return "eV", Units(unit, length, forces).factors(name)


def _declares_a_unit(key: str) -> bool:
    return bool(kind_of(key)) or key.lower().removesuffix("s").endswith("unit")


def _is_energy(unit: str) -> bool:
    try:
        return to_ev(unit) > 0
    except DataError:
        return False
