"""Runs that predict positions: coordinates are counted, graphs are drawn, nothing is a molecule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from egnn_prune.report import parity
from egnn_prune.report.common.wording import words
from egnn_prune.report.run.calibration import mae_half_interval
from egnn_prune.report.run.calibration_page import calibration_section
from egnn_prune.report.run.error_bars import graphs_of
from egnn_prune.report.run.html import glossary
from egnn_prune.report.run.tables import notes


@pytest.fixture
def positions(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics of a run on 40 graphs of 15 coordinates."""
    for model in metrics["models"].values():
        model["test_mse"] = 0.007
    metrics["dataset"] |= {"test": 40, "ood": 0, "mean_predictor_mae": 0.4145}
    return metrics


def test_the_simplest_prediction_in_words(metrics: dict[str, Any]) -> None:
    metrics["dataset"] |= {"mean_predictor_mae": 0.25, "per_element_fit": True}
    assert notes(metrics)[-1] == "The per-element linear fit alone has a test MAE of 0.250 eV."
    metrics["dataset"]["per_element_fit"] = False
    assert notes(metrics)[-1] == "The training mean alone has a test MAE of 0.250 eV."
    metrics["models"]["dense"]["test_mse"] = 0.1
    assert notes(metrics)[-1] == "Predicting no movement has a test MAE of 0.250 eV."


def test_the_parity_plot_names_what_it_subtracts(
    metrics: dict[str, Any], predictions: dict[str, Any]
) -> None:
    for split in ("test", "ood"):
        predictions[f"{split}_reference"] = predictions[f"{split}_target"] - 0.1
    metrics["dataset"]["per_element_fit"] = False
    assert parity(metrics, predictions).get_suptitle().endswith(", training mean subtracted")
    metrics["models"]["dense"]["test_mse"] = 0.1
    assert parity(metrics, predictions).get_suptitle().endswith(", starting position subtracted")


def test_the_glossary_speaks_of_what_the_run_holds(positions: dict[str, Any]) -> None:
    own = dict(glossary(words(positions)))
    text = " ".join([*own, *own.values()])
    assert not any(wrong in text for wrong in ("olecule", "{", "per-element"))
    assert own["coverage of 90 %"].startswith("Share of coordinates whose")
    assert own["OOD AUROC"].startswith("Probability that a random OOD graph is")
    for model in positions["models"].values():
        del model["test_mse"]
    usual = dict(glossary(words(positions)))
    assert not any(wrong in " ".join(usual.values()) for wrong in ("coordinate", "graph", "{"))
    assert usual["coverage of 90 %"].startswith("Share of molecules whose")


def test_the_calibration_section_counts_graphs_and_coordinates(
    calibrated_metrics: dict[str, Any], calibrated_predictions: dict[str, Any]
) -> None:
    calibrated_metrics["models"]["dense"]["test_mse"] = 0.1
    section = calibration_section(calibrated_metrics, calibrated_predictions)
    text = " ".join([*section.verdict, *(text for _, text in section.panels)])
    assert "olecule" not in text
    for expected in (
        "fitted on 500 graphs of the split",
        "ranks an OOD graph above a test graph",
        "20 % of the coordinates",
    ):
        assert expected in text


def test_the_graph_of_each_number(positions: dict[str, Any], predictions: dict[str, Any]) -> None:
    size = predictions["test_target"].size
    equal = graphs_of(positions, predictions, "test")  # an old file: all graphs of one size
    assert equal is not None and equal.tolist() == [k for k in range(40) for _ in range(15)]
    written = np.sort(np.arange(size) % 7)
    found = graphs_of(positions, predictions | {"test_graph": written.astype(float)}, "test")
    assert found is not None and found.tolist() == written.tolist()
    for wrong, match in ((written - 1.0, "number the graphs from 0"), (written[1:], "shape")):
        with pytest.raises(ValueError, match=match):
            graphs_of(positions, predictions | {"test_graph": wrong}, "test")
    for model in positions["models"].values():
        del model["test_mse"]
    assert graphs_of(positions, predictions, "test") is None


def test_coordinates_of_one_graph_are_not_independent_draws() -> None:
    """The 95 % interval holds the true MAE 95 % of the time; that over coordinates does not."""
    random = np.random.default_rng(0)
    sizes = random.integers(1, 20, 200)
    graph = np.repeat(np.arange(200), sizes)
    hits = np.zeros(2)
    for _ in range(2000):
        scale = random.exponential(size=200)[graph]
        error = scale * random.choice([-1.0, 1.0], graph.size)  # the true MAE is 1
        off = abs(np.abs(error).mean() - 1)
        hits += [off <= mae_half_interval(error, graph), off <= mae_half_interval(error)]
    assert 0.93 < hits[0] / 2000 < 0.97
    assert hits[1] / 2000 < 0.6


def test_one_number_a_graph_is_the_usual_interval() -> None:
    error = np.random.default_rng(1).normal(size=50)
    usual = 1.96 * np.abs(error).std(ddof=1) / 50**0.5
    assert mae_half_interval(error) == pytest.approx(usual)
    assert mae_half_interval(error, np.arange(50)) == pytest.approx(usual)
    assert np.isnan(mae_half_interval(error, np.zeros(50, dtype=np.int64)))
    assert np.isnan(mae_half_interval(np.empty(0)))
