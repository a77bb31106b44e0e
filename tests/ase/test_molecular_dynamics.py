"""Dynamics with the calculator: energy is conserved, and a drift would be seen."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.constraints import (
    FixAtoms,
    FixBondLength,
    FixBondLengths,
    FixCartesian,
    FixCom,
    FixedPlane,
    FixScaled,
    Hookean,
    MirrorForce,
)
from trained_models import ethanol, trained

from egnn_prune import data, save
from egnn_prune.ase.calculator import PrunedCalculator
from egnn_prune.ase.dynamics import energy_conservation, run_nve
from egnn_prune.ase.simulation import simulate
from egnn_prune.ase.velocities import degrees_of_freedom, set_thermal_velocities, temperature
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.report.common.formatting import with_error
from egnn_prune.report.run.dynamics import dynamics_plot

ROOT = Path(__file__).parents[2]


def crystal() -> Atoms:
    return Atoms("CO", positions=[[0, 0, 0], [1.2, 1.4, 1.3]], cell=[3, 3.2, 3.4], pbc=True)


# ------------------------------------------------------------------------------- velocities


@pytest.mark.parametrize(
    ("atoms", "freedom"),
    [(ethanol(), 21), (molecule("CO2"), 4), (molecule("H2"), 1), (crystal(), 3)],
    ids=["molecule", "linear", "two atoms", "crystal"],
)
def test_velocities_without_motion_of_the_whole(atoms, freedom):
    assert degrees_of_freedom(atoms) == freedom
    atoms = atoms.copy()
    atoms.rotate(40, (1, 2, 3))  # no axis of a linear molecule along x, y or z
    set_thermal_velocities(atoms, 300.0, seed=1)
    scale = np.abs(atoms.get_momenta()).max()
    assert np.abs(atoms.get_momenta().sum(0)).max() < 1e-10 * scale
    if not atoms.pbc.any():
        assert np.abs(atoms.get_angular_momentum()).max() < 1e-8 * scale
    assert temperature(atoms) == pytest.approx(300.0)
    again = atoms.copy()
    set_thermal_velocities(again, 300.0, seed=1)
    assert np.array_equal(again.get_velocities(), atoms.get_velocities())
    set_thermal_velocities(again, 300.0, seed=2)
    assert not np.allclose(again.get_velocities(), atoms.get_velocities()) or freedom == 1


def test_velocities_that_cannot_be():
    with pytest.raises(ConfigError, match="at least 2 atoms"):
        set_thermal_velocities(Atoms("H"), 300.0)
    for kelvin in (-1.0, float("nan"), 1e9, float("inf")):
        with pytest.raises(ConfigError, match="at least 0 K and at most 1e5 K"):
            set_thermal_velocities(ethanol(), kelvin)
    for seed in (-1, 0.5):
        with pytest.raises(ConfigError, match="seed must be a whole number"):
            set_thermal_velocities(ethanol(), 300.0, seed)
    atoms = ethanol()
    set_thermal_velocities(atoms, 0.0)
    assert np.abs(atoms.get_velocities()).max() == 0


# ---------------------------------------------------------------------------------- the drift


def test_the_drift_of_a_straight_line():
    time = np.arange(0.0, 2000.0, 5.0)  # fs
    energy = -4000.0 + 9 * (0.7e-3 * time / 1000.0)  # 0.7 meV/atom/ps for 9 atoms, in eV
    found = energy_conservation(time, energy, 9)
    assert found.drift == pytest.approx(0.7, rel=1e-6)
    assert found.drift_error < 1e-6 and found.fluctuation < 1e-6
    assert energy_conservation(time, energy, 18).drift == pytest.approx(0.35, rel=1e-6)


def test_the_standard_error_is_true_of_frames_that_follow_each_other():
    """Noise with a memory of 10 frames: a fit to all frames claims a third of the error."""
    rng, time, drifts, errors = np.random.default_rng(0), np.arange(0.0, 10000.0, 5.0), [], []
    for _ in range(200):
        noise = np.convolve(rng.normal(size=len(time) + 9), np.ones(10) / 10, "valid")
        found = energy_conservation(time, 1e-3 * noise, 1)
        drifts.append(found.drift)
        errors.append(found.drift_error)
    assert np.std(drifts) == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=0.2)
    assert np.abs(np.mean(drifts)) < 3 * np.std(drifts) / np.sqrt(200)
    assert found.fluctuation == pytest.approx(1 / np.sqrt(10), rel=0.1)


def test_too_few_frames_for_a_drift():
    with pytest.raises(ConfigError, match="at least 4 frames, not 3"):
        energy_conservation([0, 1, 2], [0, 0, 0], 1)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_energies_that_are_not_finite_have_no_drift(bad):
    found = energy_conservation(np.arange(8.0), [0.0] * 7 + [bad], 1)
    assert with_error(found.drift, found.drift_error) == "n/a"


# -------------------------------------------------------------------------------- dynamics


def moving(kind: str, dtype: torch.dtype, kelvin: float = 500.0) -> Atoms:
    atoms = ethanol()
    atoms.calc = PrunedCalculator(trained(kind, dtype), unit="eV", force_uncertainty=False)
    set_thermal_velocities(atoms, kelvin)
    return atoms


@pytest.mark.parametrize("kind", ["read-out dropout", "irreps"])
def test_an_untrained_network_conserves_energy(tmp_path, dtype, kind):
    made = run_nve(moving(kind, dtype), tmp_path / "t.extxyz", steps=60, interval=2)
    total, potential = made.column("total_eV"), made.column("potential_eV")
    assert made.steps == 60 and len(made.rows) == 31 and made.stopped is None
    assert np.ptp(potential) > 1e-4  # something does happen
    assert np.ptp(total) < 5e-3 * np.ptp(potential)
    found = energy_conservation(made.column("time_fs"), total, 9)
    assert abs(found.drift) < 1.0  # meV/atom/ps


def test_the_error_is_the_integrators(tmp_path):
    """Velocity Verlet's energy error falls with the square of the step, if forces are exact."""
    spread = []
    for timestep, steps in ((1.0, 20), (0.5, 40)):
        atoms = moving("shallow", torch.float64, 2000.0)
        made = run_nve(atoms, tmp_path / "t.extxyz", steps=steps, timestep=timestep, interval=1)
        spread.append(np.ptp(made.column("total_eV")))
    assert spread[0] / spread[1] == pytest.approx(4.0, rel=0.15)


