"""Which of a structure's numbers are its energy and forces, and in which unit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from egnn_prune.data.units import Units, declared_units
from egnn_prune.errors import DataError

#: What energies are called, in lower case, when nobody says which one is meant.
USUAL = ("energy", "ref_energy", "dft_energy", "totenergy", "total_energy")


def is_energy(target: str) -> bool:
    """Whether a quantity of that name is an energy, by its unit."""
    return "energy" in target.lower()


def is_total_energy(target: str) -> bool:
    """Whether it is the energy of a whole structure, whose negative gradient the forces are."""
    return is_energy(target) and "per_atom" not in target.lower()


#: Names of arrays that may be forces, or their negative.
GRADIENT = re.compile(r"(^|_)(f|frcs?|g|grads?|gradients?|d?e_?d[rx]|de/d[rx])(_|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Labels:
    """What is read from every structure of a file.

    Attributes:
        target: key of the number to predict, in the comment line or from an attached calculator.
        forces: name of the forces, ``None`` where there are none.
        units: as the structures declare them; eV and Angstrom otherwise.
    """

    target: str
    forces: str | None
    units: Units

    @classmethod
    def of(cls, structures: Sequence[Atoms], target: str | None, path: str) -> Labels:
        """Found in the first structures of a file.

        Without ``target`` it is the one energy that has a usual name. Forces are those with the
        same prefix or suffix as the energy (``REF_energy``, ``REF_forces``), or else the only ones.

        Raises:
            DataError: there is no such energy, or several; or several forces, none of which
                belongs to the energy by its name.
        """
        first = structures[0]
        target = target or _usual_energy(first, f"structure 0 of {path}")
        forces = None
        if is_total_energy(target):  # forces are the gradient of nothing else
            # a single atom often has no forces; all of a file's structures must, or none
            k = next((k for k, atoms in enumerate(structures) if len(atoms) > 1), 0)
            forces = _matching_forces(structures[k], target, f"structure {k} of {path}")
        return cls(target, forces, declared(first, f"structure 0 of {path}"))

    def number(self, atoms: Atoms, where: str) -> float:
        """The structure's target, in the unit of the file.

        Raises:
            DataError: it has none, or something else than a number under that name.
        """
        there = per_structure(atoms)
        value = there.get(self.target)
        if value is None:
            known = ", ".join(sorted(there)) or "nothing"
            raise DataError(f"{where} has no number {self.target!r} (it has: {known})")
        if np.size(value) != 1 or np.asarray(value).dtype.kind not in "iuf":
            raise DataError(
                f"{where} has {self.target}={str(value)[:40]!r}, which is not one number; write "
                f"the number alone ({self.target}=-1.5), and its unit as energy_unit=eV, or leave "
                "the structure out"
            )
        return float(np.ravel(value)[0])

    def vectors(self, atoms: Atoms, where: str) -> np.ndarray | None:
        """The structure's forces ``[N, 3]``; ``None`` in a file without forces.

        A single atom without periodic images feels no force, whether the file says so or not.

        Raises:
            DataError: some structures of the file have forces and others have not.
        """
        if not is_total_energy(self.target):
            return None
        there = forces_of(atoms)
        if self.forces is None:
            if there and len(atoms) > 1:
                raise DataError(
                    f"{where} has forces ({', '.join(there)}), but structures before it have none; "
                    "give forces to all of them or to none"
                )
            return None
        if self.forces in there:
            return there[self.forces]
        if len(atoms) == 1 and not atoms.pbc.any():
            return np.zeros((1, 3))
        raise DataError(
            f"{where} has no forces {self.forces!r}, but structures before it have; give forces to "
            "all of them or to none"
        )

    def refuse_gradients(self, atoms: Atoms, where: str) -> None:
        """Refuse what probably is forces, in a file without any.

        Raises:
            DataError: an array ``[N, 3]`` is called as gradients are.
        """
        if self.forces is not None or not is_total_energy(self.target):
            return
        for name, values in {**atoms.arrays, **_results(atoms)}.items():
            if np.shape(values) == (len(atoms), 3) and GRADIENT.search(name):
                raise DataError(
                    f"{where} has no forces, but an array {name!r}; if it holds the energy's "
                    "gradient, turn its sign and call it forces (forces = -gradient), if it holds "
                    "the forces, call it forces, or else remove it"
                )


def per_structure(atoms: Atoms) -> dict[str, Any]:
    """Numbers of the comment line and of an attached calculator."""
    return {**_results(atoms), **atoms.info}


def forces_of(atoms: Atoms) -> dict[str, np.ndarray]:
    """All arrays ``[N, 3]`` with "force" in their name."""
    arrays = {**atoms.arrays, **_results(atoms)}
    return {
        name: np.asarray(values)
        for name, values in arrays.items()
        if "force" in name.lower() and np.shape(values) == (len(atoms), 3)
    }


def declared(atoms: Atoms, where: str = "the structure") -> Units:
    """The units that a structure's comment line declares.

    Raises:
        DataError: its declarations contradict each other.
    """
    return declared_units(atoms.info, where)


def _results(atoms: Atoms) -> dict[str, Any]:
    return dict(atoms.calc.results) if atoms.calc is not None else {}


def _usual_energy(atoms: Atoms, where: str) -> str:
    there = per_structure(atoms)
    found = sorted(name for name in there if name.lower() in USUAL)
    if len(found) == 1:
        return found[0]
    has = ", ".join(found or sorted(there)) or "nothing"
    what = "more than one energy" if found else "no energy of a usual name"
    raise DataError(f"{where} has {what} (it has: {has}); choose one with data.target=KEY")


def _matching_forces(atoms: Atoms, target: str, where: str) -> str | None:
    there = forces_of(atoms)
    position = target.lower().find("energy")
    before, after = target[:position].lower(), target[position + len("energy") :].lower()
    for word in ("forces", "force"):
        matching = [name for name in there if name.lower() == before + word + after]
        if len(matching) == 1:
            return matching[0]
    if len(there) > 1:
        raise DataError(
            f"{where} has more than one array of forces ({', '.join(sorted(there))}), and none is "
            f"called as {target!r} is; rename or remove all but one"
        )
    return next(iter(there), None)
