"""The main job on energies and forces: what it writes is what the saved models say."""

from __future__ import annotations

import math
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from tiny_jobs import metrics, tiny
from torch_geometric.data import Batch

from egnn_prune import data, load, load_estimator
from egnn_prune.data import GraphDataset
from egnn_prune.deployment.checkpoint import read_header
from egnn_prune.deployment.trained_model import TrainedModel
from egnn_prune.errors import DataError, InputError
from egnn_prune.evaluation.force_uncertainty import fit_likelier_bars
from egnn_prune.pipeline import run_context
from egnn_prune.pipeline.main_job import Job, run
from egnn_prune.runs.run_folder import RunFolder
from egnn_prune.uncertainty import AtomErrorBars, Calibrated

FRAMES, LIMIT = 100, 30
"""Structures in the file (a tenth each for val and test), and how many are trained on."""
MODELS = ("dense", "pruned")


def structures(shake: float) -> list[ase.Atoms]:
    """Copper and nickel tetrahedra with the energies and forces of EMT."""
    random = np.random.default_rng(0)
    corners = 1.7 * np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1]])
    found = []
    for _ in range(FRAMES):
        positions = corners + random.normal(scale=shake, size=(4, 3))
        atoms = ase.Atoms("Cu2Ni2", positions=positions)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        found.append(atoms)
    return found


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("emt") / "emt.xyz"
    made = structures(0.15)
    for k, atoms in enumerate(made):  # a third are of no type
        atoms.info |= {"config_type": ("cold", "hot")[k % 3]} if k % 3 < 2 else {}
    ase.io.write(path, made, format="extxyz")
    return path


def options(path: Path) -> dict:
    return {
        "data__name": "extxyz",
        "data__path": str(path),
        "data__limit": LIMIT,
        "model__readout_dropout": 0.0,
        "uncertainty__method": "shallow",
        "training__force_weight": 10.0,
        "training__scratch": False,
    }


@pytest.fixture(scope="module")
def finished(path, tmp_path_factory) -> Path:
    return run(tiny(tmp_path_factory.mktemp("forces") / "run", **options(path)))


@pytest.fixture(scope="module")
def dataset(path) -> GraphDataset:
    return data.load("extxyz", str(path)).limited(LIMIT)


@pytest.fixture(scope="module")
def frames(path, dataset) -> dict[str, list[ase.Atoms]]:
    """The structures of each split as ASE reads them, without our loading."""
    written = ase.io.read(path, ":")
    return {name: [written[i] for i in rows.tolist()] for name, rows in dataset.splits.items()}


@pytest.mark.parametrize("name", ["dense", "pruned"])
@pytest.mark.parametrize("split", ["val", "test"])
def test_errors_are_those_of_the_saved_model(finished, dataset, frames, split, name):
    model = load(finished / f"{name}.safetensors").eval()
    batch = Batch.from_data_list([graph.clone() for graph in dataset.split(split)])
    batch.pos.requires_grad_()
    energy = model(batch).mean
    (slope,) = torch.autograd.grad(energy.sum(), batch.pos)
    true = np.concatenate([atoms.get_forces() for atoms in frames[split]])
    wrong = -slope.double().numpy() - true
    found = metrics(finished)["models"][name]
    assert found[f"{split}_force_mae"] == pytest.approx(np.abs(wrong).mean(), rel=1e-5)
    assert found[f"{split}_force_rmse"] == pytest.approx((wrong**2).mean() ** 0.5, rel=1e-5)
    z = np.concatenate([atoms.numbers for atoms in frames[split]])
    by_element = found[f"{split}_force_by_element"]
    assert list(by_element) == [chemical_symbols[element] for element in np.unique(z)]
    for symbol, own in by_element.items():
        here = wrong[z == chemical_symbols.index(symbol)]
        assert own["atoms"] == len(here)
        assert own["rmse"] == pytest.approx((here**2).mean() ** 0.5, rel=1e-5)
    energies = np.array([atoms.get_potential_energy() for atoms in frames[split]])
    off = energy.detach().double().numpy() - energies
    assert found[f"{split}_mae"] == pytest.approx(np.abs(off).mean(), rel=1e-5)