def test_wrong_forces_would_be_seen(tmp_path, monkeypatch):
    compute = PrunedCalculator.calculate

    def wrong(self, *arguments: object) -> None:
        compute(self, *arguments)
        if "forces" in self.results:
            self.results["forces"] = 0.9 * self.results["forces"]

    monkeypatch.setattr(PrunedCalculator, "calculate", wrong)
    atoms = moving("read-out dropout", torch.float64)
    made = run_nve(atoms, tmp_path / "t.extxyz", steps=30, interval=2)
    assert np.ptp(made.column("total_eV")) > 0.05 * np.ptp(made.column("potential_eV"))


@pytest.mark.parametrize("factor", [1e4, 1e160], ids=["finite", "overflow"])
def test_an_explosion_is_a_stop(places, monkeypatch, script, factor):
    compute = PrunedCalculator.calculate

    def wrong(self, *arguments: object) -> None:
        compute(self, *arguments)
        if "forces" in self.results:
            self.results["forces"] = factor * self.results["forces"]

    monkeypatch.setattr(PrunedCalculator, "calculate", wrong)
    run, start, out = places
    code, said, _ = script(run, start, "--out", out, "--steps", 60, "--interval", 1)
    what = "total energy" if factor < 1e100 else "structure cannot be computed"
    assert code == 1 and f"stopped early: the simulation exploded: its {what}" in said
    assert "± 0.0" not in said and "nan" not in said
    facts = json.loads((out / "dynamics.json").read_text())
    assert "exploded" in facts["stopped"] and facts["picoseconds"] < 0.03
    frames = ase.io.read(out / "trajectory.extxyz", ":")
    assert frames and all(np.isfinite(a.get_potential_energy()) for a in frames)


