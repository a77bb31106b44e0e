"""Dynamics at constant pressure: the ensemble, going on after a kill, and what is refused."""

from __future__ import annotations

import csv
import json
import sys
from functools import partial

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.neighborlist import neighbor_list
from ase.stress import full_3x3_to_voigt_6_stress
from killed_simulation import killed
from small_specialist import CountingTeacher, specialist
from trained_models import ethanol, trained

from egnn_prune import save
from egnn_prune.ase import PrunedCalculator, SpecialistCalculator
from egnn_prune.ase.barostat import Barostat
from egnn_prune.ase.dynamics import run_dynamics
from egnn_prune.ase.pressure import pressure_of
from egnn_prune.ase.simulation import simulate
from egnn_prune.ase.thermostat import Thermostat
from egnn_prune.ase.velocities import set_thermal_velocities
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.report.run.dynamics import dynamics_plot

HOLD = Thermostat("langevin", 300.0, friction=0.05, seed=3)


class Gas(Calculator):
    """Atoms that do not see each other, in a cell that pushes on its own."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012
    own = 0.0  # GPa

    def calculate(self, atoms: Atoms, *arguments: object) -> None:
        stress = np.array([-self.own * units.GPa] * 3 + [0.0] * 3)
        self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3)), "stress": stress}


class Pairs(Calculator):
    """Lennard-Jones's energy of the pairs that are neighbours at first, about as stiff as Cu."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012
    depth, length = 0.2, 2.55

    def __init__(self, atoms: Atoms) -> None:
        super().__init__()
        self.i, self.j, self.shifts = neighbor_list("ijS", atoms, 1.2 * self.length)

    def calculate(self, atoms: Atoms, *arguments: object) -> None:
        away = atoms.positions[self.j] - atoms.positions[self.i] + self.shifts @ atoms.cell.array
        squares = (away**2).sum(1)
        six = (self.length**2 / squares) ** 3
        slope = 12 * self.depth * (six - six**2) / squares  # energy by half the square
        forces = np.zeros(atoms.positions.shape)
        np.add.at(forces, self.i, slope[:, None] * away)
        stress = np.einsum("p,pa,pb->ab", slope, away, away) / (2 * atoms.get_volume())
        self.results = {
            "energy": 0.5 * self.depth * float((six**2 - 2 * six).sum()),
            "forces": forces,
            "stress": full_3x3_to_voigt_6_stress(stress),
        }


class Silent(Gas):
    """Says nothing of stress."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms: Atoms, *arguments: object) -> None:
        super().calculate(atoms)
        del self.results["stress"]


class StressedTeacher(CountingTeacher):
    """With a stress, too."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def calculate(self, atoms: Atoms, *arguments: object) -> None:
        super().calculate(atoms, *arguments)
        self.results["stress"] = self.inner.get_stress(atoms)


def gas(count: int, pressure: float, calculator: Calculator | None = None) -> Atoms:
    """Argon at 300 K in the volume that it has on average at this pressure."""
    edge = ((count + 1) * units.kB * 300 / (pressure * units.GPa)) ** (1 / 3)
    places = edge * np.random.default_rng(0).random((count, 3))
    atoms = Atoms(f"Ar{count}", places, cell=[edge] * 3, pbc=True)
    atoms.calc = Gas() if calculator is None else calculator
    set_thermal_velocities(atoms, 300.0, seed=1)
    return atoms


def boxed() -> Atoms:
    atoms = ethanol(0.01, 3)
    atoms.set_cell([7.0, 7.5, 8.0])
    atoms.pbc = True
    return atoms


@pytest.fixture
def start(tmp_path):
    ase.io.write(tmp_path / "start.xyz", boxed())
    return tmp_path / "start.xyz"


# ------------------------------------------------------------------------------ the ensemble


def test_an_ideal_gas_has_its_volumes(tmp_path, monkeypatch):
    r"""Density :math:`V^N e^{-PV/kT}`: mean :math:`(N + 1) kT / P`; without the 1, a third less."""
    monkeypatch.setattr("egnn_prune.ase.dynamics.MAX_VOLUME_RATIO", 1e4)  # two atoms do reach it
    atoms, volumes, pressures = gas(2, 0.5), [], []
    expected = atoms.get_volume()

    def look() -> None:
        volumes.append(atoms.get_volume() / expected)
        pressures.append(pressure_of(atoms))

    made = run_dynamics(
        *(atoms, tmp_path / "t.xyz"),
        steps=4000,
        timestep=4.0,
        interval=2000,
        watchers=[look],
        thermostat=HOLD,
        barostat=Barostat(0.5, taup=60.0),
    )
    assert made.stopped is None
    assert np.mean(volumes) == pytest.approx(1.0, rel=0.15)
    assert np.std(volumes) == pytest.approx(1 / np.sqrt(3), rel=0.25)
    assert np.mean(pressures) == pytest.approx(0.5, rel=0.15)


