"""Error bars of forces in calculators, predictions and files."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from torch_geometric.data import Batch
from trained_models import METHODS, ethanol, network, trained

from egnn_prune import save
from egnn_prune.ase import PrunedCalculator, UncertaintyGuard
from egnn_prune.ase.calculator import UncertaintyExceeded, UncertaintyWarning
from egnn_prune.ase.predict_file import predict_structures, write_predictions
from egnn_prune.ase.results import complaints
from egnn_prune.ase.structures import graph_of
from egnn_prune.deployment.atom_pass import atom_pass
from egnn_prune.deployment.trained_model import TrainedModel
from egnn_prune.errors import ConfigError
from egnn_prune.uncertainty import AtomErrorBars, AtomEvidence, Calibrated, Estimator

KCAL = units.kcal / units.mol


def evidence(method: Estimator, frames: list[Atoms], members: bool) -> AtomEvidence:
    batch = Batch.from_data_list([graph_of(atoms) for atoms in frames])
    found = atom_pass(method, batch, members=members)
    generator = torch.Generator().manual_seed(0)
    wrong = 0.1 * torch.randn(found.forces.shape, generator=generator).double()
    return AtomEvidence(found.features, batch.z, batch.batch, wrong, found.spread)


def with_bars(estimator: Calibrated, source: str, elements: str = "COH") -> Calibrated:
    """Fitted to shaken ethanol, or to ethane where oxygen is to stay unknown."""
    kind = "CH3CH2OH" if "O" in elements else "C2H6"
    frames = []
    for seed in range(40):
        atoms = molecule(kind)
        atoms.positions += 0.05 * np.random.default_rng(seed).normal(size=atoms.positions.shape)
        frames.append(atoms)
    parts = (
        evidence(estimator.estimator, part, source == "members")
        for part in (frames[::2], frames[1::2])
    )
    estimator.atoms = AtomErrorBars(source).fit(*parts)
    return estimator


@pytest.fixture
def model(tmp_path):
    """``model(kind, source, elements, unit=, **metadata)``: the path of a file with error bars."""

    def make(kind="deep", source="members", elements="COH", unit="eV", **metadata) -> Path:
        path = tmp_path / f"{kind} {source} {elements} {unit}.safetensors"
        save(
            with_bars(trained(kind), source, elements), path, target="energy", unit=unit, **metadata
        )
        return path

    return make


def counting(calculator: PrunedCalculator, monkeypatch) -> list[dict]:
    asked = []
    original = TrainedModel.predict_moved

    def predict_moved(self, structure, **keywords):
        asked.append(keywords)
        return original(self, structure, **keywords)

    monkeypatch.setattr(TrainedModel, "predict_moved", predict_moved)
    return asked


@pytest.mark.parametrize(("kind", "source"), [("deep", "members"), ("shallow", "distance")])
def test_free_error_bars_come_with_the_forces(model, monkeypatch, kind, source):
    atoms = ethanol()
    atoms.calc = PrunedCalculator(model(kind, source), on_uncertain="ignore")
    asked = counting(atoms.calc, monkeypatch)
    atoms.get_forces()
    extras = atoms.calc.extras
    assert extras["forces_uncertainty"].shape == (9, 3)
    assert extras["atoms_distance"].shape == (9,)
    std = atoms.calc.results["forces_uncertainty"]
    assert (std == std[:, :1]).all() and (std > 0).all() and len(asked) == 1
    (found,) = atoms.calc.model.predict([graph_of(atoms)], forces=True, forces_std=True)
    np.testing.assert_allclose(found.forces_std, std[:, 0])


@pytest.mark.parametrize("kind", ["shallow", "read-out dropout"])
def test_members_of_one_network_are_asked_on_demand_only(model, monkeypatch, kind):
    atoms = ethanol()
    atoms.calc = PrunedCalculator(model(kind, "members"), on_uncertain="ignore")
    asked = counting(atoms.calc, monkeypatch)
    forces = atoms.get_forces()
    assert "forces_uncertainty" not in atoms.calc.extras
    std = atoms.calc.get_property("forces_uncertainty", atoms)
    assert std.shape == (9, 3) and [call["forces_std"] for call in asked] == [False, True]
    np.testing.assert_allclose(atoms.get_forces(), forces)
    atoms.positions[0] += 0.01
    atoms.calc.get_property("forces_uncertainty", atoms)
    assert len(asked) == 3  # energy, forces and their error bars from the same call


def test_crystals_have_stress_beside_error_bars(model):
    atoms = Atoms("CO", [[0, 0, 0], [1.2, 1.4, 1.3]], cell=[3, 3.2, 3.4], pbc=True)
    atoms.calc = PrunedCalculator(model(), on_uncertain="ignore")
    plain = Atoms(atoms, calculator=PrunedCalculator(trained("deep"), unit="eV"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UncertaintyWarning)
        np.testing.assert_allclose(atoms.get_stress(), plain.get_stress(), atol=1e-10)
        np.testing.assert_allclose(atoms.get_forces(), plain.get_forces(), atol=1e-10)
    assert atoms.calc.extras["forces_uncertainty"].shape == (2, 3)


def test_molecules_and_crystals_in_one_list(model):
    crystal = Atoms("CO", [[0, 0, 0], [1.2, 1.4, 1.3]], cell=[3, 3.2, 3.4], pbc=True)
    found = TrainedModel.load(model()).predict(
        [graph_of(a) for a in (ethanol(), crystal, Atoms("H"))], forces=True, forces_std=True
    )
    assert [len(each.forces_std) for each in found] == [9, 2, 1]
    assert [len(each.distances) for each in found] == [9, 2, 1]
    assert all(np.isfinite(each.forces_std).all() for each in found)


def test_units_of_the_model_become_electronvolts(model):
    atoms = ethanol()
    stds, limits = [], []
    for unit in ("eV", "kcal/mol"):
        calculator = PrunedCalculator(model(unit=unit), on_uncertain="ignore")
        stds.append(calculator.get_property("forces_uncertainty", atoms))
        limits.append(calculator.forces_threshold)
    np.testing.assert_allclose(stds[1], stds[0] * KCAL)
    assert limits[1] == pytest.approx(limits[0] * KCAL)


def test_a_stretched_bond_is_flagged_and_says_which_atom(model):
    atoms = ethanol()
    atoms.calc = PrunedCalculator(model("shallow", "distance"), on_uncertain="raise")
    atoms.get_forces()
    assert atoms.calc.results["in_distribution"] is True
    atoms.positions[2] += 0.7
    with pytest.raises(
        UncertaintyExceeded, match=r"the force on atom \d \([COH]\), .* eV/Angstrom"
    ):
        atoms.get_forces()
    atoms.calc = PrunedCalculator(model("shallow", "distance"), on_uncertain="ignore")
    atoms.get_forces()
    assert not atoms.calc.results["in_distribution"]
    assert not atoms.calc.results["atoms_in_distribution"].all()
    reason = atoms.calc.results["out_of_distribution_reason"]
    assert "times as far from its training atoms as the limit" in reason
    assert "do not rely on the forces" in reason


def test_a_threshold_of_forces_is_ones_own(model):
    path = model("shallow", "distance")
    atoms = ethanol()
    atoms.calc = PrunedCalculator(path, forces_threshold=1e-6, on_uncertain="warn")
    with pytest.warns(UncertaintyWarning, match="beyond the threshold of 1e-06 eV/Angstrom"):
        atoms.get_forces()
    with pytest.raises(ConfigError, match="positive deviation in eV/Angstrom"):
        PrunedCalculator(path, forces_threshold=-1.0)
    with pytest.raises(ConfigError, match="holds no error bars of forces"):
        PrunedCalculator(trained(), unit="eV", forces_threshold=1.0)


def test_a_guard_that_knows_of_forces_only(model):
    atoms = ethanol()
    atoms.calc = PrunedCalculator(model("shallow", "distance"), on_uncertain="ignore")
    assert atoms.calc.threshold is None
    guard = UncertaintyGuard(atoms)
    atoms.get_forces()
    guard()
    atoms.positions[2] += 0.7
    atoms.get_forces()
    with pytest.raises(UncertaintyExceeded, match="the force on atom"):
        guard()


def test_an_element_that_no_training_structure_held(model, tmp_path):
    """The network knows it, the error bars do not: infinite, said so, and files hold it."""
    path = model("shallow", "distance", "CH")
    atoms = ethanol()
    oxygen = atoms.numbers == 8
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        atoms.calc = PrunedCalculator(path, on_uncertain="ignore")
        atoms.get_forces()
        std = atoms.calc.results["forces_uncertainty"]
        assert np.isinf(std[oxygen]).all() and np.isfinite(std[~oxygen]).all()
        (where,) = oxygen.nonzero()[0]
        clause = f"no training structure holds the element of atom {where} (O)"
        assert clause in atoms.calc.results["out_of_distribution_reason"]
        assert not atoms.calc.results["in_distribution"]
        found = TrainedModel.load(path).predict([graph_of(atoms)], forces=True, forces_std=True)
        said = complaints(found[0])
        assert len(said) == 1 and clause in said[0] and "inf" not in said[0]
        frames = tmp_path / "s.xyz"
        ase.io.write(frames, [ethanol(), molecule("C2H6")])
        table, geometry = write_predictions(
            predict_structures(TrainedModel.load(path), frames), tmp_path / "out"
        )
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["max_force_std"]) == np.inf and clause in rows[0]["reason"]
    assert np.isfinite(float(rows[1]["max_force_std"]))
    read = ase.io.read(geometry, ":")
    np.testing.assert_array_equal(np.isinf(read[0].arrays["forces_std"]), oxygen)
    np.testing.assert_array_equal(np.isinf(read[0].arrays["atoms_distance"]), oxygen)


@pytest.mark.parametrize("kind", [("deep", "members"), ("shallow", "distance")])
def test_files_of_predictions_have_error_bars_of_forces(model, tmp_path, kind):
    path, frames = model(*kind, unit="kcal/mol"), tmp_path / "s.xyz"
    ase.io.write(frames, [ethanol(), ethanol(0.4, 1)])
    found = predict_structures(TrainedModel.load(path), frames)
    table, geometry = write_predictions(found, tmp_path / "out")
    json.dumps(found.rows, allow_nan=False)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    atoms = ethanol()
    atoms.calc = PrunedCalculator(path, on_uncertain="ignore")
    std = atoms.calc.get_property("forces_uncertainty", atoms)[:, 0]
    assert float(rows[0]["max_force_std"]) == pytest.approx(std.max())
    assert float(rows[0]["max_distance"]) == pytest.approx(
        atoms.calc.extras["atoms_distance"].max()
    )
    assert float(rows[1]["max_distance"]) > 1 and rows[1]["in_distribution"] == "no"
    assert "times as far" in rows[1]["reason"]
    first, second = ase.io.read(geometry, ":")
    np.testing.assert_allclose(first.arrays["forces_std"], std, rtol=1e-5, atol=1e-7)
    assert not second.arrays["atoms_in_distribution"].all()


@pytest.mark.parametrize("target", ["energy", "gap"])
def test_models_without_error_bars_of_forces_say_nothing(tmp_path, target):
    estimator = trained() if target == "energy" else with_bars(trained("deep"), "members")
    save(estimator, tmp_path / "m.safetensors", target=target, unit="eV")
    ase.io.write(tmp_path / "s.xyz", ethanol())
    found = predict_structures(TrainedModel.load(tmp_path / "m.safetensors"), tmp_path / "s.xyz")
    assert "max_force_std" not in found.rows[0]
    assert "forces_std" not in found.structures[0].arrays


def test_members_without_calibration_are_still_there():
    atoms = ethanol()
    atoms.calc = PrunedCalculator(METHODS["shallow"](torch.float64), unit="eV")
    assert atoms.calc.get_property("forces_uncertainty", atoms).shape == (9, 3)
    assert "atoms_distance" not in atoms.calc.extras
    single = PrunedCalculator(METHODS["last layer"](torch.float64), unit="eV")
    assert network().head.members == 1 and single.model.member_forces(graph_of(atoms)) is None
