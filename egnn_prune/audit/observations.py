"""What both calculators and the labels say of every structure, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ase
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from egnn_prune.ase.structures import in_ase_units
from egnn_prune.audit.candidate import Answer, Candidate
from egnn_prune.data.isolated import is_isolated
from egnn_prune.data.labels import USUAL, Labels, declared, forces_of, per_structure
from egnn_prune.errors import DataError

Array = NDArray[np.float64]

A, B, LABEL = "a", "b", "label"


@dataclass(frozen=True)
class Observations:
    """Numbers of S structures with N atoms in all, by who says them: ``a``, ``b`` or ``label``.

    Attributes:
        structures: the structures.
        rows: ``[S]`` their places in what was handed over.
        energy: ``[S]`` in eV; no ``label`` where there are none, as with the others.
        forces: ``[N, 3]`` in eV/Angstrom.
        stress: ``[S, 6]`` in eV/Angstrom^3; NaN for structures without.
        energy_std: ``[S]`` in eV, of those that state it for every structure.
        forces_std: ``[N]`` in eV/Angstrom, likewise.
    """

    structures: Sequence[ase.Atoms]
    rows: NDArray[np.int64]
    energy: Mapping[str, Array]
    forces: Mapping[str, Array]
    stress: Mapping[str, Array]
    energy_std: Mapping[str, Array]
    forces_std: Mapping[str, Array]

    @cached_property
    def atoms(self) -> NDArray[np.int64]:
        """``[S]`` how many atoms each structure has."""
        return np.array([len(atoms) for atoms in self.structures])

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """``[N]`` the structure of each atom."""
        return np.repeat(np.arange(len(self.structures)), self.atoms)

    @cached_property
    def numbers(self) -> NDArray[np.int64]:
        """``[N]`` atomic numbers."""
        return np.concatenate([atoms.numbers for atoms in self.structures])

    def summed(self, values: NDArray[Any]) -> Array:
        """``[S]`` sums over the atoms of each structure, of numbers ``[N]``."""
        return np.bincount(self.owner, values, len(self.structures)).astype(np.float64)

    @property
    def has_forces(self) -> bool:
        """Whether there are labels of forces."""
        return LABEL in self.forces

    def force_errors(self, who: str) -> Array:
        """``[N, 3]`` from the labels, without labels from A, in meV/Angstrom."""
        reference = self.forces[LABEL if self.has_forces else A]
        return 1000 * (self.forces[who] - reference)


def chosen(
    structures: Sequence[ase.Atoms], limit: int, seed: int
) -> tuple[list[ase.Atoms], NDArray[np.int64]]:
    """At most so many structures, drawn at random and in their order; no free atoms.

    Raises:
        DataError: there are none, or one is no structure that can be computed.
    """
    found = []
    for k, atoms in enumerate(structures):
        if not len(atoms):
            raise DataError(f"structure {k} has no atoms; remove it")
        if not np.isfinite(atoms.positions).all() or not np.isfinite(atoms.cell.array).all():
            raise DataError(f"structure {k} has a NaN or infinite position or cell; remove it")
        if not is_isolated(atoms):
            found.append(k)
    if not found:
        raise DataError("there are no structures of more than one atom; give at least one")
    rows = np.array(found)
    if len(rows) > limit:
        rows = np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))
    return [in_ase_units(structures[k], f"structure {k}") for k in rows], rows


def observed(
    candidates: Mapping[str, Candidate], structures: Sequence[ase.Atoms], rows: NDArray[np.int64]
) -> Observations:
    """Ask both about every structure.

    Raises:
        InputError: one cannot compute a structure.
        DataError: some structures have labels and others have none.
    """
    labels = labels_of(structures, rows)
    answers: dict[str, list[Answer]] = {who: [] for who in candidates}
    with tqdm(total=2 * len(structures), desc="structures", leave=False) as bar:
        for row, atoms in zip(rows, structures, strict=True):
            for who, candidate in candidates.items():
                answers[who].append(candidate.answer(atoms, f"structure {row}", error_bars=True))
                bar.update()
    energy = {who: np.array([x.energy for x in found]) for who, found in answers.items()}
    forces = {who: np.concatenate([x.forces for x in found]) for who, found in answers.items()}
    stress = {who: np.stack([_voigt(x.stress) for x in found]) for who, found in answers.items()}
    energy_std, forces_std = {}, {}
    for who, found in answers.items():
        of_energies = [x.energy_std for x in found if x.energy_std is not None]
        of_forces = [x.forces_std for x in found if x.forces_std is not None]
        if len(of_energies) == len(found):
            energy_std[who] = np.array(of_energies)
        if len(of_forces) == len(found):
            forces_std[who] = np.concatenate(of_forces)
    if labels[0] is not None:
        energy[LABEL] = labels[0]
    if labels[1] is not None:
        forces[LABEL] = labels[1]
    stress[LABEL] = np.stack([_voigt(_stress_label(atoms)) for atoms in structures])
    return Observations(structures, rows, energy, forces, stress, energy_std, forces_std)


def labels_of(
    structures: Sequence[ase.Atoms], rows: NDArray[np.int64]
) -> tuple[Array | None, Array | None]:
    """Energies ``[S]`` and forces ``[N, 3]`` of the structures; ``None`` where there are none.

    Raises:
        DataError: some have them and others not, there are several, or one is NaN or infinite.
    """
    first, where = structures[0], [f"structure {row}" for row in rows]
    usual = sorted(name for name in per_structure(first) if name.lower() in USUAL)
    if len(usual) > 1:
        raise DataError(
            f"{where[0]} has more than one energy ({', '.join(usual)}); leave one of them"
        )
    plain = [name for name in forces_of(first) if name.lower() in ("forces", "force")]
    if usual:
        labels = Labels.of(structures, usual[0], "the file")
    else:
        labels = Labels("energy", plain[0] if plain else None, declared(first))
    energy: list[float] = []
    forces: list[Array] = []
    for atoms, place in zip(structures, where, strict=True):
        if usual:
            energy.append(labels.number(atoms, place))
        if (one := labels.vectors(atoms, place)) is not None:
            forces.append(np.asarray(one, dtype=np.float64))
        if not np.isfinite([*energy[-1:], *np.ravel(forces[-1:])]).all():
            raise DataError(f"{place} has a label that is NaN or infinite; remove it")
    return np.array(energy) if usual else None, np.concatenate(forces) if forces else None


def _stress_label(atoms: ase.Atoms) -> Array | None:
    """Where a calculator is attached, whose unit is ASE's."""
    found = atoms.calc.results.get("stress") if atoms.calc is not None else None
    return None if found is None or np.size(found) != 6 else np.asarray(found, dtype=np.float64)


def _voigt(stress: Array | None) -> Array:
    return np.full(6, np.nan) if stress is None else stress
