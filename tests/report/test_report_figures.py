"""What the figures show, and that they are reproducible and leave pyplot alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from numpy.typing import NDArray

from egnn_prune.report import parity, pruned_vs_baseline, write_figures
from egnn_prune.report.common.style import MODEL_COLOURS, png_bytes
from egnn_prune.report.run.calibration import mae_half_interval, reliability

Arrays = dict[str, NDArray[np.float64]]


def test_three_panels(metrics: dict[str, Any], predictions: Arrays) -> None:
    before = dict(mpl.rcParams)
    figure = pruned_vs_baseline(metrics, predictions)
    assert dict(mpl.rcParams) == before
    error, calibration, cost = figure.axes
    assert [axes.get_title("left") for axes in figure.axes] == [
        "Error",
        "Calibration, test",
        "Cost",
    ]
    assert [label.get_text() for label in error.get_yticklabels()] == ["test", "OOD"]
    assert len(error.patches) == 6 and len(cost.patches) == 9
    assert calibration.get_xscale() == "log"
    assert [line.get_color() for line in calibration.lines][:3] == list(MODEL_COLOURS.values())
    legend = calibration.get_legend()
    assert legend is not None
    assert legend.get_texts()[0].get_text() == "Spearman 0.43, NLL -1.31"
    assert "37 % of the MACs" in figure.get_suptitle()
    assert {"312 k", "41.2 M", "12.4 ms"} <= {text.get_text() for text in cost.texts}


def test_without_ood_scratch_and_uncertainty(metrics: dict[str, Any], predictions: Arrays) -> None:
    del metrics["models"]["scratch"]
    for model in metrics["models"].values():
        model.update(ood_mae=math.nan, latency_ms=None, nll=None)
    kept = {
        key: np.zeros_like(value) if key.endswith("_std") else value
        for key, value in predictions.items()
        if not key.startswith("ood") and "scratch" not in key
    }
    figure = pruned_vs_baseline(metrics, kept)
    error, calibration, cost = figure.axes
    assert len(error.patches) == 2 and len(cost.patches) == 4
    assert len(calibration.lines) == 0
    assert "no predicted" in calibration.texts[0].get_text()
    assert len(parity(metrics, kept).axes[0].collections) == 1
    assert png_bytes(figure)


def test_narrow_range_is_linear(metrics: dict[str, Any], predictions: Arrays) -> None:
    for name in MODEL_COLOURS:
        predictions[f"test_{name}_std"] = np.full_like(predictions["test_target"], 0.08)
        predictions[f"test_{name}_mean"] = predictions["test_target"] + 0.08
    assert pruned_vs_baseline(metrics, predictions).axes[1].get_xscale() == "linear"


def test_parity_subtracts_the_reference(metrics: dict[str, Any], predictions: Arrays) -> None:
    figure = parity(metrics, predictions)
    dense, pruned = figure.axes
    assert [axes.get_title("left") for axes in figure.axes] == ["dense", "pruned"]
    assert dense.get_xlim() == dense.get_ylim() == pruned.get_xlim()
    assert -6 < dense.get_xlim()[0] < 0, "raw energies around -70 eV are off the axes"
    assert len(dense.collections) == 2
    raw = {key: value for key, value in predictions.items() if "reference" not in key}
    assert parity(metrics, raw).axes[0].get_xlim()[0] < -70
    assert "reference" not in parity(metrics, raw).get_suptitle()


def test_parity_names_points_off_the_axes(metrics: dict[str, Any], predictions: Arrays) -> None:
    predictions["ood_pruned_mean"][0] += 500.0
    figure = parity(metrics, predictions)
    assert [text.get_text() for text in figure.axes[1].texts] == ["1 outside the axes"]
    assert len(figure.axes[0].texts) == 0
    assert figure.axes[0].get_xlim()[1] < 20


def test_prediction_arrays_are_checked(metrics: dict[str, Any], predictions: Arrays) -> None:
    with pytest.raises(ValueError, match="'test_dense_mean' has shape"):
        pruned_vs_baseline(metrics, predictions | {"test_dense_mean": np.zeros(3)})
    del predictions["test_pruned_mean"]
    with pytest.raises(ValueError, match="'test_pruned_mean' is missing"):
        pruned_vs_baseline(metrics, predictions)
    with pytest.raises(ValueError, match="'test_pruned_mean' is missing"):
        parity(metrics, predictions)
    with pytest.raises(ValueError, match="'test_target' is missing"):
        parity(metrics, {})


def test_files_are_written_and_identical_twice(run_folder: Path) -> None:
    paths = write_figures(run_folder)
    assert sorted(paths) == ["parity", "pruned_vs_baseline"]
    first = {name: path.read_bytes() for name, path in paths.items()}
    assert all(data.startswith(b"\x89PNG") for data in first.values())
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        write_figures(run_folder)
    assert {name: path.read_bytes() for name, path in paths.items()} == first
    assert not list(run_folder.glob(".*"))


def test_unreadable_files_are_named(run_folder: Path) -> None:
    (run_folder / "predictions.npz").write_bytes(b"not a zip")
    with pytest.raises(ValueError, match=r"predictions\.npz"):
        write_figures(run_folder)
    (run_folder / "metrics.json").write_text(json.dumps({"schema_version": 9}))
    with pytest.raises(ValueError, match=r"metrics\.json: metrics: schema_version"):
        write_figures(run_folder)
    (run_folder / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"metrics\.json"):
        write_figures(run_folder)


def test_reliability_of_a_calibrated_model() -> None:
    rng = np.random.default_rng(0)
    std = np.exp(rng.normal(0, 0.7, 8000))
    predicted, observed = reliability(std * rng.normal(size=8000), std)
    assert predicted.shape == observed.shape == (8,)
    assert np.all(np.diff(predicted) > 0)
    np.testing.assert_allclose(observed, predicted, rtol=0.1)


def test_reliability_with_few_or_unusable_molecules() -> None:
    predicted, _ = reliability(np.ones(12), np.arange(1.0, 13.0))
    assert predicted.shape == (2,)
    assert reliability(np.ones(12), np.ones(12))[0].shape == (1,), "equal stds share a bin"
    assert reliability(np.ones(3), np.array([0.0, np.nan, -1.0]))[0].size == 0
    assert math.isnan(mae_half_interval(np.ones(1)))
    assert mae_half_interval(np.array([1.0, -1.0, 1.0])) == 0.0
