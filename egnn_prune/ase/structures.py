"""Structures of ASE as graphs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch_geometric.data import Data

from egnn_prune.data import ase_files
from egnn_prune.data.labels import declared, forces_of
from egnn_prune.data.quantities import is_energy
from egnn_prune.data.units import kind_of
from egnn_prune.errors import DataError


def read_structures(path: str | Path) -> list[Atoms]:
    """All structures of a file in any format that ASE reads, gzipped or not, in eV and Angstrom.

    Raises:
        DataError: the file is missing, empty, or cannot be parsed, or declares a unit that is not
            known; names the structure.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}; check its name")
    found = [
        in_ase_units(atoms, f"structure {k} of {path}")
        for k, atoms in enumerate(ase_files.read_structures(path))
    ]
    if not found:
        raise DataError(f"{path} holds no structures")
    return found


def in_ase_units(atoms: Atoms, where: str = "the structure") -> Atoms:
    """The structure in eV and Angstrom, whatever its comment line declares, as in training.

    Where it declares units (``length_unit=Bohr``), this is a copy without a calculator, without
    momenta (nobody declares their unit) and without the declaration; positions, cell, numbers
    called as energies are and arrays called as forces are converted. Otherwise it is the structure
    itself.

    Args:
        atoms: the structure.
        where: what it is, for messages.

    Raises:
        DataError: a unit or the key that declares it is not known, or the units contradict each
            other.
    """
    energy, length, force = declared(atoms, where).factors(where)
    if not any(map(kind_of, atoms.info)):
        return atoms
    out = atoms.copy()
    out.arrays.pop("momenta", None)
    out.positions *= length
    out.cell[:] *= length
    out.info = {
        key: np.asarray(value) * energy
        if is_energy(key) and np.asarray(value).dtype.kind in "iuf"
        else value
        for key, value in out.info.items()
        if not kind_of(key)
    }
    for name, values in forces_of(out).items():
        out.arrays[name] = values * force
    return out


def problem(atoms: Atoms, elements: Sequence[int]) -> str | None:
    """Why a model that knows these elements cannot predict a structure; ``None`` if it can."""
    if len(atoms) == 0:
        return "has no atoms"
    if broken := not_finite(atoms):
        return broken
    unknown = sorted(set(atoms.numbers.tolist()) - set(elements))
    if unknown:
        name = chemical_symbols[unknown[0]] if 0 < unknown[0] < len(chemical_symbols) else "?"
        known = ", ".join(chemical_symbols[z] for z in elements)
        return (
            f"has the element {name} (atomic number {unknown[0]}), which was not in the training "
            f"data; these were: {known}"
        )
    vectors = np.asarray(atoms.cell)[atoms.pbc]
    lengths = np.linalg.norm(vectors, axis=1)
    if not np.isfinite(vectors).all():
        return "has a NaN or infinite entry in its cell"
    gram = (vectors @ vectors.T) / np.where(lengths > 0, lengths[:, None] * lengths, 1.0)
    if atoms.pbc.any() and not np.linalg.det(gram) > 1e-12:
        return "is periodic, but its cell has no volume in its periodic directions"
    return ase_files.out_of_bounds(atoms)


def not_finite(atoms: Atoms) -> str | None:
    """Which position is none, in a clause; ``None`` where all are."""
    broken = ~np.isfinite(atoms.positions).all(1)
    if not broken.any():
        return None
    return f"has a NaN or infinite position (atom {int(broken.argmax())})"


def moved_too_far(atoms: Atoms) -> str | None:
    """:func:`problem` of a structure that had none before its atoms moved."""
    return not_finite(atoms) or ase_files.out_of_bounds(atoms)


def has_stress(atoms: Atoms) -> bool:
    """Whether the stress of a structure is defined: it repeats itself, in a cell with a volume."""
    lengths = float(np.prod(atoms.cell.lengths()))  # the rank of ASE counts parallel vectors, too
    return bool(atoms.pbc.any()) and bool(atoms.cell.volume > 1e-9 * lengths)


def graph_of(atoms: Atoms) -> Data:
    """A structure as ``Data(z [N], pos [N, 3])``, periodic ones with ``cell`` and ``pbc``.

    Positions ``[N, 3]`` and ``cell [1, 3, 3]`` are float64 in Angstrom, ``pbc [1, 3]`` is bool. A
    cell without periodic boundaries is ignored.

    Raises:
        DataError: the structure declares a unit that is not known.
    """
    atoms = in_ase_units(atoms)
    graph = Data(
        z=torch.from_numpy(atoms.numbers.astype(np.int64)),
        pos=torch.from_numpy(atoms.positions.astype(np.float64)),
    )
    if atoms.pbc.any():
        graph.cell = torch.from_numpy(np.array(atoms.cell, dtype=np.float64))[None]
        graph.pbc = torch.from_numpy(np.array(atoms.pbc, dtype=bool))[None]
    return graph
