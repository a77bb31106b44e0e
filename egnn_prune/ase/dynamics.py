"""Molecular dynamics at constant energy, temperature or pressure; was the energy constant?"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from numpy.typing import NDArray
from tqdm import tqdm

from egnn_prune.ase.barostat import Barostat
from egnn_prune.ase.calculator import UncertaintyExceeded
from egnn_prune.ase.dynamics_state import DynamicsState, row_text, rows_of
from egnn_prune.ase.pressure import pressure_of
from egnn_prune.ase.thermostat import Thermostat
from egnn_prune.ase.velocities import temperature
from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.system.ending import asked_to_end
from egnn_prune.system.growing_file import GrowingFile

Array = NDArray[np.float64]

#: Stretches of equal length whose means the drift is fitted to.
BLOCKS = 40
#: Change of the total energy in eV/atom at which a run has exploded: a thousand times what a sound
#: step leaves, and as much as it takes to pull a molecule apart.
MAX_ENERGY_DRIFT = 1.0
#: A run hotter than so many times its thermostat, and so many kelvin, has exploded: two atoms stay
#: below the first at five sigma, and a strained start releases the second.
HOTTER, SPARE_K = 4.0, 1000.0
#: A volume so many times larger or smaller than at the start is that of a runaway cell.
MAX_VOLUME_RATIO = 10.0


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
            part, which thresholds are compared with); NaN where the model states none. With a
            barostat also ``volume_A3`` and ``pressure_GPa``, see
            :func:`~egnn_prune.ase.pressure.pressure_of`.
        seconds: wall time of the steps.
        steps: steps that were made.
        stopped: why the run ended early, or ``None``.
        unfinished: whether it may go on: it was interrupted, or the teacher failed.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    steps: int = 0
    stopped: str | None = None
    unfinished: bool = False

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


def run_nve(
    atoms: Atoms,
    path: Path,
    *,
    steps: int,
    timestep: float = 0.5,
    interval: int = 10,
    observers: Sequence[Callable[[], object]] = (),
) -> Trajectory:
    """Velocity Verlet at constant energy: :func:`run_dynamics` without a thermostat."""
    how: dict[str, Any] = {"steps": steps, "timestep": timestep, "interval": interval}
    return run_dynamics(atoms, path, **how, observers=observers)


def run_dynamics(
    atoms: Atoms,
    path: Path,
    *,
    steps: int,
    timestep: float = 0.5,
    interval: int = 10,
    observers: Sequence[Callable[[], object]] = (),
    watchers: Sequence[Callable[[], object]] = (),
    thermostat: Thermostat | None = None,
    barostat: Barostat | None = None,
    state: DynamicsState | None = None,
) -> Trajectory:
    """Velocity Verlet, or thermostat and barostat; frames go to ``path`` as extended XYZ.

    Constraints of the atoms are kept (by RATTLE where they are bond lengths).

    A run that a guard stops, that fails, that is interrupted or killed keeps its frames, all whole.
    It also stops once it has exploded, see :func:`explosion_guard`; and, after the present step,
    when the process is asked to end (Ctrl-C, SIGTERM, SIGHUP).

    Args:
        atoms: with velocities and a :class:`~egnn_prune.ase.PrunedCalculator`; moved in place.
        path: the trajectory, on the disk frame by frame.
        steps: how many.
        timestep: in fs.
        interval: steps between frames.
        observers: called with no arguments at every frame, such as an
            :class:`~egnn_prune.ase.UncertaintyGuard`.
        watchers: called at every step, the start included.
        thermostat: of the temperature; without one, the energy is constant.
        barostat: of the pressure; without one, the cell is constant.
        state: what the run goes on from, and where its state is saved; the rows of the trajectory
            then grow on the disk, too, in ``energies.csv`` beside ``path``.

    Raises:
        ConfigError: a number is out of range, or the barostat has no thermostat that goes with it.
        InputError: the very first structure cannot be computed or has no pressure that could be
            held, or the disk is full.
    """
    check_numbers(steps, timestep, interval)
    if barostat is not None:
        barostat.check(atoms, thermostat)
    trajectory = Trajectory()
    if state is not None:
        state.place(atoms)
    if thermostat is None:
        dynamics: Any = VelocityVerlet(atoms, timestep=timestep * units.fs)
    elif barostat is None:
        dynamics = thermostat.integrator(atoms, timestep)
    else:
        dynamics = barostat.integrator(atoms, timestep, thermostat)
        if state is not None:
            state.parts["barostat"] = dynamics
    if state is not None:
        state.resume(dynamics)
        if thermostat is not None:
            thermostat.hold(dynamics, dynamics.nsteps / steps)
    atoms.get_potential_energy()  # what fails here leaves no file behind
    if barostat is not None:
        pressure_of(atoms)
    with (
        ExitStack() as stack,
        asked_to_end() as asked,
        tqdm(total=steps, initial=dynamics.nsteps, desc="dynamics", leave=False) as bar,
    ):
        file = stack.enter_context(GrowingFile(path, state.size("frames") if state else 0))
        table: GrowingFile | None = None
        if state is not None:
            place = path.with_name("energies.csv")
            table = stack.enter_context(GrowingFile(place, state.size("rows")))
            state.files |= {"frames": file, "rows": table}
            if state.resumed:
                trajectory.rows = rows_of(place)

        def record() -> None:
            row = frame(atoms, dynamics.get_time() / units.fs)
            if barostat is not None:
                row |= {"volume_A3": atoms.get_volume(), "pressure_GPa": pressure_of(atoms)}
            atoms.get_forces()  # for the file, where they were not asked for yet
            out = atoms.copy()
            out.info |= row
            out.calc = atoms.calc
            text = io.StringIO()
            ase.io.write(text, out, format="extxyz")
            file.write(text.getvalue())
            if table is not None:
                table.write(row_text(row, heading=not trajectory.rows))
            trajectory.rows.append(row)
            bar.update(dynamics.nsteps - bar.n)

        def target() -> float:
            assert thermostat is not None
            share = dynamics.nsteps / steps
            thermostat.hold(dynamics, share)
            return thermostat.at(share)

        first = trajectory.rows[0]["total_eV"] if trajectory.rows else None
        guard = explosion_guard(atoms, None if thermostat is None else target, first)
        dynamics.attach(guard)  # before the frames, which stay finite
        if barostat is not None:
            begun = trajectory.rows[0]["volume_A3"] if trajectory.rows else atoms.get_volume()
            dynamics.attach(lambda: refuse_runaway(atoms.get_volume(), begun))
        for watcher in watchers:
            dynamics.attach(watcher)
        dynamics.attach(record, interval=interval)
        for observer in observers:
            dynamics.attach(observer, interval=interval)
        start = time.perf_counter()
        moving = dynamics.irun(steps - dynamics.nsteps)
        while trajectory.stopped is None:
            try:
                with np.errstate(over="ignore", invalid="ignore"):  # what overflows is stopped
                    if next(moving, None) is None:
                        break
            except DataError as error:  # it could be computed at the start
                trajectory.stopped = (
                    f"the simulation exploded: its structure cannot be computed any more ({error});"
                    " take a shorter timestep, or a start nearer to the training data"
                )
            except InputError as error:
                trajectory.stopped = str(error)
                ended = isinstance(error, (Exploded, UncertaintyExceeded))
                trajectory.unfinished = not ended  # a teacher may answer next time
            except KeyboardInterrupt:  # in the middle of a step
                trajectory.stopped, trajectory.unfinished = "interrupted", True
            else:
                seconds = time.perf_counter() - start
                if asked() and dynamics.nsteps < steps:
                    trajectory.stopped, trajectory.unfinished = "interrupted", True
                    if state is not None:
                        state.save(atoms, dynamics, seconds)
                elif state is not None:
                    state.save_when_due(atoms, dynamics, seconds)
        trajectory.seconds, trajectory.steps = time.perf_counter() - start, dynamics.nsteps
        if state is not None:
            trajectory.seconds += state.seconds
    return trajectory


def check_numbers(steps: int, timestep: float, interval: int) -> None:
    """Refuse what cannot be the length of a simulation.

    Raises:
        ConfigError: a number is not positive.
    """
    for name, number in (("steps", steps), ("timestep", timestep), ("interval", interval)):
        if not 0 < number < np.inf:
            raise ConfigError(f"{name} must be positive, not {number}")


class Exploded(InputError):
    """A simulation left what can be simulated."""


def explosion_guard(
    atoms: Atoms, target: Callable[[], float] | None = None, first: float | None = None
) -> Callable[[], None]:
    """Called after every step, it raises :class:`Exploded` once the run has exploded.

    At constant energy that is a total energy which is not finite or :data:`MAX_ENERGY_DRIFT` away
    from where it started; with a thermostat, which changes it, a temperature that is not finite or
    above :data:`HOTTER` times the thermostat's and :data:`SPARE_K`.

    Args:
        atoms: that move.
        target: says the thermostat's temperature in K at this step.
        first: total energy in eV of a start that is past; by default that of the atoms as they are.
    """
    begun = atoms.get_total_energy() if first is None else first

    def look() -> None:
        change = (atoms.get_total_energy() - begun) / len(atoms)
        if target is not None:
            kelvin, wanted = temperature(atoms), target()
            if not (kelvin < HOTTER * wanted + SPARE_K and abs(change) < np.inf):
                raise Exploded(
                    f"the simulation exploded: it is at {kelvin:.3g} K, with a thermostat at "
                    f"{wanted:.0f} K; take a shorter timestep, a start nearer to the training "
                    "data, or a lower temperature"
                )
        elif not abs(change) <= MAX_ENERGY_DRIFT:  # nor NaN
            raise Exploded(
                f"the simulation exploded: its total energy changed by {change:.3g} eV/atom since "
                "the start; take a shorter timestep, a start nearer to the training data, or a "
                "lower temperature"
            )

    return look


def refuse_runaway(volume: float, first: float) -> None:
    """Raise :class:`Exploded` where a volume is :data:`MAX_VOLUME_RATIO` times off the first."""
    if not 1 / MAX_VOLUME_RATIO < volume / first < MAX_VOLUME_RATIO:
        raise Exploded(
            f"the simulation exploded: its volume went from {first:.4g} to {volume:.4g} "
            "Angstrom^3; take another pressure, a longer taup, or a start nearer to the training "
            "data"
        )


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