def test_errors_by_type_are_those_of_its_structures(finished, frames):
    found = metrics(finished)["errors_by_type"]
    with np.load(finished / "predictions.npz") as archive:
        arrays = dict(archive)
    types = np.array([atoms.info.get("config_type", "") for atoms in frames["test"]])
    assert {name: one["structures"] for name, one in found["types"].items()} == {
        name: (types == name).sum() for name in ("cold", "hot")
    }
    off = {name: arrays[f"test_{name}_point"] - arrays["test_target"] for name in MODELS}
    for kind, one in found["types"].items():
        own = types == kind
        for name in MODELS:
            mae = np.abs(off[name][own]).mean()
            assert one["energy_mae"][name][0] == pytest.approx(mae, rel=1e-6)
            square = arrays[f"test_{name}_force_square"][own].sum() / (12 * own.sum())
            assert one["force_rmse"][name][0] == pytest.approx(square**0.5, rel=1e-6)
        value, low, high = one["force_mae"]["difference"]
        new, old = (one["force_mae"][name][0] for name in ("pruned", "dense"))
        assert value == pytest.approx(new - old, abs=1e-9) and low <= value <= high
    assert found["units"] == {"energy": "eV", "force": "eV/Angstrom"}
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert '<section id="errors-by-type-of-structure">' in page and ">hot</th>" in page


@pytest.mark.parametrize("name", ["dense", "pruned"])
def test_the_scale_is_the_rms_of_training_forces(finished, frames, name):
    assert len(frames["train"]) == LIMIT
    squares = np.concatenate([atoms.get_forces().ravel() ** 2 for atoms in frames["train"]])
    model = load(finished / f"{name}.safetensors")
    assert float(model.scale.scale) == pytest.approx(squares.mean() ** 0.5, rel=1e-6)


@pytest.mark.parametrize("name", ["dense", "pruned"])
def test_the_file_knows_the_doubt_on_validation(finished, dataset, name):
    file = finished / f"{name}.safetensors"
    batch = Batch.from_data_list([graph.clone() for graph in dataset.split("val")])
    with torch.no_grad():
        prediction = load_estimator(file).predict(batch)
    assert (prediction.epistemic > 0).all()
    std = prediction.epistemic.sqrt().numpy()
    assert len(std) == 10
    stored = read_header(file)["metadata"]["validation_epistemic_std"]
    assert read_header(file)["metadata"]["training_domain"]["bonds"]  # what is unlike is told by it
    levels = {"median": 0.5, "q95": 0.95, "q99": 0.99, "max": 1.0}
    expected = {key: np.quantile(std, level) for key, level in levels.items()}
    assert stored == pytest.approx(expected, rel=1e-5)


# ------------------------------------------------------------------------ error bars of forces


@pytest.fixture(scope="module")
def energy_only(path, tmp_path_factory) -> Path:
    asked = options(path) | {"training__force_weight": 0.0, "uncertainty__method": "last_layer"}
    return run(tiny(tmp_path_factory.mktemp("energies") / "run", **asked))


def bars_in(folder: Path, name: str) -> tuple[Calibrated, AtomErrorBars]:
    estimator = load_estimator(folder / f"{name}.safetensors")
    assert isinstance(estimator, Calibrated) and isinstance(estimator.atoms, AtomErrorBars)
    return estimator, estimator.atoms


@pytest.mark.parametrize("name", ["dense", "pruned"])
def test_error_bars_of_forces_are_fitted_last_and_on_validation(finished, dataset, name):
    """Those in the file are the ones that the finished network has on validation, not on test."""
    estimator, stored = bars_in(finished, name)
    found = {}
    for split in ("val", "test"):
        fit_likelier_bars(estimator, dataset.split("train"), dataset.split(split))
        assert isinstance(estimator.atoms, AtomErrorBars)
        found[split] = estimator.atoms.state_dict()
    for key, value in stored.state_dict().items():
        assert torch.allclose(found["val"][key], value, rtol=1e-6, atol=0), key
    assert not torch.allclose(found["test"]["quantiles"], stored.quantiles, rtol=1e-3)