def test_numbers_out_of_range(tmp_path):
    atoms = moving("shallow", torch.float32)
    for wrong in ({"steps": 0}, {"steps": 5, "timestep": -1.0}, {"steps": 5, "interval": 0}):
        with pytest.raises(ConfigError, match="must be positive"):
            run_nve(atoms, tmp_path / "t.extxyz", **wrong)
    atoms.numbers[0] = 9
    with pytest.raises(InputError, match="element F"):
        run_nve(atoms, tmp_path / "t.extxyz", steps=5)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_run_keeps_its_frames(tmp_path):
    atoms, calls = moving("shallow", torch.float32), []

    def interrupt() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    made = run_nve(atoms, tmp_path / "t.extxyz", steps=50, interval=5, observers=[interrupt])
    assert made.stopped == "interrupted" and made.steps == 10
    assert len(ase.io.read(tmp_path / "t.extxyz", ":")) == len(made.rows) == 3


# ----------------------------------------------------------------- constraints and momenta


def slab() -> Atoms:
    """A crystal of C and O whose lower half is held."""
    atoms = crystal().repeat((2, 1, 1))
    atoms.set_constraint(FixAtoms(indices=[0, 1]))
    return atoms


@pytest.mark.parametrize(
    ("atoms", "constraint", "freedom"),
    [
        (slab(), FixAtoms([0, 1]), 6),
        (ethanol(), FixAtoms([0]), 24),
        (ethanol(), FixCartesian([0], [True, False, False]), 26),
        (ethanol(), FixedPlane([0, 1], (0, 0, 1)), 25),
        (ethanol(), FixScaled([0], [True, True, True]), 24),
        (ethanol(), FixBondLength(2, 3), 20),
        (ethanol(), FixBondLengths([[0, 1], [2, 3]]), 19),
        (ethanol(), FixCom(), 21),
        (ethanol(), Hookean(2, 3, 1.0, 1.1), 21),
        (ethanol(), Hookean(2, (0.0, 0.0, 0.0), 1.0, 1.1), 27),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, int) else str(value),
)
def test_velocities_under_constraints(atoms, constraint, freedom):
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell if atoms.pbc.any() else 10 * np.eye(3))
    atoms.set_constraint(constraint)
    assert degrees_of_freedom(atoms) == freedom
    set_thermal_velocities(atoms, 300.0, seed=1)
    assert temperature(atoms) == pytest.approx(300.0)
    assert 2 * atoms.get_kinetic_energy() == pytest.approx(freedom * units.kB * 300.0)
    before = atoms.get_momenta()
    atoms.set_momenta(before)  # constraints leave them as they are
    assert np.allclose(atoms.get_momenta(), before, atol=1e-9)


def test_nothing_that_can_move():
    atoms = slab()
    atoms.set_constraint(FixAtoms(range(len(atoms))))
    with pytest.raises(ConfigError, match=r"constraints hold all of it \(FixAtoms of 4 atoms\)"):
        set_thermal_velocities(atoms, 300.0)
    atoms.set_constraint(MirrorForce(0, 1, 1.5, 1.0))
    with pytest.raises(ConfigError, match=r"how many degrees of freedom .*MirrorForce"):
        set_thermal_velocities(atoms, 300.0)


@pytest.mark.parametrize("kind", ["extxyz", "traj"])
def test_constraints_and_momenta_of_the_start_are_kept(places, kind):
    run, start, out = places
    atoms = ethanol()
    atoms.set_constraint(FixAtoms([0, 2]))
    atoms.set_masses([12, 12, 16, 2, 1, 1, 1, 1, 1])
    atoms.set_tags(range(9))
    atoms.set_initial_charges(np.linspace(-1, 1, 9))
    set_thermal_velocities(atoms, 450.0, seed=5)
    atoms.write(start := start.with_suffix(f".{kind}"))
    report = simulate(run, start, out, steps=40, interval=20)
    frames = ase.io.read(out / "trajectory.extxyz", ":")
    for frame in frames:
        assert np.array_equal(frame.positions[[0, 2]], frames[0].positions[[0, 2]])
        assert frame.get_tags().tolist() == list(range(9)) and frame.get_masses()[3] == 2
        assert np.allclose(frame.get_initial_charges(), atoms.get_initial_charges())
        assert frame.constraints[0].index.tolist() == [0, 2]
    assert np.abs(frames[-1].positions - frames[0].positions).max() > 0.01
    assert np.allclose(frames[0].get_momenta(), atoms.get_momenta(), atol=1e-7)
    assert report.velocities == "of the start (450 K)"
    assert report.constraints == "FixAtoms of 2 atoms"
    assert "; velocities of the start (450 K); held: FixAtoms of 2 atoms" in report.text()
    assert json.loads((out / "dynamics.json").read_text())["constraints"] == report.constraints
    drawn = simulate(run, start, out, steps=2, interval=1, kelvin=200.0)
    assert drawn.velocities == "drawn at 200 K"
    assert drawn.mean_temperature_K == pytest.approx(200.0, rel=0.1)


