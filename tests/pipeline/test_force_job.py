"""The main job on energies and forces: what it writes is what the saved models say."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from tiny_jobs import metrics, tiny
from torch_geometric.data import Batch

from egnn_prune import data, load, load_estimator
from egnn_prune.data import GraphDataset
from egnn_prune.deployment.checkpoint import read_header
from egnn_prune.errors import DataError
from egnn_prune.pipeline.main_job import run

FRAMES, LIMIT = 100, 30
"""Structures in the file (a tenth each for val and test), and how many are trained on."""


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
    ase.io.write(path, structures(0.15), format="extxyz")
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
    energies = np.array([atoms.get_potential_energy() for atoms in frames[split]])
    off = energy.detach().double().numpy() - energies
    assert found[f"{split}_mae"] == pytest.approx(np.abs(off).mean(), rel=1e-5)


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


def test_forces_that_are_all_zero_are_refused(tmp_path):
    frames = structures(0.15)[:40]
    for atoms in frames:
        atoms.calc.results["forces"] = np.zeros((4, 3))
    ase.io.write(tmp_path / "zero.xyz", frames, format="extxyz")
    asked = options(tmp_path / "zero.xyz") | {"uncertainty__calibration": "none"}
    with pytest.raises(DataError, match=r"all training forces are zero in zero\.xyz; .*weight=0"):
        run(tiny(tmp_path / "run", **asked))
    assert not list((tmp_path / "run").rglob("*.safetensors"))