@pytest.mark.parametrize("name", ["dense", "pruned"])
def test_arrays_of_atoms_are_what_the_saved_model_says(finished, dataset, name):
    model = TrainedModel.load(finished / f"{name}.safetensors", which=name, device="cpu")
    said = model.predict(list(dataset.split("test")), forces=True, forces_std=True)
    with np.load(finished / "predictions.npz", allow_pickle=False) as arrays:
        stored = {key: arrays[key] for key in arrays.files}
    assert not [key for key in stored if key.startswith("ood_")]
    for key, values in (
        ("forces", [one.forces for one in said]),
        ("forces_std_calibrated", [one.forces_std for one in said]),
        ("forces_distance", [one.distances for one in said]),
    ):
        assert stored[f"test_{name}_{key}"] == pytest.approx(np.concatenate(values), rel=1e-4)
    z = np.concatenate([graph.z.numpy() for graph in dataset.split("test")])
    assert np.array_equal(stored["test_forces_z"], z)
    assert stored["test_forces_atoms"].tolist() == [4] * 10


@pytest.mark.parametrize("name", ["dense", "pruned"])
def test_scores_of_error_bars_of_forces(finished, energy_only, name):
    for folder in (finished, energy_only):
        content = metrics(folder)
        found = {k: v for k, v in content["models"][name].items() if k.startswith("force_")}
        assert len(found) == 2 * 14 and all(math.isfinite(v) for v in found.values())
        with np.load(folder / "predictions.npz", allow_pickle=False) as stored:
            wrong = stored[f"test_{name}_forces"] - stored["test_forces_reference"]
            std = stored[f"test_{name}_forces_std"][:, None]
        inside = np.abs(wrong) <= 1.6448536 * std
        assert found["force_coverage_90"] == pytest.approx(inside.mean(), abs=1e-9)
        assert 0.6 < found["force_coverage_90_calibrated"] <= 1
        said = content["force_uncertainty"]
        assert said["fitted_on"] == "val" and said["atoms"] == 10 * 4
        assert said["sources"][name] == bars_in(folder, name)[1].source
        assert said["source"] == said["sources"]["pruned"]


def test_one_network_has_distances_only(energy_only):
    """Its forces were not trained on, and a calculator serves them all the same."""
    assert metrics(energy_only)["force_uncertainty"]["sources"] == {
        "dense": "distance",
        "pruned": "distance",
    }


def test_a_run_that_was_interrupted_has_the_same_error_bars(finished, path, tmp_path, monkeypatch):
    monkeypatch.setattr(Job, "evaluate", lambda _: 1 / 0)
    settings = tiny(tmp_path / "run", **options(path))
    with pytest.raises(ZeroDivisionError):
        run(settings)
    monkeypatch.undo()
    again, before = (metrics(folder) for folder in (run(settings), finished))
    assert again["force_uncertainty"] == before["force_uncertainty"]
    for name, model in before["models"].items():
        for key in (key for key in model if "force" in key):
            assert again["models"][name][key] == model[key]


def test_forces_that_no_error_bar_fits_are_said(finished, path, tmp_path, monkeypatch, capsys):
    def exact(*_):
        raise InputError("every validation force is exact")

    monkeypatch.setattr(run_context, "fit_likelier_bars", exact)
    settings = tiny(tmp_path / "run", **options(path))
    job = Job(settings, RunFolder(settings), torch.device("cpu"))
    assert job.calibrated(load(finished / "pruned.safetensors")).atoms is None
    assert "No error bars of forces: every validation force is exact" in capsys.readouterr().out


def test_forces_that_are_all_zero_are_refused(tmp_path):
    frames = structures(0.15)[:40]
    for atoms in frames:
        atoms.calc.results["forces"] = np.zeros((4, 3))
    ase.io.write(tmp_path / "zero.xyz", frames, format="extxyz")
    asked = options(tmp_path / "zero.xyz") | {"uncertainty__calibration": "none"}
    with pytest.raises(DataError, match=r"all training forces are zero in zero\.xyz; .*weight=0"):
        run(tiny(tmp_path / "run", **asked))
    assert not list((tmp_path / "run").rglob("*.safetensors"))
