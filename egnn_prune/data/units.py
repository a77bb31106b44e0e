"""Units of energies, lengths and forces, and the one set that everything is brought to."""

from __future__ import annotations

from dataclasses import dataclass

from ase import units

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
    "ry": "Rydberg",
    "kcal mol^-1": "kcal/mol",
    "kj mol^-1": "kJ/mol",
    "a": "Angstrom",
    "ang": "Angstrom",
    "å": "Angstrom",
    "a0": "Bohr",
}


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
    plain = unit.replace("(", "").replace(")", "").replace("mol ", "mol/").replace("mol*", "mol/")
    energy, slash, length = plain.rpartition("/")
    if not slash:
        raise DataError(
            f"the unit of force {unit!r} is not an energy over a length (as eV/Angstrom)"
        )
    return to_ev(energy) / to_angstrom(length)


@dataclass(frozen=True)
class Units:
    """The units in which a file has its numbers.

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
            DataError: a unit is not known, or forces are in another unit than energy over length,
                so that they would not be the gradient of the energy.
        """
        try:
            energy, length = to_ev(self.energy), to_angstrom(self.length)
            forces = energy / length if self.forces is None else to_ev_per_angstrom(self.forces)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        if abs(forces * length / energy - 1) > 1e-6:
            raise DataError(
                f"{where} declares energies in {self.energy} and lengths in {self.length}, but "
                f"forces in {self.forces}; bring them to {self.energy}/{self.length}"
            )
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
