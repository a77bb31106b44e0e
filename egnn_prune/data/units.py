"""Units of energies, lengths and forces, and the one set that everything is brought to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import units

from egnn_prune.data.quantities import words
from egnn_prune.errors import DataError

#: eV in one of each unit of energy (ASE's constants, CODATA 2014).
ENERGY: dict[str, float] = {
    "eV": 1.0,
    "meV": 1e-3,
    "kcal/mol": units.kcal / units.mol,
    "kJ/mol": units.kJ / units.mol,
    "Hartree": units.Hartree,
    "Rydberg": units.Rydberg,
}
#: Angstrom in one of each unit of length.
LENGTH: dict[str, float] = {"Angstrom": 1.0, "nm": units.nm, "Bohr": units.Bohr}
#: Other spellings, in lower case.
ALIASES: dict[str, str] = {
    "ha": "Hartree",
    "eh": "Hartree",
    "hartrees": "Hartree",
    "ry": "Rydberg",
    "electronvolt": "eV",
    "kcal/mole": "kcal/mol",
    "kj/mole": "kJ/mol",
    "kcal mol^-1": "kcal/mol",
    "kcal mol-1": "kcal/mol",
    "kj mol^-1": "kJ/mol",
    "kj mol-1": "kJ/mol",
    "a": "Angstrom",
    "ang": "Angstrom",
    "angstroms": "Angstrom",
    "å": "Angstrom",  # the letter, and the sign of Angstrom, which lower() turns into it
    "nanometer": "nm",
    "a0": "Bohr",
    "bohrs": "Bohr",
    "bohr radius": "Bohr",
}
#: Keys that declare a unit, in the comment line or as arrays; in any case, see :func:`kind_of`.
DECLARATIONS: dict[str, tuple[str, ...]] = {
    "energy": ("energy_unit", "energies_unit", "e_unit", "unit_energy"),
    "length": (
        "length_unit",
        "pos_unit",
        "position_unit",
        "positions_unit",
        "r_unit",
        "unit_length",
    ),
    "forces": ("forces_unit", "force_unit", "f_unit", "unit_forces", "unit_force"),
}
#: Words of keys that declare the unit of something which is not read, or no unit at all.
UNREAD = frozenset(
    "stress stresses virial virials pressure dipole dipoles quadrupole polarizability charge "
    "charges magmom magmoms magnetic moment moments spin spins temperature time timestep mass "
    "masses momentum momenta velocity velocities volume density frequency frequencies angle "
    "angles formula asymmetric repeat id".split()
)


def kind_of(key: object) -> str | None:
    """What a key declares the unit of (``"energy"``, ``"length"``, ``"forces"``), if it does.

    ``Energy_Unit``, ``energy-units`` and ``energyUnit`` are ``energy_unit``.
    """
    return _KINDS.get(_plain(key)) if isinstance(key, str) else None


def _plain(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "").removesuffix("s")


def refuse_unknown_declarations(keys: Iterable[object], where: str) -> None:
    """Refuse keys that probably declare a unit, but are not known to: ``REF_energy_unit``.

    ``unit`` alone is known: predictions are written with the unit of their deviations.

    Raises:
        DataError: there is such a key.
    """
    for key in keys:
        if not isinstance(key, str) or kind_of(key) or key == "unit":
            continue
        said = {*words(key)}
        if (
            said & {"unit", "units"}
            and not said & UNREAD
            and "unit cell" not in " ".join(words(key))
        ):
            known = ", ".join(name for names in DECLARATIONS.values() for name in names)
            raise DataError(
                f"{where} may declare a unit by {key!r}, which is not one of {known}; rename it "
                "or remove it"
            )


_KINDS = {_plain(name): kind for kind, names in DECLARATIONS.items() for name in names}


def declared_units(
    given: Mapping[Any, object], where: str = "the structure", energy: str = "eV"
) -> Units:
    """The units that keys of a file declare, in any case; Angstrom and ``energy`` otherwise.

    Args:
        given: values by key; other keys are passed over.
        where: what is read, for messages.
        energy: the unit of energies that are not declared.

    Raises:
        DataError: a text under an unknown key may be a unit, two keys contradict each other, or
            forces are declared in another energy than
            the usual one while the unit of the energies is not declared.
    """
    texts = [key for key, value in given.items() if np.asarray(value).dtype.kind in "US"]
    refuse_unknown_declarations(texts, where)
    found: dict[str, str] = {}
    for key, value in given.items():
        kind = kind_of(key)
        if kind is None:
            continue
        if found.setdefault(kind, str(value)) != str(value):
            raise DataError(
                f"{where} declares the unit of {kind} twice, as {found[kind]} and as {value}; "
                "remove one"
            )
    if "forces" in found and "energy" not in found:
        try:
            of_energy = to_ev(_energy_and_length(found["forces"])[0])
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        if of_energy != to_ev(energy):
            raise DataError(
                f"{where} declares forces in {found['forces']}, but no unit of energies; add "
                "energy_unit=..."
            )
    return Units(**{"energy": energy, **found})


def to_ev(unit: str) -> float:
    """EV in one ``unit`` of energy, such as 0.0434 for ``"kcal/mol"``.

    Raises:
        DataError: the unit is not known; lists those that are.
    """
    return _factor(unit, ENERGY, "energy")


def to_angstrom(unit: str) -> float:
    """Angstrom in one ``unit`` of length.

    Raises:
        DataError: the unit is not known; lists those that are.
    """
    return _factor(unit, LENGTH, "length")


def to_ev_per_angstrom(unit: str) -> float:
    """eV/Angstrom in one ``unit`` of force, written as an energy over a length.

    ``"kcal/mol/Angstrom"``, ``"kcal/(mol Angstrom)"``, ``"Hartree/Bohr"`` and ``"eV/A"`` are
    understood.

    Raises:
        DataError: the unit is not known.
    """
    energy, length = _energy_and_length(unit)
    return to_ev(energy) / to_angstrom(length)


def _energy_and_length(unit: str) -> tuple[str, str]:
    plain = unit.replace("(", "").replace(")", "")
    # "kcal/mol Angstrom", "eV Angstrom^-1"
    plain = re.sub(r"\b(mole?)\s*[ *·]\s*", r"\1/", plain, flags=re.IGNORECASE)
    plain = re.sub(r"\s*[ */·]\s*([A-Za-zÅå]+0?)\s*\^?-1$", r"/\1", plain)
    energy, slash, length = plain.rpartition("/")
    if not slash:
        raise DataError(
            f"the unit of force {unit!r} is not an energy over a length (as eV/Angstrom)"
        )
    return energy, length


@dataclass(frozen=True)
class Units:
    """The units in which a file has its numbers; each is converted by itself.

    Hartree, Angstrom and Hartree/Bohr, as many programs print them, are no contradiction.

    Attributes:
        energy: a name in :data:`ENERGY`.
        length: a name in :data:`LENGTH`.
        forces: a unit of force; the energy's over the length's, unless given.
    """

    energy: str = "eV"
    length: str = "Angstrom"
    forces: str | None = None

    def factors(self, where: str) -> tuple[float, float, float]:
        """What energies, positions and forces are multiplied with to be in eV and Angstrom.

        Args:
            where: what is read, for messages.

        Raises:
            DataError: a unit is not known.
        """
        try:
            energy, length = to_ev(self.energy), to_angstrom(self.length)
            forces = energy / length if self.forces is None else to_ev_per_angstrom(self.forces)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        return energy, length, forces


def _factor(unit: str, known: dict[str, float], kind: str) -> float:
    text = " ".join(unit.split())
    if text in known:
        return known[text]
    if text.lower() in ALIASES and ALIASES[text.lower()] in known:
        return known[ALIASES[text.lower()]]
    # "mev" and "EV" mean something else to some, but there is only one unit that they can be here
    for name, factor in known.items():
        if name.lower() == text.lower():
            return factor
    raise DataError(f"the unit of {kind} {unit!r} is not one of {', '.join(known)}")
