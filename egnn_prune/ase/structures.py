"""Structures of ASE as graphs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from torch_geometric.data import Data

from egnn_prune.data import ase_files
from egnn_prune.data.labels import declared, forces_of
from egnn_prune.data.quantities import is_energy, words
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

    Where it declares units (``length_unit=Bohr``), this is a copy without momenta (nobody declares
    their unit) and without the declaration. Converted are positions, cell, numbers called as
    energies are, arrays called as forces are, stresses (an energy per volume) and virials (an
    energy), in the comment line, in arrays and among the results that the file attached, of which
    the others are left out. A stress or virial whose own unit is declared (``stress_unit=GPa``)
    stays as it is, with that declaration, and is left out of the results. A structure that declares
    no units is returned itself; of one that declares that of its stress alone, the stress is left
    out of the results.

    Args:
        atoms: the structure.
        where: what it is, for messages.

    Raises:
        DataError: a unit or the key that declares it is not known, or the units contradict each
            other.
    """
    energy, length, force = declared(atoms, where).factors(where)
    own = {
        kind for key in atoms.info if {"unit", "units"} & {*words(key)} for kind in _of_strain(key)
    }
    if not any(map(kind_of, atoms.info)):
        return _without_stress(atoms) if "stress" in own else atoms
    factors = {"stress": energy / length**3, "virial": energy}
    factors = {kind: 1.0 if kind in own else factor for kind, factor in factors.items()}
    out = atoms.copy()
    out.arrays.pop("momenta", None)
    out.positions *= length
    out.cell[:] *= length
    out.info = {key: value for key, value in out.info.items() if not kind_of(key)}
    for key, value in out.info.items():
        if np.asarray(value).dtype.kind not in "iuf":
            continue
        if is_energy(key):
            out.info[key] = np.asarray(value) * energy
        elif np.size(value) in (6, 9):  # not their weights
            for kind in _of_strain(key):
                out.info[key] = np.asarray(value) * factors[kind]
    for name, values in forces_of(out).items():
        out.arrays[name] = values * force
    for name, values in list(out.arrays.items()):
        if values.size in (6 * len(out), 9 * len(out)) and values.dtype.kind in "iuf":
            for kind in _of_strain(name):
                out.arrays[name] = values * factors[kind]
    if isinstance(atoms.calc, SinglePointCalculator):  # of the file; others are in ASE's units
        known = dict.fromkeys(("energy", "free_energy", "energies"), energy)
        known["forces"] = force
        if "stress" not in own:
            known |= dict.fromkeys(("stress", "stresses"), factors["stress"])
        there = {name: atoms.calc.results.get(name) for name in known}
        found = {n: np.asarray(v) * known[n] for n, v in there.items() if v is not None}
        out.calc = SinglePointCalculator(out, **found)
    return out


def _without_stress(atoms: Atoms) -> Atoms:
    """The structure without the stress that its file attached, whose unit is not ASE's."""
    there = atoms.calc.results if isinstance(atoms.calc, SinglePointCalculator) else {}
    if not {"stress", "stresses"} & {*there}:
        return atoms
    out = atoms.copy()
    kept = {name: value for name, value in there.items() if name not in ("stress", "stresses")}
    out.calc = SinglePointCalculator(out, **kept)
    return out


def _of_strain(key: object) -> list[str]:
    """Whether a name is that of a stress or of a virial."""
    said = {*words(key)} if isinstance(key, str) else set()
    kinds = {"stress": {"stress", "stresses"}, "virial": {"virial", "virials"}}
    return [kind for kind, names in kinds.items() if said & names]


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
