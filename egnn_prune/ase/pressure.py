"""The pressure of a structure as it moves."""

from __future__ import annotations

from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError

from egnn_prune.errors import InputError

#: What is said where there is no stress.
NO_STRESS = (
    "a pressure can be held only where the model, and a teacher who answers for it, give a stress; "
    "take others, or go without a pressure"
)


def pressure_of(atoms: Atoms) -> float:
    r"""The pressure in GPa with the part of the atoms' motion, positive where they push outwards.

    .. math:: P = \frac{1}{3V} \Big(\sum_a m_a v_a^2 - V \operatorname{tr} \sigma\Big)

    Raises:
        InputError: the calculator gives no stress.
    """
    try:
        stress = atoms.get_stress()
    except PropertyNotImplementedError:
        raise InputError(NO_STRESS) from None
    kinetic = 2 * atoms.get_kinetic_energy() / (3 * atoms.get_volume())
    return float((kinetic - stress[:3].mean()) / units.GPa)