def test_bond_lengths_that_are_held(places):
    run, start, out = places
    atoms = ethanol()
    atoms.set_constraint(FixBondLength(2, 3))
    atoms.write(start := start.with_suffix(".traj"))
    report = simulate(run, start, out, steps=40, interval=10, kelvin=500.0)
    frames = ase.io.read(out / "trajectory.extxyz", ":")
    lengths = [frame.get_distance(2, 3) for frame in frames]
    assert np.ptp(lengths) < 1e-6 < np.ptp([frame.get_distance(0, 1) for frame in frames])
    total = [frame.get_total_energy() for frame in frames]
    kinetic = [frame.get_kinetic_energy() for frame in frames]
    assert np.ptp(total) < 0.05 * np.ptp(kinetic)
    assert report.constraints == "FixBondLengths"


def test_a_trajectory_goes_on_where_it_ended(places, tmp_path):
    run, start, out = places
    simulate(run, start, out, steps=40, interval=20, kelvin=400.0)
    whole = ase.io.read(out / "trajectory.extxyz", ":")
    simulate(run, start, tmp_path / "a", steps=20, interval=20, kelvin=400.0)
    again = simulate(run, tmp_path / "a/trajectory.extxyz", tmp_path / "b", steps=20, interval=20)
    frames = ase.io.read(tmp_path / "b/trajectory.extxyz", ":")
    assert "of the start" in again.velocities
    for before, after in zip(whole[1:], frames, strict=True):
        assert np.allclose(before.positions, after.positions, atol=1e-5)
        assert np.allclose(before.get_momenta(), after.get_momenta(), atol=1e-4)


# -------------------------------------------------------------------------- function and script


@pytest.fixture
def places(tmp_path) -> tuple[Path, Path, Path]:
    """A run's folder, a structure and where results go."""
    path = tmp_path / "run" / "pruned.safetensors"
    path.parent.mkdir()
    save(trained("shallow", torch.float32), path, target="energy", unit="eV")
    ase.io.write(tmp_path / "start.xyz", [molecule("H2O"), ethanol()])  # the last one is taken
    return path.parent, tmp_path / "start.xyz", tmp_path / "md"