@pytest.mark.parametrize("kind", ["pairs", pytest.param("EMT", marks=pytest.mark.slow)])
def test_a_crystal_finds_the_pressure_and_keeps_its_shape(tmp_path, kind):
    volumes = []
    for held in (0.0, 8.0):
        atoms = bulk("Cu", a=3.65, cubic=True) * (2, 2, 2)
        atoms.calc = EMT() if kind == "EMT" else Pairs(atoms)
        shape = atoms.cell.array / atoms.get_volume() ** (1 / 3)
        set_thermal_velocities(atoms, 300.0, seed=1)
        assert abs(pressure_of(atoms) - held) > 2  # what it has to find
        made = run_dynamics(
            *(atoms, tmp_path / "t.xyz"),
            steps=600,
            timestep=4.0,
            interval=5,
            thermostat=HOLD,
            barostat=Barostat(held, taup=200.0),
        )
        assert made.stopped is None
        assert made.column("pressure_GPa")[40:].mean() == pytest.approx(held, abs=0.8)
        volumes.append(made.column("volume_A3")[40:].mean())
        assert np.allclose(atoms.cell.array / atoms.get_volume() ** (1 / 3), shape, atol=1e-9)
    assert 0.9 < volumes[1] / volumes[0] < 0.97  # 8 GPa on a bulk modulus of some 134


def test_pressure_is_the_slope_of_the_energy_by_volume():
    """Positive where the structure pushes outwards, against the sign of ASE's stress."""
    atoms = boxed()
    atoms.calc = PrunedCalculator(trained("shallow", torch.float64), unit="eV")
    assert pressure_of(atoms) == pytest.approx(-atoms.get_stress()[:3].mean() / units.GPa)
    energies, volumes = [], []
    for factor in (0.9999, 1.0001):
        one = atoms.copy()
        one.set_cell(factor * atoms.cell.array, scale_atoms=True)
        one.calc = atoms.calc
        energies.append(one.get_potential_energy())
        volumes.append(one.get_volume())
    slope = -(energies[1] - energies[0]) / (volumes[1] - volumes[0]) / units.GPa
    assert pressure_of(atoms) == pytest.approx(slope, rel=1e-3)
    moved = atoms.copy()
    moved.calc = atoms.calc
    set_thermal_velocities(moved, 300.0)
    kinetic = 2 * moved.get_kinetic_energy() / 3 / moved.get_volume() / units.GPa
    assert pressure_of(moved) - pressure_of(atoms) == pytest.approx(kinetic)


@pytest.mark.parametrize(("own", "what"), [(100.0, "its volume went from"), (1e9, "e-fold")])
def test_a_runaway_cell_is_stopped(tmp_path, own, what):
    atoms = gas(2, 0.5)
    atoms.calc.own = own
    how = {"steps": 2000, "thermostat": HOLD, "barostat": Barostat(0.5, taup=100.0)}
    made = run_dynamics(atoms, tmp_path / "t.xyz", **how)
    assert "exploded" in made.stopped and what in made.stopped and made.steps < 2000


# --------------------------------------------------------------------------------- simulations


def run_killed(monkeypatch, kill_at, work) -> None:
    """Work which is :func:`killed` at a step, without its figures."""
    with killed(monkeypatch, kill_at) as patched:
        patched.setattr("egnn_prune.report.run.dynamics.dynamics_plot", lambda *_: None)
        patched.setattr("egnn_prune.report.common.style.png_bytes", lambda _: b"")
        work()


