"""The criteria sweep, tiny: each of its numbers found again from the saved dense network."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_jobs import tiny, used_only
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from egnn_prune import compact, load, prune
from egnn_prune.configs.over_seeds import SweepSettings
from egnn_prune.data import load as load_data
from egnn_prune.data.dataset import GraphDataset
from egnn_prune.evaluation.predict import point_predictions, targets
from egnn_prune.studies.criteria import run_sweep

CPU = torch.device("cpu")
CRITERIA = ["magnitude", "taylor"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    job = tiny(tmp_path_factory.mktemp("sweep") / "out", selection__strategy="top")
    own = {"seeds": [0], "criteria": CRITERIA, "sparsities": [0.3, 0.6], "steps": 3}
    settings = SweepSettings(**({key: getattr(job, key) for key in asdict(job)} | own))
    return run_sweep(used_only(settings))


@pytest.fixture(scope="module")
def rows(swept) -> list[dict[str, str]]:
    with (swept / "sweep.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def dense(swept) -> nn.Module:
    return load(swept / "seed0/stages/trained.safetensors")


@pytest.fixture(scope="module")
def dataset(swept) -> GraphDataset:
    return load_data("xtb").limited(60).with_cutoff(tiny(swept).model.cutoff)


@pytest.fixture(scope="module")
def scored(swept, dataset) -> list[Data]:
    with np.load(swept / "seed0/stages/selection.npz", allow_pickle=False) as archive:
        return [dataset.split("train")[i] for i in archive["selected"].tolist()]


def errors(model: nn.Module, dataset: GraphDataset, split: str) -> Tensor:
    graphs = dataset.split(split)
    return point_predictions(model, graphs, CPU) - targets(graphs)


def test_a_row_for_every_cell(rows):
    cells = [(row["criterion"], float(row["sparsity"])) for row in rows]
    assert cells == [("dense", 0.0)] + [(c, s) for c in CRITERIA for s in (0.3, 0.6)]
    assert all(row["test_mae"] != row["before_test_mae"] for row in rows)
    assert {row["unit"] for row in rows} == {"eV"} and {row["seed"] for row in rows} == {"0"}


@pytest.mark.parametrize("split", ["test", "ood"])
def test_errors_are_mean_absolute_errors(rows, dense, dataset, split):
    error = errors(dense, dataset, split)
    assert float(error.mean().abs()) < 0.999 * float(error.abs().mean()), "they must differ"
    expected = float(error.abs().mean())
    assert float(rows[0][f"before_{split}_mae"]) == pytest.approx(expected, rel=1e-6)


def test_cells_before_fine_tuning_are_pruned_by_the_selected_graphs(rows, dense, dataset, scored):
    """Scored on the graphs that were selected, all of them, and measured before any step."""
    batches = list(DataLoader(scored, 64))
    for row in rows[1:]:
        pruned = prune(
            dense,
            row["criterion"],
            float(row["sparsity"]),
            data=batches,
            scope="group",
            seed=0,
        )
        expected = float(errors(compact(pruned), dataset, "test").abs().mean())
        assert float(row["before_test_mae"]) == pytest.approx(expected, rel=1e-5), row["criterion"]


def test_macs_of_a_row_are_those_of_one_graph(rows):
    for row in rows:
        assert float(row["macs_per_graph"]) * 64 == pytest.approx(float(row["macs"]))


def test_the_figure_and_the_table_are_there(swept):
    assert (swept / "sweep.png").read_bytes().startswith(b"\x89PNG")
    text = (swept / "sweep.txt").read_text()
    assert "before_test_mae" in text and "nll" in text
