"""The main job on positions: numbers that hold, and a report in words that are right for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_jobs import metrics, tiny
from torch_geometric.data import Batch

from egnn_prune import data, load, load_estimator
from egnn_prune.errors import ConfigError
from egnn_prune.pipeline.main_job import run
from egnn_prune.report.run.calibration import mae_half_interval

SYSTEMS = (50, 12, 16)
"""In train, val and test: of 5 particles in 3 dimensions, so 15 coordinates each."""

NBODY = {
    "data__name": "nbody",
    "data__limit": 40,
    "model__cutoff": None,
    "model__radial": 0,
    "model__attention": False,
    "model__normalise": False,
    "uncertainty__method": "mean_variance",
    "training__scratch": False,
    "training__loss": "squared",
}


@pytest.fixture(scope="module", autouse=True)
def few_systems():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("egnn_prune.data.sources.nbody.SIZES", {5: SYSTEMS})
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return run(tiny(tmp_path_factory.mktemp("nbody") / "run", **NBODY))


@pytest.fixture(scope="module")
def held_out(few_systems) -> Batch:
    return Batch.from_data_list(list(data.load("nbody").split("test")))


@pytest.mark.parametrize("name", ["dense", "pruned"])
def test_errors_are_those_of_the_saved_model(finished, held_out, name):
    model = load(finished / f"{name}.safetensors").eval()
    with torch.no_grad():
        wrong = model(held_out).mean.double() - held_out.y
    found = metrics(finished)["models"][name]
    assert wrong.shape == (16 * 5, 3)
    assert found["test_mse"] == pytest.approx(float((wrong**2).mean()), rel=1e-6)
    assert found["test_rmse"] == pytest.approx(found["test_mse"] ** 0.5, rel=1e-9)
    assert found["test_mae"] == pytest.approx(float(wrong.abs().mean()), rel=1e-6)


def test_the_reference_is_that_nothing_moves(finished, held_out):
    still = (held_out.y - held_out.pos).abs().mean()
    dataset = metrics(finished)["dataset"]
    assert (dataset["train"], dataset["val"], dataset["test"]) == (40, 12, 16)
    assert dataset["mean_predictor_mae"] == pytest.approx(float(still), rel=1e-6)


def test_predictions_tell_whose_coordinates_they_are(finished):
    with np.load(finished / "predictions.npz", allow_pickle=False) as stored:
        assert stored["test_graph"].tolist() == [k for k in range(16) for _ in range(15)]
        assert len(stored["test_target"]) == len(stored["test_pruned_mean"]) == 240
        error = stored["test_pruned_mean"] - stored["test_target"]
    per_graph = np.abs(error).reshape(16, 15).mean(1)
    half = 1.96 * per_graph.std(ddof=1) / 4
    assert mae_half_interval(error, np.arange(240) // 15) == pytest.approx(half, rel=1e-9)


def test_the_report_speaks_of_graphs_and_coordinates(finished):
    page = (finished / "report.html").read_text()
    assert "olecule" not in page and "per-element" not in page and "training mean" not in page
    for words in (
        "Predicting no movement has a test MAE of",
        "95 % interval over graphs",
        "fitted on 12 graphs of the split",
        "20 % of the coordinates",
        "MAE without movement",
    ):
        assert words in page, words


def test_a_cutoff_is_refused_before_any_time_is_spent(tmp_path):
    with pytest.raises(ConfigError, match=r"nbody brings edges .* use model\.cutoff=null"):
        run(tiny(tmp_path / "run", **NBODY | {"model__cutoff": 4.0}))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_data_without_forces_say_nothing_of_forces(finished):
    content = metrics(finished)
    assert "force_uncertainty" not in content
    assert not [k for m in content["models"].values() for k in m if "force" in k]
    with np.load(finished / "predictions.npz", allow_pickle=False) as stored:
        assert not [name for name in stored.files if "force" in name or "distance" in name]
    assert load_estimator(finished / "pruned.safetensors").atoms is None
