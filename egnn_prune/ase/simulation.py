"""What `egnn-prune md` does: from a model and a structure to a judged trajectory."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from egnn_prune.ase.barostat import Barostat
from egnn_prune.ase.calculator import PrunedCalculator
from egnn_prune.ase.dynamics import check_numbers, energy_conservation, run_dynamics
from egnn_prune.ase.dynamics_state import FILE, DynamicsState, fingerprint
from egnn_prune.ase.guard import UncertaintyGuard
from egnn_prune.ase.predict_file import checked_folder
from egnn_prune.ase.pressure import pressure_of
from egnn_prune.ase.specialist import SpecialistCalculator
from egnn_prune.ase.structures import read_structures
from egnn_prune.ase.thermostat import Thermostat
from egnn_prune.ase.velocities import constraints_of, set_thermal_velocities, temperature
from egnn_prune.ase.watch_log import WatchLog, said
from egnn_prune.errors import ConfigError
from egnn_prune.report.common.csv_file import write_rows
from egnn_prune.report.common.files import write_atomic
from egnn_prune.report.common.formatting import MISSING, with_error
from egnn_prune.system.files import write_json
from egnn_prune.system.growing_file import GrowingFile

#: Arrays of the first structure that a simulation keeps.
KEPT = {
    *("numbers", "positions", "masses", "momenta"),
    *("tags", "initial_charges", "initial_magmoms"),
}


@dataclass(frozen=True)
class SimulationReport:
    """A simulation in numbers, as ``dynamics.json`` has them.

    Attributes:
        formula: of the structure.
        atoms: their number.
        picoseconds: what was simulated.
        drift_meV_atom_ps: slope of the total energy; NaN after a stop with fewer than 4 frames,
            and with a thermostat, which changes it.
        drift_error_meV_atom_ps: its standard error.
        fluctuation_meV_atom: root mean square deviation from the line.
        mean_temperature_K: over the frames.
        largest_epistemic_eV: largest epistemic standard deviation of a frame; NaN where the model
            states none.
        threshold_eV: what it is compared with, or ``None``.
        beyond_threshold: share of the frames beyond it, or ``None``.
        steps_per_second: wall time, frames written.
        velocities: where the first ones come from.
        constraints: what is held, ``""`` for nothing.
        stopped: why the run ended early, or ``None``.
        thermostat: kind and temperature, ``""`` at constant energy.
        forces_threshold_eV_A: limit of the error bars of forces, or ``None`` without such.
        specialist: :meth:`egnn_prune.ase.watch_log.WatchLog.summary`, or ``None``.
        pressure_GPa: that was held, or ``None`` where the cell was constant; so are the next two.
        mean_pressure_GPa: over the frames of the last half.
        mean_volume_A3: likewise, in Angstrom^3.
    """

    formula: str
    atoms: int
    picoseconds: float
    drift_meV_atom_ps: float
    drift_error_meV_atom_ps: float
    fluctuation_meV_atom: float
    mean_temperature_K: float
    largest_epistemic_eV: float
    threshold_eV: float | None
    beyond_threshold: float | None
    steps_per_second: float
    velocities: str
    constraints: str
    stopped: str | None
    thermostat: str = ""
    forces_threshold_eV_A: float | None = None
    specialist: dict[str, Any] | None = None
    pressure_GPa: float | None = None
    mean_pressure_GPa: float | None = None
    mean_volume_A3: float | None = None

    def text(self) -> str:
        """A line for people, others where nothing watched the uncertainty or it ended early."""
        known = (
            ""
            if self.beyond_threshold is None
            else f"; beyond the uncertainty threshold {100 * self.beyond_threshold:.1f} % of it"
        )
        rms = self.fluctuation_meV_atom
        spread = MISSING if math.isnan(rms) else f"{rms:.2g} meV/atom rms"
        drift = (
            f"{self.thermostat}, "
            if self.thermostat
            else f"drift {with_error(self.drift_meV_atom_ps, self.drift_error_meV_atom_ps)} "
            f"meV/atom/ps, fluctuation {spread}, "
        )
        line = (
            f"{self.formula}: {self.picoseconds:.3g} ps at {self.mean_temperature_K:.0f} K, {drift}"
            f"{self.steps_per_second:.3g} steps/s{known}; velocities {self.velocities}"
        )
        if self.constraints:
            line += f"; held: {self.constraints}"
        if self.pressure_GPa is not None:
            line += (
                f"\nheld at {self.pressure_GPa:g} GPa; means of the last half: "
                f"{self.mean_pressure_GPa:.3g} GPa, {self.mean_volume_A3:.5g} Angstrom^3"
            )
        if self.specialist is not None:
            line = "\n".join(filter(None, (line, said(self.specialist))))
            if self.specialist["switches"] and not self.thermostat:
                line += (
                    f"\nnetwork and teacher took turns {self.specialist['switches']} times, which "
                    "does not conserve energy: the drift is also that of switching; hold the "
                    "temperature with a thermostat instead"
                )
        elif self.forces_threshold_eV_A is not None:
            pass  # these were watched
        elif math.isnan(self.largest_epistemic_eV):
            line += "\nnothing watched the simulation: the model states no uncertainty"
        elif self.threshold_eV is None:
            line += (
                "\nnothing watched for structures unlike the training data: the model's file holds "
                "no validation_epistemic_std; give a threshold in eV"
            )
        return line if not self.stopped else f"{line}\nstopped early: {self.stopped}"


def start_of(structure: Atoms) -> Atoms:
    """What a simulation takes over of a structure: its constraints and :data:`KEPT`."""
    atoms = structure.copy()
    atoms.info = {}
    for name in set(atoms.arrays) - KEPT:  # labels would be wrong beside every other frame
        del atoms.arrays[name]
    # as the constraints have it, whatever the file says
    if atoms.has("momenta"):
        atoms.set_momenta(atoms.get_momenta())
    return atoms


def _name_of(calculator: PrunedCalculator) -> str:
    """Which network answers; of one that learns on the way, its folder knows."""
    if isinstance(calculator, SpecialistCalculator):
        return "a specialist"
    source = calculator.model.source
    return str(Path(source).expanduser().resolve()) if source else ""


def simulate(
    model: str | Path | PrunedCalculator,
    structure: str | Path,
    folder: str | Path,
    *,
    steps: int = 20000,
    timestep: float = 0.5,
    kelvin: float | None = None,
    interval: int = 10,
    seed: int = 0,
    which: str = "pruned",
    threshold: float | None = None,
    on_uncertain: str = "warn",
    device: str = "auto",
    thermostat: Thermostat | None = None,
    barostat: Barostat | None = None,
) -> SimulationReport:
    """Run dynamics from the last structure of a file, and judge it.

    What was computed is on the disk as it comes. A run that was killed or interrupted goes on from
    its last save (:class:`~egnn_prune.ase.dynamics_state.DynamicsState`, every 10 s) when it is
    begun again with the same arguments.

    Args:
        model: see :class:`~egnn_prune.ase.calculator.PrunedCalculator`; or one of these, such as a
            :class:`~egnn_prune.ase.specialist.SpecialistCalculator`, for which
            ``specialist.csv`` and ``specialist.png`` are written, too.
        structure: file in any format that ASE reads; of its last structure are taken: elements
            with their masses, positions, cell, boundaries, constraints, momenta, tags, initial
            charges and magnetic moments (:data:`KEPT`), nothing else. So the last frame of a
            trajectory goes on where it ended.
        folder: gets ``trajectory.extxyz``, ``energies.csv``, ``dynamics.json``, ``dynamics.png``.
        steps: how many.
        timestep: in fs.
        kelvin: temperature of the first velocities; by default the structure's own momenta, or
            the thermostat's or 300 K where it has none.
        interval: steps between frames.
        seed: of the velocities.
        which: ``"pruned"`` or ``"dense"``, of a run's folder.
        threshold: largest epistemic standard deviation in eV; by default the model's own.
        on_uncertain: beyond the threshold ``"warn"`` (once), ``"stop"`` or ``"ignore"``.
        device: see :class:`~egnn_prune.ase.calculator.PrunedCalculator`; like ``which``,
            ``threshold`` and ``on_uncertain`` not used where ``model`` is a calculator.
        thermostat: of the temperature; without one, the energy is constant.
        barostat: of the pressure; without one, the cell is constant.

    Raises:
        ConfigError: a number is out of range, stopping was asked for without a threshold, or
            ``folder`` is a file or holds an unfinished simulation with other settings.
        InputError: model or structure cannot be used, or the disk is full.
    """
    if on_uncertain not in ("warn", "stop", "ignore"):
        raise ConfigError(f"on_uncertain must be warn, stop or ignore, not {on_uncertain!r}")
    check_numbers(steps, timestep, interval)
    folder, start = checked_folder(folder), read_structures(structure)[-1]
    atoms = start_of(start)
    made = isinstance(model, PrunedCalculator)
    calculator = (
        model
        if isinstance(model, PrunedCalculator)
        else PrunedCalculator(
            model, threshold, "ignore", device, which=which, force_uncertainty=False
        )
    )
    atoms.calc = calculator
    if barostat is not None:
        barostat.check(atoms, thermostat)
    guards = []
    if made:
        pass  # it watches itself
    elif on_uncertain == "stop" or (
        on_uncertain == "warn" and (calculator.threshold or calculator.forces_threshold)
    ):
        guards = [UncertaintyGuard(atoms, action=on_uncertain)]
    if kelvin is None and atoms.get_momenta().any():
        velocities = f"of the start ({temperature(atoms):.0f} K)"
    else:
        if kelvin is None:
            kelvin = 300.0 if thermostat is None else thermostat.kelvin
        set_thermal_velocities(atoms, kelvin, seed)
        velocities = f"drawn at {kelvin:g} K"
    held = constraints_of(atoms)
    state = DynamicsState(
        folder / FILE,
        {
            "model": _name_of(calculator),
            "start": fingerprint(start_of(start)),
            "steps": steps,
            "timestep": timestep,
            "interval": interval,
            "temperature": kelvin,
            "seed": seed,
            "thermostat": None if thermostat is None else asdict(thermostat),
            "barostat": None if barostat is None else asdict(barostat),
        },
    )
    atoms.get_potential_energy()  # a structure that cannot be used leaves no file behind
    if barostat is not None:
        pressure_of(atoms)
    with ExitStack() as stack:
        log = None
        if isinstance(calculator, SpecialistCalculator):
            size = state.size("watched")
            table = stack.enter_context(GrowingFile(folder / "specialist.csv", size))
            log = WatchLog(atoms, timestep, steps, table)
            state.files["watched"] = table
            state.parts |= {"calculator": calculator, "watched": log}
        trajectory = run_dynamics(
            atoms,
            folder / "trajectory.extxyz",
            steps=steps,
            timestep=timestep,
            interval=interval,
            observers=guards,
            watchers=[] if log is None else [log],
            thermostat=thermostat,
            barostat=barostat,
            state=state,
        )
    write_rows(trajectory.rows, folder / "energies.csv")
    epistemic_std, limit = trajectory.column("epistemic_eV"), calculator.threshold
    drift = error = fluctuation = math.nan
    how = "at constant energy" if thermostat is None else f"({thermostat.text()})"
    pressure: dict[str, float] = {}
    if barostat is not None:
        how, half = f"{how[:-1]}, {barostat.text()})", len(trajectory.rows) // 2
        pressure = {"pressure_GPa": barostat.pressure} | {
            f"mean_{name}": float(trajectory.column(name)[half:].mean())
            for name in ("pressure_GPa", "volume_A3")
        }
    title = (
        f"{atoms.get_chemical_formula()} {how}, {timestep:g} fs a step, "
        f"{trajectory.column('temperature_K').mean():.0f} K on average"
    )
    if len(trajectory.rows) >= 4 and thermostat is None:
        found = energy_conservation(
            trajectory.column("time_fs"), trajectory.column("total_eV"), len(atoms)
        )
        drift, error, fluctuation = found.drift, found.drift_error, found.fluctuation
    if len(trajectory.rows) >= 4:
        from egnn_prune.report.common.style import png_bytes  # matplotlib
        from egnn_prune.report.run.dynamics import dynamics_plot

        figure = dynamics_plot(
            trajectory.rows, len(atoms), drift, error, limit, title, pressure.get("pressure_GPa")
        )
        write_atomic(folder / "dynamics.png", png_bytes(figure))
    if log is not None:
        log.write(folder, title)
    report = SimulationReport(
        formula=atoms.get_chemical_formula(),
        atoms=len(atoms),
        picoseconds=trajectory.steps * timestep / 1000.0,
        drift_meV_atom_ps=drift,
        drift_error_meV_atom_ps=error,
        fluctuation_meV_atom=fluctuation,
        mean_temperature_K=float(trajectory.column("temperature_K").mean()),
        largest_epistemic_eV=float(epistemic_std.max()),
        threshold_eV=limit,
        beyond_threshold=None if limit is None else float((epistemic_std > limit).mean()),
        steps_per_second=trajectory.steps / trajectory.seconds if trajectory.seconds else 0.0,
        velocities=velocities,
        constraints=held,
        stopped=trajectory.stopped,
        thermostat="" if thermostat is None else thermostat.text(),
        forces_threshold_eV_A=calculator.forces_threshold,
        specialist=None if log is None else log.summary(),
        **pressure,
    )
    # JSON has no NaN
    facts = {k: None if v != v else v for k, v in asdict(report).items()}
    write_json(folder / "dynamics.json", facts)
    if not trajectory.unfinished:
        state.done()
    return report
