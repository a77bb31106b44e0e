"""Potentials of others in ASE: eV, no error bars where there are none, and the commands."""

from __future__ import annotations

import csv
import json

import ase.io
import numpy as np
import pytest
from ase import Atoms
from small_adopted import potential, structures

from egnn_prune import save
from egnn_prune.adapters import calculator
from egnn_prune.ase import PrunedCalculator, UncertaintyGuard
from egnn_prune.ase.simulation import simulate
from egnn_prune.errors import ConfigError
from egnn_prune.models import MeanVarianceHead, PropertyModel, energy_forces_stress
from egnn_prune.uncertainty import PredictionRigidity


def atoms(periodic: bool = True) -> Atoms:
    graph = structures(6, periodic=periodic)[0]
    cell = graph.cell[0].numpy() if periodic else None
    return Atoms(graph.z.numpy(), graph.pos.numpy(), cell=cell, pbc=periodic)


def test_energy_forces_and_stress(dtype, tolerance):
    model, one = potential(dtype), atoms()
    one.calc = calculator(model, device="cpu")
    assert type(one.calc) is PrunedCalculator
    prediction, forces, stress = energy_forces_stress(model, structures(6, periodic=True))
    assert one.get_potential_energy() == pytest.approx(float(prediction.mean), rel=tolerance)
    assert np.abs(one.get_forces() - forces.numpy()).max() < 10 * tolerance
    assert np.abs(one.get_stress(voigt=False) - stress[0].numpy()).max() < 10 * tolerance
    assert np.abs(one.get_forces()).max() > 0.1


def test_no_error_bar_is_none_not_zero():
    one = atoms()
    one.calc = calculator(potential())
    one.get_forces()
    results = one.calc.results
    for name in ("energy_uncertainty", "energy_epistemic_std", "in_distribution"):
        assert name not in one.calc.extras and results.get(name) is None
    assert one.calc.threshold is None
    with pytest.raises(ConfigError, match="states no uncertainty"):
        calculator(potential(), threshold=0.1)
    with pytest.raises(ConfigError, match="states no uncertainty, so a guard has nothing"):
        UncertaintyGuard(one, threshold=0.1)


def test_an_estimator_has_its_error_bars():
    model = PredictionRigidity(potential()).fit([structures(5, 4, 6)])
    one = atoms(periodic=False)
    one.calc = calculator(model, threshold=1e9)
    one.get_potential_energy()
    assert one.calc.results["energy_uncertainty"] > 0
    UncertaintyGuard(one)()


def test_other_models_are_sent_to_the_other_calculator(make_egnn):
    other = PropertyModel(make_egnn(), MeanVarianceHead(16, 4))
    with pytest.raises(ConfigError, match=r"not of PropertyModel; egnn_prune\.ase"):
        calculator(other)


def test_the_commands_take_its_file(call_script, tmp_path):
    """``predict`` and ``md``: energies in eV, empty cells where error bars would stand."""
    model = tmp_path / "m.safetensors"
    save(potential(), model, target="energy", unit="eV", teacher="7net-0")
    ase.io.write(tmp_path / "a.xyz", [atoms(), atoms()])
    out = tmp_path / "out"
    code, text, error = call_script("predict", model, tmp_path / "a.xyz", "--out", out)
    assert code == 0, error
    assert "in or out of distribution unknown" in text + error
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    one = atoms()
    one.calc = calculator(potential())
    for row in rows:
        assert float(row["value"]) == pytest.approx(one.get_potential_energy(), abs=1e-6)
        assert row["unit"] == "eV"
        assert not any(row[k] for k in ("std", "epistemic_std", "lower_90", "in_distribution"))
    found = ase.io.read(out / "predictions.extxyz")
    assert np.abs(found.get_forces() - one.get_forces()).max() < 1e-6
    assert "energy_std" not in found.info
    arguments = ("--threshold", "0.1", "--out", out)
    code, _, error = call_script("predict", model, tmp_path / "a.xyz", *arguments)
    assert code == 2 and "states no uncertainty" in error


def test_dynamics_say_that_nothing_watched(tmp_path):
    save(potential(), tmp_path / "m.safetensors")
    ase.io.write(tmp_path / "a.xyz", atoms(periodic=False))
    folder = tmp_path / "out"
    report = simulate(
        tmp_path / "m.safetensors", tmp_path / "a.xyz", folder, steps=8, timestep=0.1, interval=2
    )
    assert "the model states no uncertainty" in report.text()
    facts = json.loads((folder / "dynamics.json").read_text())
    assert facts["largest_epistemic_eV"] is None and facts["threshold_eV"] is None
    assert (folder / "dynamics.png").stat().st_size
    first = (folder / "energies.csv").read_text().splitlines()[1]
    assert first.endswith(",,")
