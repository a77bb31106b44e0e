"""Molecular dynamics at constant energy, and whether the energy was constant."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.constraints import (
    FixBondLengths,
    FixCom,
    FixInternals,
    FixLinearTriatomic,
    FixSubsetCom,
)
from ase.md.verlet import VelocityVerlet
from numpy.typing import NDArray
from tqdm import tqdm

from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.system.files import atomic

Array = NDArray[np.float64]

#: Stretches of equal length whose means the drift is fitted to.
BLOCKS = 40
#: Velocities of more kelvin (8.6 eV a degree of freedom) break every bond at once.
MAX_TEMPERATURE_K = 1e5
#: Change of the total energy in eV/atom at which a run has exploded: a thousand times what a sound
#: step leaves, and as much as it takes to pull a molecule apart.
MAX_ENERGY_DRIFT = 1.0


@dataclass(frozen=True)
class Conservation:
    """How well a trajectory conserves its energy.

    Attributes:
        drift: slope of the total energy, in meV/atom/ps.
        drift_error: its standard error.
        fluctuation: root mean square deviation from the line, in meV/atom.
    """

    drift: float
    drift_error: float
    fluctuation: float


@dataclass
class Trajectory:
    """What was recorded, one entry per frame.

    Attributes:
        rows: ``time_fs``, ``potential_eV``, ``kinetic_eV``, ``total_eV``, ``temperature_K``,
            ``uncertainty_eV`` (calibrated standard deviation) and ``epistemic_eV`` (its epistemic
            part, which thresholds are compared with); NaN where the model states none.
        seconds: wall time of the steps.
        steps: steps that were made.
        stopped: why the run ended early, or ``None``.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    steps: int = 0
    stopped: str | None = None

    def column(self, name: str) -> Array:
        """One quantity over time."""
        return np.array([row[name] for row in self.rows])


