"""Which of a structure's numbers are its energy and forces, and in which unit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from egnn_prune.data.isolated import DATA, ISOLATED, UNLABELLED, is_isolated
from egnn_prune.data.quantities import is_energy, is_total_energy, matching_forces
from egnn_prune.data.units import Units, declared_units, kind_of
from egnn_prune.errors import DataError

#: What energies are called, in lower case, when nobody says which one is meant.
USUAL = ("energy", "ref_energy", "dft_energy", "totenergy", "total_energy")
#: Names of arrays that may be forces, or their negative.
GRADIENT = re.compile(r"(^|_)(f|frcs?|g|grads?|gradients?|d?e_?d[rx]|de/d[rx])(_|$)", re.IGNORECASE)

#: Names of the electronic state of a structure, in the comment line.
STATE = re.compile(r"(total_|net_)?charge|spin|multiplicity|spin_multiplicity", re.IGNORECASE)
#: Where files say what kind of structure each is, as GAP's and MACE's do, and how much is read.
TYPE, LONGEST_TYPE = "config_type", 64


def config_type(atoms: Atoms) -> str:
    """What kind of structure one is, as its file says; empty where it says nothing."""
    found = atoms.info.get(TYPE)
    return "" if found is None else " ".join(str(found).split())[:LONGEST_TYPE]


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

        Without ``target`` it is the one energy that has a usual name. Forces are those that belong
        to it by their name, see :func:`~egnn_prune.data.quantities.matching_forces`.

        Raises:
            DataError: there is no such energy, or several; or several forces, any of which could
                belong to the energy by its name.
        """
        # an isolated atom often has no forces and other numbers than the rest
        k = next((k for k, atoms in enumerate(structures) if not is_isolated(atoms)), 0)
        where = f"structure {k} of {path}"
        target = target or _usual_energy(structures[k], where)
        k = next((k for k, atoms in enumerate(structures) if len(atoms) > 1), k)
        forces = _matching_forces(structures[k], target, f"structure {k} of {path}")
        return cls(target, forces, declared(structures[0], f"structure 0 of {path}"))

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

    def kind(self, atoms: Atoms) -> int:
        """Whether a structure is data, or an isolated atom and with which energy.

        Of other quantities than energies, such as orbital energies, one atom is as good as two,
        unless it is marked.
        """
        labelled = self.target in per_structure(atoms)
        if is_isolated(atoms, unmarked=labelled and is_total_energy(self.target)):
            return ISOLATED if labelled else UNLABELLED
        return DATA

    def vectors(self, atoms: Atoms, where: str) -> np.ndarray | None:
        """The structure's forces ``[N, 3]``; ``None`` in a file without forces.

        An isolated atom feels no force, whether the file says so or not.

        Raises:
            DataError: some structures of the file have forces and others have not.
        """
        if not is_total_energy(self.target):
            return None
        there = forces_of(atoms)
        if self.forces is None:
            if len(atoms) > 1 and matching_forces(self.target, there, energies_of(atoms)):
                raise DataError(
                    f"{where} has forces ({', '.join(there)}), but structures before it have none; "
                    "give forces to all of them or to none"
                )
            return None
        if self.forces in there:
            return there[self.forces]
        if is_isolated(atoms):
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


def energies_of(atoms: Atoms) -> list[str]:
    """Names of all numbers that are energies."""
    values = per_structure(atoms)
    return [k for k, v in values.items() if is_energy(k) and np.asarray(v).dtype.kind in "iuf"]


def said_of(atoms: Atoms, labels: Labels) -> list[str]:
    """What is read from a structure, in which unit and whether that is declared, and what is not.

    Args:
        atoms: a structure that has everything which the file has.
        labels: what is read from it.
    """
    target, there = labels.target, forces_of(atoms)
    read = [f"target: {target}", f"forces: {labels.forces or 'none'}"]
    given = [name for name in atoms.info if kind_of(name)]
    how = f"declared by {', '.join(given)}" if given else "assumed, nothing is declared"
    u = labels.units
    units = f"{u.energy}, {u.length}" if is_energy(target) else u.length
    said = [f"read: {', '.join(read)}; units of the file: {units} ({how})"]
    unused = sorted(set(there) - {labels.forces})
    if unused and is_total_energy(target):
        said.append(
            f"not used: {', '.join(unused)}, which {target} has no claim to by its name (its own "
            f"are called as it is, or {target}_forces)"
        )
    elif unused:
        said.append(f"not used: {', '.join(unused)}; they are the gradient of another quantity")
    elif not there and is_total_energy(target) and (vectors := _other_vectors(atoms)):
        said.append(f"not used: {', '.join(vectors)}; if these are forces, call them forces")
    if (states := sorted(k for k in atoms.info if STATE.fullmatch(k))) and is_total_energy(target):
        said.append(
            f"not used: {', '.join(states)}; networks here know nothing of charge and spin, so all "
            "structures should have the same ones"
        )
    return said


def _other_vectors(atoms: Atoms) -> list[str]:
    known = ("positions", "momenta", "velocities", "dipoles", "magmoms")
    return [
        name
        for name, values in atoms.arrays.items()
        if name not in known and values.shape == (len(atoms), 3) and values.dtype.kind == "f"
    ]


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
        DataError: its declarations contradict each other, or one is not understood.
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
    there, energies = forces_of(atoms), energies_of(atoms)
    found = matching_forces(target, there, energies)
    if found is not None or not is_total_energy(target):
        return found
    theirs = [matching_forces(energy, there, energies) for energy in energies]
    free = sorted(name for name in there if name not in theirs)
    if len(free) > 1:
        raise DataError(
            f"{where} has more than one array of forces ({', '.join(free)}), and none is "
            f"called as {target!r} is; rename or remove all but one"
        )
    return None
