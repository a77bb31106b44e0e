"""The calibration study, on networks that are trained for two steps."""

from __future__ import annotations

import csv
import math
from types import SimpleNamespace

import pytest
import torch
from tiny_teacher import structures, write_labelled
from torch_geometric.data import Data

from egnn_prune.configs.over_seeds import CalibrationStudySettings
from egnn_prune.errors import ConfigError
from egnn_prune.prediction import Prediction
from egnn_prune.studies import calibration as study
from egnn_prune.studies.calibration import (
    DENSE,
    NONE,
    Cell,
    run_calibration_study,
    scores,
)


def small(tmp_path, **changes) -> CalibrationStudySettings:
    settings = CalibrationStudySettings(out=str(tmp_path / "study"), seeds=[0, 1], steps=2)
    settings.sparsities, settings.deep_members, settings.threads = [0.5], 0, 1
    settings.data.limit, settings.model.hidden, settings.model.layers = 40, 8, 2
    settings.training.max_epochs, settings.training.batch_size = 1, 20
    for name, value in changes.items():
        setattr(settings, name, value)
    return settings


@pytest.mark.slow
def test_every_estimator_before_and_after_recalibration(tmp_path, capsys):
    settings = small(tmp_path, deep_members=2, seeds=[0])
    out = run_calibration_study(settings)
    with (out / "calibration.csv").open() as file:
        rows = list(csv.DictReader(file))
    estimators = dict.fromkeys(row["estimator"] for row in rows)
    assert list(estimators) == [
        "mean-variance",
        "MC dropout",
        "last-layer Laplace",
        "LLPR",
        "noise and LLPR",
        "shallow ensemble",
        "deep ensemble of 2",
    ]
    # sparsities x calibrations x splits
    assert len(rows) == len(estimators) * 2 * 6 * 2
    assert all(math.isfinite(float(row[k])) for row in rows for k in ("nll", "ence", "ood_auroc"))
    text = (out / "calibration.txt").read_text()
    assert "Cost of pruning" in text and "Out-of-distribution split" in text
    assert (out / "calibration.png").stat().st_size > 10_000

    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}
    again = run_calibration_study(settings)  # nothing is trained or predicted twice
    assert (again / "calibration.txt").read_text() == text
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")} == before
    capsys.readouterr()


def test_the_likelihood_falls_apart_into_accuracy_and_size():
    torch.manual_seed(0)
    y = torch.randn(500, dtype=torch.float64)
    mean, variance = torch.zeros_like(y), 0.1 + torch.rand_like(y)
    prediction = Prediction.from_members(mean[None], variance[None])
    found = scores(prediction, y)
    factor = found["z_square"]
    best = scores(Prediction.from_members(mean[None], factor * variance[None]), y)
    assert best["miscalibration_nats"] == pytest.approx(0, abs=1e-12)
    assert best["nll"] == pytest.approx(found["accuracy_nats"], rel=1e-12)
    assert found["nll"] - found["miscalibration_nats"] == pytest.approx(best["nll"], rel=1e-12)
    for other in (0.9, 1.1):
        worse = Prediction.from_members(mean[None], other * factor * variance[None])
        assert scores(worse, y)["nll"] > best["nll"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": []}, "seeds needs one or more different values"),
        ({"seeds": [1, 1]}, "seeds needs one or more different values"),
        ({"sparsities": [0.5, 1.0]}, "sparsities must be above 0 and below 1"),
        ({"recipes": ["triple"]}, "recipes must be some of single, shallow"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"deep_members": 1}, "deep_members must be at least 2"),
        ({"deep_members": 2, "recipes": ["shallow"]}, "has members of the recipe single"),
        ({"deep_members": 2, "seeds": [0, 7]}, "seeds must lie within 5"),
    ],
)
def test_bad_settings_are_refused_before_any_training(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        run_calibration_study(small(tmp_path, **changes))
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
def test_other_steps_or_nearby_sparsities_are_other_networks(tmp_path, capsys):
    settings = small(tmp_path, seeds=[0], recipes=["single"], sparsities=[0.5, 0.504])
    out = run_calibration_study(settings)
    assert {p.name for p in (out / "single0").glob("*.safetensors")} == {
        "sparsity0.safetensors",
        "sparsity0.5.safetensors",
        "sparsity0.504.safetensors",
    }
    settings.steps = 3
    with pytest.raises(ConfigError, match=r"fine-tuned with .*2.* not .*3"):
        run_calibration_study(settings)
    capsys.readouterr()


def gaussian(error: torch.Tensor, std: float) -> Prediction:
    """Predictions of zeros that are off by this much, with one error bar for all."""
    return Prediction.from_members(error[None], torch.full_like(error, std**2)[None])


def test_each_recalibration_is_fitted_where_its_name_says(tmp_path):
    """The dense network's factor on its own validation, the pruned one's on its own."""
    torch.manual_seed(0)
    noise = torch.randn(400, dtype=torch.float64)
    graphs = {split: [Data(y=torch.zeros(1).double())] * 400 for split in ("val", "test")}
    dataset = SimpleNamespace(split=lambda name: graphs.get(name, []), unit="eV")
    cell = Cell(SimpleNamespace(dataset=dataset), "any", 0, 0.5, tmp_path / "x.npz")
    pruned = {"val": gaussian(4 * noise, 1.0), "test": gaussian(4 * noise, 1.0)}
    found = cell.rows(pruned, dense=gaussian(2 * noise, 1.0))
    z = {row["calibration"]: row["z_square"] for row in found if row["split"] == "test"}
    assert z["robust"] == pytest.approx(1, rel=0.5)  # scaled by its own errors
    assert z[DENSE] == pytest.approx(4 * z["robust"])  # half as long, as the dense errors are
    assert z[NONE] == pytest.approx(16, rel=0.2)  # errors of 4, error bars of 1


def test_members_of_a_deep_ensemble_learn_from_the_same_graphs(tmp_path):
    """Where splits are drawn by the seed, a member's own would hold the others' test graphs."""
    frames = [atoms for atoms in structures(240) if len(atoms) > 3]
    settings = small(tmp_path, deep_members=2, seeds=[0])
    settings.data.name = "extxyz"
    settings.data.path = str(write_labelled(tmp_path / "frames.xyz", frames))
    settings.data.limit = None
    learned = {}

    def watched(job, *_):
        learned[job.settings.seed] = [float(graph.y) for graph in job.train]
        if len(learned) == 2:
            raise InterruptedError  # nothing needs to be trained
        return {}

    with pytest.MonkeyPatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(study, "train_networks", watched)
        study.run_seed(settings, 0)
    assert learned[0] == learned[study.STRIDE]