def test_what_a_simulation_leaves(places):
    run, start, out = places
    report = simulate(run, start, out, steps=24, interval=2, kelvin=400.0, threshold=1e3)
    assert {p.name for p in out.iterdir()} == {
        *("trajectory.extxyz", "energies.csv", "dynamics.json", "dynamics.png")
    }
    with (out / "energies.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    frames = ase.io.read(out / "trajectory.extxyz", ":")
    assert len(rows) == len(frames) == 13
    assert [row["time_fs"] for row in rows] == pytest.approx(np.arange(0, 13, 1.0))
    assert rows[0]["temperature_K"] == pytest.approx(400.0)
    for row, atoms in zip(rows, frames, strict=True):
        assert row["total_eV"] == pytest.approx(row["potential_eV"] + row["kinetic_eV"])
        assert atoms.get_potential_energy() == pytest.approx(row["potential_eV"], abs=1e-6)
        assert atoms.get_kinetic_energy() == pytest.approx(row["kinetic_eV"], abs=1e-5)
        assert 0 < row["epistemic_eV"] < row["uncertainty_eV"]
    facts = json.loads((out / "dynamics.json").read_text())
    assert facts["formula"] == "C2H6O" and facts["picoseconds"] == pytest.approx(0.012)
    assert facts["beyond_threshold"] == 0.0 and facts["stopped"] is None
    assert facts["drift_meV_atom_ps"] == pytest.approx(report.drift_meV_atom_ps)
    assert "meV/atom/ps" in report.text() and "\n" not in report.text()


def test_a_model_without_a_limit_says_that_nothing_was_watched(places):
    run, start, out = places
    text = simulate(run, start, out, steps=2, interval=1).text()
    assert "holds no validation_epistemic_std; give a threshold" in text.splitlines()[1]
    path = run / "pruned.safetensors"
    known = {"target": "energy", "unit": "eV", "validation_epistemic_std": {"q99": 1e3}}
    save(trained("shallow", torch.float32), path, **known)
    assert "\n" not in simulate(run, start, out, steps=2, interval=1).text()


def test_the_start_brings_its_geometry_and_nothing_else(places):
    """Labels and units of the start would be wrong beside the energies of all frames."""
    run, start, out = places
    atoms = ethanol()
    atoms.positions /= units.Bohr
    atoms.info |= {"length_unit": "Bohr", "energy_unit": "Hartree", "REF_energy": -1.0}
    atoms.arrays["REF_forces"] = np.ones((9, 3))
    atoms.set_masses([12, 12, 16, 2, 2, 2, 2, 2, 2])
    atoms.write(start := start.with_suffix(".extxyz"))
    simulate(run, start, out, steps=20, interval=10)
    frames = ase.io.read(out / "trajectory.extxyz", ":")
    assert np.allclose(frames[0].positions, ethanol().positions, atol=1e-7)
    assert frames[0].get_masses()[3] == 2
    assert not any("REF" in key or "unit" in key for a in frames for key in [*a.info, *a.arrays])
    again = data.load("extxyz", out / "trajectory.extxyz")
    for k, frame in enumerate(frames):
        assert float(again.graphs[k].y) == pytest.approx(frame.get_potential_energy())


def test_a_simulation_that_is_stopped_keeps_what_it_has(places):
    run, start, out = places
    report = simulate(run, start, out, steps=60, interval=5, threshold=1e-9, on_uncertain="stop")
    assert report.stopped and "unlike the training data" in report.stopped
    assert report.beyond_threshold == 1.0 and report.picoseconds == 0.0
    assert len(ase.io.read(out / "trajectory.extxyz", ":")) == 1
    assert json.loads((out / "dynamics.json").read_text())["drift_meV_atom_ps"] is None
    assert "stopped early" in report.text()
    with pytest.raises(ConfigError, match="holds no validation_epistemic_std"):
        simulate(run, start, out, steps=5, on_uncertain="stop")


@pytest.fixture
def script(call_script):
    """``script(*arguments)``: exit code, stdout and stderr of scripts/molecular_dynamics.py."""
    return partial(call_script, "molecular_dynamics")


def test_the_script(places, script):
    run, start, out = places
    arguments = (run, start, "--out", out, "--steps", 8, "--interval", 1, "--timestep", 0.25)
    code, said, _ = script(*arguments)
    assert code == 0 and said.startswith("C2H6O: 0.002 ps at ")
    code, said, _ = script(*arguments, "--threshold", 1e-9, "--on-uncertain", "stop")
    assert code == 1 and "stopped early" in said
    code, _, err = script(run, out / "nothing.xyz", "--out", out)
    assert code == 2 and "error: there is no file" in err and "Traceback" not in err
    code, _, err = script(run / "no model", start, "--out", start)
    assert code == 2 and f"{start} is a file; choose another folder" in err
    code, said, _ = script("--help")
    assert code == 0 and "dynamics.png" in said and "--temperature" in said


def test_the_figure_shows_the_threshold_and_all_of_the_data():
    rows = [
        {
            "time_fs": 5.0 * i,
            "potential_eV": np.sin(i),
            "kinetic_eV": -np.sin(i),
            "total_eV": 1e-4 * i,
            "epistemic_eV": 0.02,
        }
        for i in range(50)
    ]
    figure = dynamics_plot(rows, 9, 0.01, 0.002, threshold=0.05, title="Ethanol")
    top, middle, bottom = figure.axes
    assert "0.0100 ± 0.0020 meV/atom/ps" in top.get_title(loc="left")
    assert "0.0 % of the time" in bottom.get_title(loc="left")
    assert bottom.get_ylim()[0] == 0 and bottom.get_ylim()[1] > 50  # meV
    assert {t.get_text() for t in middle.get_legend().get_texts()} == {"potential", "kinetic"}
    line = top.get_lines()[1].get_ydata()
    assert line[-1] - line[0] == pytest.approx(0.01 * 0.245)  # ps


def test_a_number_with_its_error():
    assert with_error(0.01234, 0.0023) == "0.0123 ± 0.0023"
    assert with_error(-12.34, 3.21) == "-12.3 ± 3.2"
    assert with_error(float("nan"), 1.0) == "n/a"