def test_a_killed_simulation_goes_on(start, tmp_path, monkeypatch):
    heat, hold = Thermostat("langevin", 300.0, 500.0, seed=3), Barostat(0.5, taup=20.0)

    def run(out, kill_at=None, barostat=hold):
        calc = PrunedCalculator(trained("shallow", torch.float64), None, "ignore", "cpu", unit="eV")
        how = {"steps": 24, "interval": 3, "thermostat": heat, "barostat": barostat}
        run_killed(monkeypatch, kill_at, lambda: simulate(calc, start, out, **how))
        texts = [(out / n).read_text() for n in ("trajectory.extxyz", "energies.csv")]
        facts = json.loads((out / "dynamics.json").read_text())
        return texts, facts["mean_volume_A3"], facts["mean_pressure_GPa"]

    undisturbed = run(tmp_path / "a")
    for step in (9, 22):
        with pytest.raises(SystemExit):
            run(tmp_path / "b", step)
    with pytest.raises(ConfigError, match=r"with other settings \(barostat .*0.5"):
        run(tmp_path / "b", barostat=Barostat(0.6))
    assert run(tmp_path / "b") == undisturbed
    rows = list(csv.DictReader(undisturbed[0][1].splitlines()))
    volumes = [float(row["volume_A3"]) for row in rows]
    assert len(rows) == 9 and volumes[0] == pytest.approx(7 * 7.5 * 8) and np.ptp(volumes) > 0.1


def test_a_killed_watched_simulation_goes_on(start, tmp_path, monkeypatch):
    """Forces and stress of the step that was saved may be the teacher's."""
    model = specialist()

    def run(out, kill_at=None):
        calc = SpecialistCalculator(
            *(model, StressedTeacher(), "ask"),
            check=0.2,
            device="cpu",
            unit="eV",
            folder=out,
            seed=1,
        )
        heat = Thermostat("langevin", 300.0, 6000.0, seed=1)
        how = {"steps": 32, "interval": 3, "thermostat": heat, "barostat": Barostat(1.0, 30.0)}
        run_killed(monkeypatch, kill_at, lambda: simulate(calc, start, out, **how))
        names = ("trajectory.extxyz", "energies.csv", "specialist.csv")
        asked = json.loads((out / "dynamics.json").read_text())["specialist"]["asked"]
        return [(out / n).read_text() for n in names], asked

    undisturbed = run(tmp_path / "a")
    assert 3 < undisturbed[1] < 32
    for step in (13, 25):
        with pytest.raises(SystemExit):
            run(tmp_path / "b", step)
    assert run(tmp_path / "b") == undisturbed


def test_what_the_command_leaves(start, tmp_path, call_script):
    model, out = tmp_path / "model.safetensors", tmp_path / "md"
    save(trained("shallow", torch.float64), model, target="energy", unit="eV")
    script = partial(call_script, "molecular_dynamics", model)
    how = ("--steps", 12, "--interval", 3, "--thermostat", "langevin", "--taup", 50)
    code, said, err = script(start, "--out", out, *how, "--pressure", -0.5, "--heat-to", 400)
    assert code == 0, err
    facts = json.loads((out / "dynamics.json").read_text())
    with (out / "energies.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("pressure_GPa", "volume_A3"):
        last = np.mean([float(row[name]) for row in rows[2:]])
        assert facts[f"mean_{name}"] == pytest.approx(last)
    assert facts["pressure_GPa"] == -0.5 and len(rows) == 5
    assert f"held at -0.5 GPa; means of the last half: {facts['mean_pressure_GPa']:.3g} GPa" in said
    frames = ase.io.read(out / "trajectory.extxyz", ":")
    assert [f.get_volume() for f in frames] == pytest.approx([float(r["volume_A3"]) for r in rows])
    assert (out / "dynamics.png").stat().st_size > 1000
    # the guard watches it, too
    stop = ("--on-uncertain", "stop", "--threshold", 1e-9, "--pressure", 1)
    code, said, err = script(start, "--out", tmp_path / "stopped", *how, *stop)
    assert code == 1 and "stopped early" in said
    # without a pressure, nothing of it
    code, said, err = script(start, "--out", out, *how[:4])
    assert code == 0 and "GPa" not in said + (out / "energies.csv").read_text()
    assert json.loads((out / "dynamics.json").read_text())["mean_volume_A3"] is None


@pytest.mark.parametrize("epistemic", [0.02, float("nan")])
def test_the_figure_shows_volume_and_pressure(epistemic):
    names = ("time_fs", "potential_eV", "kinetic_eV", "total_eV")
    rows = [
        dict.fromkeys(names, float(i))
        | {"epistemic_eV": epistemic, "volume_A3": 90.0 + i, "pressure_GPa": 2.0 - i}
        for i in range(9)
    ]
    figure = dynamics_plot(rows, 9, float("nan"), float("nan"), pressure=1.5)
    assert len(figure.axes) == (5 if epistemic == epistemic else 4)
    volume, pressure = figure.axes[2:4]
    assert volume.get_lines()[0].get_ydata()[-1] == 98 and "Å³" in volume.get_ylabel()
    assert pressure.get_lines()[0].get_ydata()[-1] == -6 and "GPa" in pressure.get_ylabel()
    assert pressure.get_lines()[1].get_ydata()[0] == 1.5
    assert figure.axes[-1].get_xlabel() == "time (ps)"


# -------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["--pressure", 1], "--pressure needs --thermostat langevin"),
        (["--pressure", 1, "--thermostat", "bussi"], "--pressure needs --thermostat langevin"),
        (["--taup", 9], "--taup needs --pressure"),
        (["--pressure", "nan", "--thermostat", "langevin"], "--pressure must be a number of GPa"),
        (["--pressure", 1, "--taup", 0, "--thermostat", "langevin"], "--taup must be positive"),
        (["--pressure", 1, "--thermostat", "langevin"], "this one is so in 0"),
    ],
)
def test_the_command_refuses_in_a_sentence(tmp_path, call_script, more, what):
    model, start, out = tmp_path / "m.safetensors", tmp_path / "start.xyz", tmp_path / "md"
    save(trained("shallow"), model, target="energy", unit="eV")
    ase.io.write(start, ethanol())
    code, _, err = call_script("molecular_dynamics", model, start, "--out", out, *more)
    assert code == 2 and what in err and "Traceback" not in err
    assert not out.exists()