def energy_conservation(
    time_fs: Sequence[float] | Array, energy: Sequence[float] | Array, atoms: int
) -> Conservation:
    r"""Least-squares line through a total energy, :math:`E(t) = E_0 + d\,t`.

    Neighbouring frames deviate alike (velocity Verlet's error oscillates with the bonds), so a fit
    to all of them would claim too small an error. The line is fitted to the means of
    :data:`BLOCKS` stretches, each far longer than a vibration in a trajectory of picoseconds.

    Args:
        time_fs: ``[T]``, at least 4 different times.
        energy: ``[T]``, total energies in eV.
        atoms: their number.

    Returns:
        NaN throughout where an energy is not finite.

    Raises:
        ConfigError: there are fewer than 4 frames.
    """
    if not np.isfinite(energy).all():
        return Conservation(np.nan, np.nan, np.nan)
    t = np.asarray(time_fs, dtype=np.float64) / 1000.0
    y = 1000.0 * (np.asarray(energy, dtype=np.float64) - energy[0]) / atoms
    if len(t) < 4:
        raise ConfigError(
            f"an energy drift needs at least 4 frames, not {len(t)}; make more steps, or write "
            "frames more often"
        )
    blocks = np.array_split(np.arange(len(t)), min(BLOCKS, max(4, len(t) // 4)))
    x = np.array([t[b].mean() for b in blocks])
    means = np.array([y[b].mean() for b in blocks])
    centred = x - x.mean()
    slope = float(centred @ means / (centred @ centred))
    offset = means.mean() - slope * x.mean()
    rest = means - offset - slope * x
    error = float(np.sqrt((rest @ rest) / (len(blocks) - 2) / (centred @ centred)))
    fluctuation = float(np.sqrt(np.mean((y - offset - slope * t) ** 2)))
    return Conservation(slope, error, fluctuation)


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
    if not _held_in_space(atoms):
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


def _held_in_space(atoms: Atoms) -> bool:
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
    if _held_in_space(atoms):
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
        ConfigError: the temperature is negative or above :data:`HOTTEST`, the seed is negative, a
            single atom has nothing to move against, or constraints hold everything.
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


def run_nve(
    atoms: Atoms,
    path: Path,
    *,
    steps: int,
    timestep: float = 0.5,
    interval: int = 10,
    observers: Sequence[object] = (),
) -> Trajectory:
    """Velocity Verlet at constant energy; frames go to ``path`` as extended XYZ.

    Constraints of the atoms are kept (by RATTLE where they are bond lengths).

    A run that a guard stops, that fails, or that is interrupted keeps its frames. It also stops
    once the total energy is not finite or :data:`EXPLODED` away from where it started.

    Args:
        atoms: with velocities and a :class:`~egnn_prune.ase.PrunedCalculator`; moved in place.
        path: the trajectory, written atomically.
        steps: how many.
        timestep: in fs.
        interval: steps between frames.
        observers: called with no arguments at every frame, such as an
            :class:`~egnn_prune.ase.calculator.UncertaintyGuard`.

    Raises:
        ConfigError: a number is out of range.
        InputError: the very first structure cannot be computed.
    """
    for name, number in (("steps", steps), ("timestep", timestep), ("interval", interval)):
        if not 0 < number < np.inf:
            raise ConfigError(f"{name} must be positive, not {number}")
    atoms.get_potential_energy()  # what fails here leaves no file behind
    trajectory = Trajectory()
    dynamics = VelocityVerlet(atoms, timestep=timestep * units.fs)
    with (
        atomic(path) as temporary,
        temporary.open("w") as file,
        tqdm(total=steps, desc="dynamics", leave=False) as bar,
    ):

        def record() -> None:
            trajectory.rows.append(frame(atoms, dynamics.get_time() / units.fs))
            atoms.get_forces()  # for the file, where they were not asked for yet
            out = atoms.copy()
            out.info |= trajectory.rows[-1]
            out.calc = atoms.calc
            ase.io.write(file, out, format="extxyz")
            bar.update(dynamics.nsteps - bar.n)

        dynamics.attach(explosion_guard(atoms))  # before the frames, which stay finite
        dynamics.attach(record, interval=interval)
        for observer in observers:
            dynamics.attach(observer, interval=interval)
        start = time.perf_counter()
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows is stopped
                dynamics.run(steps)
        except DataError as error:  # it could be computed at the start
            trajectory.stopped = (
                f"the simulation exploded: its structure cannot be computed any more ({error}); "
                "take a shorter timestep, or a start nearer to the training data"
            )
        except InputError as error:
            trajectory.stopped = str(error)
        except KeyboardInterrupt:
            trajectory.stopped = "interrupted"
        trajectory.seconds, trajectory.steps = time.perf_counter() - start, dynamics.nsteps
    return trajectory


def explosion_guard(atoms: Atoms) -> Callable[[], None]:
    """Called after every step, it raises :class:`InputError` once energy is no longer conserved."""
    first = atoms.get_total_energy()

    def look() -> None:
        change = (atoms.get_total_energy() - first) / len(atoms)
        if not abs(change) <= MAX_ENERGY_DRIFT:  # nor NaN
            raise InputError(
                f"the simulation exploded: its total energy changed by {change:.3g} eV/atom since "
                "the start; take a shorter timestep, a start nearer to the training data, or a "
                "lower temperature"
            )

    return look


def frame(atoms: Atoms, time_fs: float) -> dict[str, float]:
    """The row of :class:`Trajectory` for the structure as it is."""
    potential, kinetic = float(atoms.get_potential_energy()), float(atoms.get_kinetic_energy())
    return {
        "time_fs": time_fs,
        "potential_eV": potential,
        "kinetic_eV": kinetic,
        "total_eV": potential + kinetic,
        "temperature_K": temperature(atoms),
        "uncertainty_eV": float(atoms.calc.results.get("energy_uncertainty", math.nan)),
        "epistemic_eV": float(atoms.calc.results.get("energy_epistemic_std", math.nan)),
    }
