"""Velocities without motion of the whole, and the temperature that they have."""

from __future__ import annotations

from numbers import Integral

import numpy as np
from ase import Atoms, units
from ase.constraints import (
    FixBondLengths,
    FixCom,
    FixInternals,
    FixLinearTriatomic,
    FixSubsetCom,
)
from numpy.typing import NDArray

from egnn_prune.errors import ConfigError

Array = NDArray[np.float64]

#: Velocities of more kelvin (8.6 eV a degree of freedom) break every bond at once.
MAX_TEMPERATURE_K = 1e5


def degrees_of_freedom(atoms: Atoms) -> int:
    """Those that constraints leave, without motion of the whole where nothing holds it in place.

    That is the centre of mass and, for molecules, rigid rotation: a linear molecule has two
    rotations, a periodic structure none. Atoms that are held in space hold the whole.

    Raises:
        ConfigError: a constraint does not say how many it takes away, or none are left.
    """
    inner = [c for c in atoms.constraints if not isinstance(c, FixCom)]
    try:
        left = 3 * len(atoms) - sum(int(c.get_removed_dof(atoms)) for c in inner)
    except (NotImplementedError, AttributeError):
        raise ConfigError(
            "a constraint of the structure does not say how many degrees of freedom it takes away, "
            f"so it has no temperature ({constraints_of(atoms)}); remove it"
        ) from None
    if not is_held_in_space(atoms):
        left -= 3 + _rotations(atoms)
    if left < 1:
        why = f"constraints hold all of it ({held})" if (held := constraints_of(atoms)) else ""
        raise ConfigError(
            f"nothing of the structure can move: {why or 'dynamics need at least 2 atoms'}"
        )
    return left


def constraints_of(atoms: Atoms) -> str:
    """The structure's constraints for people, ``""`` without any."""
    said = []
    for constraint in atoms.constraints:
        index = getattr(constraint, "index", None)
        number = "" if index is None else f" of {np.size(index)} atom{'s' * (np.size(index) > 1)}"
        said.append(f"{type(constraint).__name__}{number}")
    return ", ".join(said)


def _rotations(atoms: Atoms) -> int:
    if atoms.pbc.any():
        return 0
    moments = atoms.get_moments_of_inertia()
    return int((moments > 1e-6 * max(moments.max(), 1e-12)).sum())


def is_held_in_space(atoms: Atoms) -> bool:
    """Whether a constraint ties atoms to places, not only to each other."""
    among = (FixBondLengths, FixInternals, FixLinearTriatomic, FixCom)
    return any(
        isinstance(c, FixSubsetCom)
        or not (isinstance(c, among) or getattr(c, "_type", "") == "two atoms")  # a Hookean
        for c in atoms.constraints
    )


def temperature(atoms: Atoms) -> float:
    """Kinetic temperature in K over :func:`degrees_of_freedom`."""
    velocity = _without_motion_of_the_whole(atoms, atoms.get_velocities())
    kinetic = 0.5 * float((atoms.get_masses()[:, None] * velocity**2).sum())
    return 2 * kinetic / (degrees_of_freedom(atoms) * units.kB)


def _without_motion_of_the_whole(atoms: Atoms, velocity: Array) -> Array:
    """Velocities ``[N, 3]`` without drift and, for molecules, spin; as they are where held."""
    if is_held_in_space(atoms):
        return velocity
    masses = atoms.get_masses()[:, None]
    velocity = velocity - (masses * velocity).sum(0) / masses.sum()
    if atoms.pbc.any():
        return velocity
    arm = atoms.positions - atoms.get_center_of_mass()
    inertia = (masses * ((arm**2).sum(1)[:, None]))[:, :, None] * np.eye(3)
    inertia = inertia.sum(0) - np.einsum("ni,nj->ij", masses * arm, arm)
    # a linear molecule does not turn about its axis: ASE's ZeroRotation divides by zero there
    spin = np.linalg.pinv(inertia, rcond=1e-8) @ np.cross(arm, masses * velocity).sum(0)
    still: Array = velocity - np.cross(spin, arm)
    return still


def set_thermal_velocities(atoms: Atoms, kelvin: float, seed: int = 0) -> None:
    """Maxwell-Boltzmann velocities without motion of the whole, scaled to exactly ``kelvin``.

    Total momentum is zero, and so is the angular momentum of a molecule, unless constraints hold
    it in space. What is constrained does not move.

    Raises:
        ConfigError: the temperature is negative or above :data:`MAX_TEMPERATURE_K`, the seed is
            negative, a single atom has nothing to move against, or constraints hold everything.
    """
    if not 0 <= kelvin <= MAX_TEMPERATURE_K:
        raise ConfigError(f"the temperature must be at least 0 K and at most 1e5 K, not {kelvin}")
    if not isinstance(seed, Integral) or seed < 0:
        raise ConfigError(f"the seed must be a whole number of at least 0, not {seed!r}")
    degrees_of_freedom(atoms)  # there are some
    masses = atoms.get_masses()[:, None]
    # of any temperature above 0: they are scaled at the end
    velocity = np.random.default_rng(seed).normal(size=(len(atoms), 3)) / np.sqrt(masses)
    atoms.set_velocities(_without_motion_of_the_whole(atoms, velocity))  # as constraints let them
    scale = np.sqrt(kelvin / temperature(atoms))
    atoms.set_velocities(atoms.get_velocities() * scale)
