"""The sanity checks, tiny: what each arm trains, for how long, and what its error is."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_jobs import tiny
from torch_geometric.loader import DataLoader

from egnn_prune import compact, load, prune
from egnn_prune.configs.over_seeds import SanitySettings
from egnn_prune.data import load as load_data
from egnn_prune.evaluation.predict import point_predictions, targets
from egnn_prune.pipeline.run_context import RunContext
from egnn_prune.runs.run_folder import RunFolder
from egnn_prune.studies.sanity_checks import ARMS, run_checks

CPU = torch.device("cpu")
DENSE_EPOCHS, EXTRA_EPOCHS, STEPS = 3, 2, 5
"""Of the dense model and of the fine-tuning, and the optimiser steps of an epoch."""


ASKED = {
    "training__max_epochs": DENSE_EPOCHS,
    "training__finetune_epochs": EXTRA_EPOCHS,
    "pruning__sparsity": 0.3,  # at 0.5 the first graphs would choose the channels of the selected
}


@pytest.fixture(scope="module")
def checked(tmp_path_factory) -> Path:
    job = tiny(tmp_path_factory.mktemp("sanity") / "out", **ASKED)
    shared = {key: getattr(job, key) for key in asdict(job)}
    return run_checks(SanitySettings(**(shared | {"seeds": [0]})))


@pytest.fixture(scope="module")
def dataset(checked):
    return load_data("xtb").limited(60).with_cutoff(tiny(checked).model.cutoff)


def steps_of(folder: Path, label: str) -> int:
    """Optimiser steps of a fit, as its learning curve says."""
    with (folder / "seed0/curves" / f"{label}.csv").open(newline="") as handle:
        return int(list(csv.DictReader(handle))[-1]["step"])


def errors_of(folder: Path) -> dict[str, float]:
    """The test error of every arm."""
    rows = json.loads((folder / "seed0/sanity.json").read_text())["rows"]
    return {row["arm"]: row["test_mae"] for row in rows}


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_takes_its_steps(checked, arm):
    assert steps_of(checked, arm) == EXTRA_EPOCHS * STEPS
    start = checked / "seed0/curves" / f"{arm}, from the start.csv"
    assert start.exists() == (arm not in ("keep", "shuffled"))
    if start.exists():
        assert steps_of(checked, f"{arm}, from the start") == DENSE_EPOCHS * STEPS


def test_the_error_is_the_mean_absolute_one(checked, dataset):
    dense = load(checked / "seed0/stages/trained.safetensors")
    graphs = dataset.split("test")
    error = point_predictions(dense, graphs, CPU) - targets(graphs)
    assert float(error.mean().abs()) < 0.999 * float(error.abs().mean()), "they must differ"
    found = errors_of(checked)
    assert found["dense"] == pytest.approx(float(error.abs().mean()), rel=1e-6)
    assert set(found) == {"dense", *ARMS} and len(set(found.values())) == len(found)


def test_an_arm_made_again_by_hand(checked, tmp_path):
    """Channels scored on the selected graphs, then the fine-tuning of the settings."""
    settings = tiny(tmp_path / "again", **ASKED)
    context = RunContext(settings, RunFolder(settings), CPU)
    with np.load(checked / "seed0/stages/selection.npz", allow_pickle=False) as archive:
        scored = DataLoader([context.train[i] for i in archive["selected"].tolist()], 64)
    dense = load(checked / "seed0/stages/trained.safetensors")
    model = prune(dense, "taylor", 0.3, data=list(scored), scope="group", seed=0)
    torch.manual_seed(0)
    context.fit("keep", model, context.train, EXTRA_EPOCHS, lr=settings.training.finetune_lr)
    graphs = context.dataset.split("test")
    error = point_predictions(compact(model), graphs, CPU) - targets(graphs)
    assert errors_of(checked)["keep"] == pytest.approx(float(error.abs().mean()), rel=1e-5)


def test_one_seed_has_no_interval(checked):
    lines = (checked / "sanity.txt").read_text().splitlines()
    assert "nan" not in "".join(lines)
    assert all(line.endswith("(one seed: cannot be told)") for line in lines[2:])
    assert [line.split("  ")[0] for line in lines[2:]] == ["dense", *ARMS]
