"""What the name of a quantity says: is it an energy, does it grow with the atoms, which forces."""

from __future__ import annotations

import re
from collections.abc import Collection

#: Quantities without "energy" in their name that grow with the number of atoms; QM9's names in
#: ``_atom`` (``u0_atom``: less the energies of the free atoms) do too.
EXTENSIVE = ("u0", "u298", "h298", "g298", "zpve", "cv", "alpha")
#: Words of energies that belong to an electron, a site or a change, not to a whole structure.
INTENSIVE_WORDS = frozenset(
    "fermi homo lumo somo gap band vbm cbm orbital level hull ionization ionisation affinity "
    "excitation activation barrier adsorption surface vacancy defect chemical "
    "reorganization reorganisation work specific density eigen std sigma error "
    "uncertainty variance weight weights reaction transition vertical redox normalized "
    "normalised norm pa var err cutoff".split()
)
#: Such words that also are found glued to others: ``bandgap_energy``, ``ehull_energy``.
INTENSIVE_STEMS = ("fermi", "homo", "lumo", "gap", "hull")
#: Words of energies that are a part of the total, or less a reference: plain forces are not theirs.
PART_WORDS = frozenset(
    "dispersion vdw d2 d3 d4 formation atomization atomisation binding cohesive interaction "
    "correlation exchange xc kinetic zero zpe solvation strain coulomb electrostatic repulsion "
    "repulsive nuclear relative correction corrected gibbs helmholtz thermal kin delta difference "
    "singlet triplet".split()
)


def words(name: str) -> list[str]:
    """``"REF_totEnergyPerAtom"`` as ``["ref", "tot", "energy", "per", "atom"]``."""
    apart = re.sub(
        "energy", " energy ", name, flags=re.IGNORECASE
    )  # else HOMOenergy is HOM, Oenergy
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", apart)
    return re.findall(r"[a-z0-9]+", spaced.lower())


def is_energy(name: str) -> bool:
    """Whether a quantity of that name is an energy, by its unit."""
    return "energy" in name.lower()


def is_per_atom(name: str) -> bool:
    """Whether it is a quantity per atom (or per formula unit, per area)."""
    return "/" in name or "per" in words(name) or "peratom" in name.lower()


def is_total_energy(name: str) -> bool:
    """Whether it is an energy of a whole structure, which twice the atoms have twice of.

    Fermi levels, orbital energies, gaps, energies above the hull, energies per atom and the like
    are not; parts of the energy (dispersion) and formation energies are.
    """
    if not is_energy(name) or is_per_atom(name) or INTENSIVE_WORDS & {*words(name)}:
        return False
    return not any(stem in name.lower() for stem in INTENSIVE_STEMS)


def is_extensive(name: str) -> bool:
    """Whether a quantity of that name grows with the number of atoms."""
    if name.lower() in EXTENSIVE or is_total_energy(name):
        return True
    return name.lower().endswith("_atom") and not is_per_atom(name)


def matching_forces(target: str, there: Collection[str], energies: Collection[str]) -> str | None:
    """Which of a structure's forces are the negative gradient of an energy, by their names.

    In this order:

    1. those that have the energy's name with "forces" or "force" in the place of "energy"
       (``REF_energy`` and ``REF_forces``) or after it (``formation_energy_forces``);
    2. ``forces`` of a ``free_energy``: ASE's and VASP's forces are consistent with that one;
    3. the only ones, called ``forces`` or ``force``, if they belong to no other energy of the
       structure by their name, and the energy may be a total one by its name: those of
       ``total_energy`` or ``pbe_energy`` in a file without ``energy``. Parts of an energy and
       energies less a reference (dispersion, formation energies) are not total.

    Args:
        target: the energy.
        there: names of all arrays of forces.
        energies: names of all energies of the structure.

    Returns:
        The name of its forces; ``None`` where none are its own.
    """
    if not is_total_energy(target):
        return None
    found = [name for name in there if _named_alike(target, name)]
    if not found and "gibbs" not in words(target):
        plain = target.lower().replace("free_energy", "energy")
        found = [name for name in there if plain != target.lower() and _named_alike(plain, name)]
    if found:
        return min(found, key=len) if len(found) > 1 else found[0]
    if [name.lower() for name in there] not in (["forces"], ["force"]):
        return None
    only = next(iter(there))
    others = (other for other in energies if other != target)
    taken = any(_named_alike(other, only) for other in others)
    return None if taken or PART_WORDS & {*words(target)} else only


def _named_alike(energy: str, forces: str) -> bool:
    name = energy.lower()
    kinds = ("forces", "force")
    wanted = {name.replace("energy", kind) for kind in kinds} | {f"{name}_{kind}" for kind in kinds}
    return forces.lower() in wanted