def test_structures_and_calculators_without_a_pressure(tmp_path, monkeypatch):
    def refused(atoms: Atoms, thermostat: Thermostat | None = HOLD) -> str:
        with pytest.raises((ConfigError, InputError)) as error:
            how = {"steps": 5, "thermostat": thermostat, "barostat": Barostat(1.0)}
            run_dynamics(atoms, tmp_path / "t.xyz", **how)
        assert not (tmp_path / "t.xyz").exists()
        return str(error.value)

    slab = gas(2, 0.5)
    slab.pbc = (True, True, False)
    assert "periodic in three directions; this one is so in 2" in refused(slab)
    held = gas(3, 0.5)
    held.set_constraint(FixAtoms([0]))
    assert "constraints (FixAtoms of 1 atom)" in refused(held)
    assert "give a stress; take others" in refused(gas(2, 0.5, Silent()))
    for thermostat in (None, Thermostat("bussi")):
        assert "Langevin's thermostat only" in refused(gas(2, 0.5), thermostat)
    monkeypatch.setitem(sys.modules, "ase.md.langevinbaoab", None)
    assert "needs ASE 3.27 or newer" in refused(gas(2, 0.5))


def test_a_teacher_without_a_stress(start, tmp_path):
    """It is refused where it answers, not where it only checks; nothing is left behind."""
    model, out = specialist(), tmp_path / "md"
    how = {"steps": 2, "thermostat": HOLD, "barostat": Barostat(1.0)}

    def calc(action: str) -> SpecialistCalculator:
        more = {"device": "cpu", "unit": "eV", "folder": out}
        return SpecialistCalculator(model, CountingTeacher(), action, **more)

    with pytest.raises(InputError, match="a teacher who answers for it, give a stress"):
        simulate(calc("ask"), start, out, **how)
    assert not out.exists()
    assert simulate(calc("ignore"), start, out, **how).stopped is None


def test_a_teacher_that_promised_a_stress_ends_the_run_in_a_sentence(start, tmp_path):
    class Liar(CountingTeacher):
        implemented_properties = StressedTeacher.implemented_properties

    calc = SpecialistCalculator(specialist(), Liar(), "ask", device="cpu", unit="eV")
    heat = Thermostat("langevin", 300.0, 6000.0, seed=1)
    how = {"steps": 40, "thermostat": heat, "barostat": Barostat(1.0, 30.0)}
    report = simulate(calc, start, tmp_path / "md", **how)
    assert "give a stress; take others" in report.stopped


def test_nothing_is_computed_before_a_state_is_restored():
    """Else a watched structure would be decided on twice, once with the draws of another step."""
    atoms, calls = gas(2, 0.5), []
    atoms.calc.calculate = lambda *arguments: calls.append(arguments)
    dynamics = Barostat(0.5).integrator(atoms, 1.0, HOLD)
    state = {"p_eps": 0.25, "force_eps": -1.5, "accelerations": [[0.5, 0.0, 1.0]] * 2}
    dynamics.set_state(state)
    assert dynamics.state() == state and not calls
    with pytest.raises(ValueError, match="of other atoms"):
        dynamics.set_state(state | {"accelerations": [[0.0] * 3]})
