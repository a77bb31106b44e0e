"""Dynamics with a thermostat, and with a teacher behind the network: log, summary, command."""

from __future__ import annotations

import csv
import json
import sys
from functools import partial
from types import SimpleNamespace

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.constraints import FixAtoms, FixCom
from killed_simulation import killed
from small_specialist import CountingTeacher, improvement, labelled, specialist
from trained_models import ethanol, network, trained

from egnn_prune import save
from egnn_prune.ase import SpecialistCalculator
from egnn_prune.ase.dynamics import run_dynamics
from egnn_prune.ase.simulation import simulate
from egnn_prune.ase.thermostat import Thermostat
from egnn_prune.ase.velocities import set_thermal_velocities, temperature
from egnn_prune.ase.watch_log import COLUMNS
from egnn_prune.errors import ConfigError
from egnn_prune.uncertainty import SinglePass


class Bonds(Calculator):
    """Ten atoms, all of them bonded to each other; nothing outside turns them."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012
    factor = 1.0

    def __init__(self, places: np.ndarray) -> None:
        super().__init__()
        self.lengths = self.apart(places)[1]

    def apart(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        away = places[:, None] - places[None]
        return away, (away**2).sum(-1)

    def calculate(self, atoms: Atoms, *arguments: object) -> None:
        away, squares = self.apart(atoms.positions)
        wrong = 0.1 * (squares - self.lengths)
        forces = -4 * (wrong[:, :, None] * away).sum(1)
        energy = 0.05 * float(((squares - self.lengths) ** 2).sum())
        self.results = {"energy": energy, "forces": self.factor * forces}


def cluster(kelvin: float) -> Atoms:
    atoms = Atoms("Cu10", 4 * np.random.default_rng(0).normal(size=(10, 3)))
    atoms.calc = Bonds(atoms.positions)
    set_thermal_velocities(atoms, kelvin, seed=1)
    return atoms


# ------------------------------------------------------------------------------ thermostats


@pytest.mark.parametrize("kind", ["langevin", "bussi"])
def test_the_temperature_is_held_and_follows_a_ramp(tmp_path, kind):
    def run(heat_to: float | None, steps: int) -> list[float]:
        atoms, seen = cluster(300.0), []
        hold = Thermostat(kind, 300.0, heat_to, friction=0.05, taut=20.0, seed=3)
        look = [lambda: seen.append(temperature(atoms))]
        how = {"steps": steps, "timestep": 2.0, "interval": 100, "watchers": look}
        made = run_dynamics(atoms, tmp_path / "t.xyz", **how, thermostat=hold)
        assert made.stopped is None and len(seen) == steps + 1
        assert np.abs(atoms.get_momenta().sum(0)).max() < 1e-8  # the whole does not drift
        return seen

    held = run(None, 800)
    assert np.mean(held[100:]) == pytest.approx(300.0, rel=0.1)
    assert np.std(held) == pytest.approx(300 * np.sqrt(2 / 24), rel=0.3)  # it is canonical
    heated = run(900.0, 600)
    assert np.mean(heated[:200]) == pytest.approx(400.0, rel=0.15)
    assert np.mean(heated[-200:]) == pytest.approx(800.0, rel=0.15)


def test_the_same_seed_gives_the_same_dynamics(tmp_path):
    places = []
    for seed in (1, 1, 2):
        atoms = cluster(300.0)
        hold = Thermostat("langevin", 300.0, seed=seed)
        run_dynamics(atoms, tmp_path / "t.xyz", steps=20, thermostat=hold)
        places.append(atoms.positions)
    assert np.array_equal(places[0], places[1]) and not np.allclose(places[0], places[2])


def test_what_holds_a_structure_in_space_stays():
    for kind in ("langevin", "bussi"):
        atoms = cluster(300.0)
        Thermostat(kind).integrator(atoms, 0.5)
        assert [type(c) for c in atoms.constraints] == [FixCom]
        atoms = cluster(300.0)
        atoms.set_constraint(FixAtoms([0]))
        Thermostat(kind).integrator(atoms, 0.5)
        assert [type(c) for c in atoms.constraints] == [FixAtoms]


def test_thermostats_that_cannot_be():
    for options, what in (
        (dict(kind="berendsen"), "one of langevin, bussi"),
        (dict(kelvin=0.0), "above 0 K and at most 1e5 K"),
        (dict(heat_to=-5.0), "above 0 K and at most 1e5 K"),
        (dict(heat_to=float("nan")), "above 0 K"),
        (dict(friction=0.0), "friction must be positive"),
        (dict(taut=-1.0), "taut must be positive"),
    ):
        with pytest.raises(ConfigError, match=what):
            Thermostat(**{"kind": "langevin"} | options)


def test_an_explosion_under_a_thermostat(tmp_path):
    atoms = cluster(300.0)
    atoms.calc.factor = -1.0  # whatever moves is driven on
    made = run_dynamics(atoms, tmp_path / "t.xyz", steps=2000, thermostat=Thermostat("langevin"))
    assert "exploded: it is at" in made.stopped and "thermostat at 300 K" in made.stopped
    assert made.steps < 2000


# ------------------------------------------------------------------------------ a simulation


@pytest.fixture(scope="module")
def model():
    return specialist()


@pytest.fixture
def start(tmp_path):
    ase.io.write(tmp_path / "start.xyz", ethanol(0.01, 3))
    return tmp_path / "start.xyz"


@pytest.fixture
def no_figure(monkeypatch):
    """The figure has tests of its own."""
    drawn = []

    def plot(rows, forces_threshold, title):
        from matplotlib.figure import Figure

        drawn.append((rows, forces_threshold, title))
        return Figure(figsize=(1, 1))

    name = "egnn_prune.report.run.watched_dynamics"
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(watched_dynamics_plot=plot))
    return drawn


def rows_of(path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_what_a_watched_simulation_leaves(model, start, tmp_path, no_figure):
    out, teacher = tmp_path / "md", CountingTeacher()
    calc = SpecialistCalculator(
        model, teacher, "ask", check=0.2, device="cpu", unit="eV", folder=out, seed=1
    )
    heat = Thermostat("langevin", 300.0, 6000.0, seed=1)
    report = simulate(calc, start, out, steps=60, interval=6, thermostat=heat)
    assert {p.name for p in out.iterdir()} == {
        *("trajectory.extxyz", "energies.csv", "dynamics.json", "dynamics.png"),
        *("specialist.csv", "specialist.png", "specialist.json", "collection.extxyz"),
    }
    rows = rows_of(out / "specialist.csv")
    assert tuple(rows[0]) == COLUMNS and len(rows) == 61
    assert [float(r["time_fs"]) for r in rows] == pytest.approx(np.arange(61) / 2)
    asked = [int(r["asked"]) for r in rows]
    assert asked[0] == 0 and 3 < sum(asked) < 60
    for row in rows:
        beyond = float(row["max_force_std"]) > float(row["threshold"])
        assert bool(row["reason"]) == (row["asked"] == "1") and (not beyond or row["reason"])
    facts = json.loads((out / "dynamics.json").read_text())
    found = facts["specialist"]
    assert found["asked"] == sum(asked) and found["steps"] == 61
    assert found["asked_share"] == pytest.approx(np.mean(asked))
    assert found["asked_share_last_half"] == pytest.approx(np.mean(asked[30:]))
    errors = [float(r["checked_error"]) for r in rows if r["checked_error"]]
    assert found["checks"] == len(errors) and 3 < len(errors) < 25
    assert found["check_rmse"] == pytest.approx(np.sqrt(np.mean(np.square(errors))))
    assert 0 < found["check_coverage_90"] <= 1
    assert (
        found["waiting"] == len(calc.collection) == len(ase.io.read(out / "collection.extxyz", ":"))
    )
    assert facts["drift_meV_atom_ps"] is None and facts["steps_per_second"] > 0
    assert facts["thermostat"] == "Langevin thermostat from 300 to 6000 K"
    assert f"answered {100 * np.mean(asked):.1f} % of 61 steps" in report.text()
    assert (
        "Langevin thermostat from 300 to 6000 K" in report.text()
        and "took turns" not in report.text()
    )
    ((drawn, threshold, title),) = no_figure
    assert len(drawn) == 61 and threshold == calc.forces_threshold and "C2H6O" in title
    # what the frames hold is what moved the atoms
    frames = ase.io.read(out / "trajectory.extxyz", ":")
    for k, frame in enumerate(frames):
        truth = frame.copy()
        truth.calc = CountingTeacher()
        same = np.allclose(truth.get_forces(), frame.get_forces(), atol=1e-5)
        assert same == bool(asked[6 * k])


def test_a_teacher_that_is_never_asked_is_said(model, start, tmp_path, no_figure):
    calc = SpecialistCalculator(model, CountingTeacher(), "ignore", device="cpu", unit="eV")
    report = simulate(calc, start, tmp_path / "md", steps=20, interval=5, kelvin=5000.0)
    assert 0 < report.specialist["unsure"] < 21
    share = 100 * report.specialist["unsure"] / 21
    assert f"not sure of {share:.1f} % of 21 steps; the teacher Count" in report.text()
    assert "was never asked" in report.text()


def test_at_constant_energy_switching_is_said(model, start, tmp_path, no_figure):
    calc = SpecialistCalculator(model, CountingTeacher(), "ask", device="cpu", unit="eV")
    report = simulate(calc, start, tmp_path / "md", steps=40, interval=4, kelvin=3000.0)
    assert report.specialist["switches"] > 0 and np.isfinite(report.drift_meV_atom_ps)
    assert "does not conserve energy" in report.text() and "thermostat instead" in report.text()


def test_a_teacher_that_fails_in_the_middle_leaves_frames_and_collection(
    model, start, tmp_path, no_figure
):
    out = tmp_path / "md"
    calc = SpecialistCalculator(
        *(model, CountingTeacher(fails_at=6), "ask"), device="cpu", unit="eV", folder=out
    )
    report = simulate(calc, start, out, steps=200, interval=1, kelvin=5000.0)
    assert "the teacher CountingTeacher could not compute" in report.stopped
    frames = ase.io.read(out / "trajectory.extxyz", ":")
    assert 2 <= len(frames) < 100
    kept = ase.io.read(out / "collection.extxyz", ":")
    assert len(kept) == len(calc.collection) >= 2
    assert sum(atoms.calc is None for atoms in kept) <= 1
    assert len(rows_of(out / "specialist.csv")) == len(frames)


def test_what_happened_is_on_the_disk_as_it_happens(model, start, tmp_path, no_figure):
    """A killed process writes nothing in the end."""
    out, seen = tmp_path / "md", []

    class Killed(CountingTeacher):
        def calculate(self, *arguments: object) -> None:
            if self.calls == 4:
                seen.extend((rows_of(out / "specialist.csv"), out / "trajectory.extxyz"))
                seen[1] = len(ase.io.read(seen[1], ":"))
                raise SystemExit
            super().calculate(*arguments)

    calc = SpecialistCalculator(model, Killed(), "ask", device="cpu", unit="eV", folder=out)
    with pytest.raises(SystemExit):
        simulate(calc, start, out, steps=200, interval=1, kelvin=5000.0)
    rows, frames = seen
    assert len(rows) == frames >= 3 and sum(int(row["asked"]) for row in rows) == 3
    assert len(ase.io.read(out / "trajectory.extxyz", ":")) == frames
    assert rows_of(out / "specialist.csv") == rows


def test_learning_in_a_simulation_is_in_the_log(model, start, tmp_path, no_figure):
    sure = specialist(0.6)
    calc = SpecialistCalculator(
        *(model, CountingTeacher(), "learn"),
        device="cpu",
        unit="eV",
        folder=tmp_path / "md",
        train=labelled(4, 100),
        val=labelled(4, 200),
        learn_every=2,
        improve=lambda estimator, new, *rest, **how: improvement(sure, True, len(new)),
    )
    report = simulate(calc, start, tmp_path / "md", steps=80, interval=8, kelvin=4000.0)
    rows = rows_of(tmp_path / "md/specialist.csv")
    (when,) = [k for k, row in enumerate(rows) if row["learned"] == "1"]
    assert rows[when]["asked"] == "1"
    learned = float(sure.atoms.std_limit)
    assert float(rows[when + 1]["threshold"]) == pytest.approx(learned)
    assert learned > 1.2 * float(rows[when]["threshold"])
    assert sum(int(row["asked"]) for row in rows[when + 1 :]) < len(rows[when + 1 :]) / 2
    assert report.specialist["learned"] == 2 and len(report.specialist["attempts"]) == 1
    assert "learned 2 structures; 1 of 1 networks were better" in report.text()


def test_a_thermostat_keeps_the_momenta_of_the_start(model, tmp_path):
    atoms = ethanol(0.01, 3)
    set_thermal_velocities(atoms, 450.0)
    atoms.write(tmp_path / "start.extxyz")
    calc = SpecialistCalculator(model, None, "ignore", device="cpu", unit="eV")
    hold = Thermostat("bussi", 450.0)
    report = simulate(calc, tmp_path / "start.extxyz", tmp_path / "md", steps=2, thermostat=hold)
    assert report.velocities == "of the start (450 K)"
    report = simulate(calc, tmp_path / "start.extxyz", tmp_path / "md", steps=2, kelvin=200.0)
    assert report.velocities == "drawn at 200 K"


# ------------------------------------------------------------------------------ the command


@pytest.fixture
def script(call_script):
    return partial(call_script, "molecular_dynamics")


@pytest.fixture
def places(model, start, tmp_path):
    """A run's folder, a teacher's file, a structure and where results go."""
    run = tmp_path / "run"
    run.mkdir()
    save(model, run / "specialised.safetensors", target="energy", unit="eV")
    save(SinglePass(network(seed=1)), run / "finetuned.safetensors", target="energy", unit="eV")
    return run, run / "finetuned.safetensors", start, tmp_path / "md"


def test_the_command_with_a_teacher(places, script, no_figure):
    run, teacher, start, out = places
    how = (run, start, "--out", out, "--steps", 30, "--teacher", teacher, "--on-uncertain", "ask")
    heat = ("--thermostat", "langevin", "--heat-to", 5000, "--check", 0.1)
    code, said, err = script(*how, *heat)
    assert code == 0, err
    assert "of 31 steps" in said and "Langevin thermostat from 300 to 5000 K" in said
    kept = len(ase.io.read(out / "collection.extxyz", ":"))
    code, said, err = script(*how, *heat, "--seed", 5, "--most", 500)
    assert code == 0 and len(ase.io.read(out / "collection.extxyz", ":")) >= kept


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["--on-uncertain", "ask"], "asks a teacher, and there is none; name one, such as --teach"),
        (["--teacher", "T", "--on-uncertain", "learn"], "give the folder of a run of specialise"),
        (["--teacher", "T", "--forces-threshold", 0], "--forces-threshold must be a positive"),
        (["--thermostat", "langevin", "--seed", -1], "--seed must be 0 or more"),
        (["--teacher", "T", "--learn-steps", 0], "--learn-steps needs --on-uncertain learn"),
        (["--friction", 0.1], "--friction needs --thermostat langevin, without which"),
        (["--thermostat", "langevin", "--taut", 9], "--taut needs --thermostat bussi"),
        (["--thermostat", "bussi", "--taut", 0], "--taut must be positive"),
        (["--most", 9, "--teacher", "T"], "--most needs --on-uncertain ask or learn"),
        (["--learn-every", 9], "--learn-every needs --on-uncertain learn"),
        (["--steps", 0], "--steps must be positive, not 0"),
        (["--teacher", "T", "--on-uncertain", "ask", "--most", 0], "not --most 0"),
        (["--teacher", "T", "--threshold", 0.1], "give --forces-threshold"),
        (["--teacher", "7net-9"], "there is no potential and no file '7net-9'"),
        (["--heat-to", 600], "--heat-to needs --thermostat langevin or bussi"),
        (["--thermostat", "bussi", "--temperature", 0], "above 0 K"),
        (["--teacher", "T", "--check", 2], "--check is a probability"),
    ],
)
def test_the_command_refuses_in_a_sentence(places, script, more, what):
    run, teacher, start, out = places
    more = [teacher if word == "T" else word for word in more]
    code, _, err = script(run, start, "--out", out, "--steps", 5, *more)
    assert code == 2 and what in err and "Traceback" not in err
    assert not out.exists()  # a start that fails claims no folder


def test_models_without_error_bars_and_folders_that_cannot_be_written(places, script, tmp_path):
    run, teacher, start, out = places
    save(trained(), tmp_path / "bare.safetensors", target="energy", unit="eV")
    how = ("--out", out, "--steps", 5, "--teacher", teacher, "--on-uncertain", "ask")
    code, _, err = script(tmp_path / "bare.safetensors", start, *how)
    assert code == 2 and "holds no error bars of forces" in err
    code, _, err = script(run, start, "--out", start, *how[2:])
    assert code == 2 and "is a file; choose another folder" in err


def test_a_killed_watched_simulation_goes_on(model, start, tmp_path, no_figure, monkeypatch):
    """With its random checks, the zero of the teacher's energies, and all rows of the log."""

    def run(out, kill_at=None):
        calc = SpecialistCalculator(
            model, CountingTeacher(), "ask", check=0.3, device="cpu", unit="eV", folder=out, seed=1
        )
        heat = Thermostat("langevin", 300.0, 6000.0, seed=1)
        with killed(monkeypatch, kill_at):
            simulate(calc, start, out, steps=40, interval=3, thermostat=heat)
        facts = json.loads((out / "dynamics.json").read_text())
        texts = [(out / n).read_text() for n in ("trajectory.extxyz", "energies.csv")]
        return texts, rows_of(out / "specialist.csv"), facts["specialist"]

    undisturbed = run(tmp_path / "a")
    assert 3 < undisturbed[2]["asked"] < 40
    for step in (13, 25):
        with pytest.raises(SystemExit):
            run(tmp_path / "b", step)
    assert run(tmp_path / "b") == undisturbed
