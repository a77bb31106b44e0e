"""What each stage of the main job trains on, for how long, and what is measured: seen, not asked.

Every count is its own number (epochs, graphs, latencies), so that no two can be mixed up.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from tiny_jobs import metrics, tiny
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.data import Batch

from egnn_prune.evaluation.model_comparison import evaluate, latencies
from egnn_prune.pipeline.main_job import Job
from egnn_prune.runs.run_folder import RunFolder
from egnn_prune.training import PruningCallback

CPU = torch.device("cpu")
DENSE_EPOCHS, EXTRA_EPOCHS, STEPS = 2, 3, 5
"""Of the first training and of what follows, and the optimiser steps of an epoch."""


@dataclass
class Fit:
    """What was seen of one fit."""

    lr: float | None
    rows: Counter[int] = field(default_factory=Counter)
    steps: int = 0
    scored: list[int] = field(default_factory=list)


class Watch(Callback):
    """Counts the steps of a fit and the graphs that it draws."""

    def __init__(self, seen: Fit) -> None:
        self.seen = seen

    def on_train_batch_start(self, _trainer: Any, _module: Any, batch: Any, *_: Any) -> None:
        self.seen.steps += 1
        self.seen.rows.update(batch.row.tolist())


class WatchedJob(Job):
    """A job that remembers its fits by their label."""

    def __init__(self, *how: Any) -> None:
        super().__init__(*how)
        self.seen: dict[str, Fit] = {}
        self.looked_at: dict[str, set[int]] = {}

    def fit(self, label, model, graphs, epochs=0, callbacks=(), **how):  # type: ignore[no-untyped-def]
        fit = self.seen[label] = Fit(how.get("lr"))
        for one in callbacks:
            if isinstance(one, PruningCallback):
                fit.scored = [row for batch in one.batches for row in batch.row.tolist()]
        return super().fit(label, model, graphs, epochs, [*callbacks, Watch(fit)], **how)

    def batches(self, graphs, label):  # type: ignore[no-untyped-def]
        self.looked_at.setdefault(label, set()).update(int(graph.row) for graph in graphs)
        return super().batches(graphs, label)


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> WatchedJob:
    settings = tiny(
        tmp_path_factory.mktemp("job") / "run",
        training__max_epochs=DENSE_EPOCHS,
        training__finetune_epochs=EXTRA_EPOCHS,
        training__lr=2e-3,
        training__finetune_lr=7e-4,
        selection__replay=0.0,
    )
    job = WatchedJob(settings, RunFolder(settings), CPU)
    job.train_dense()
    job.select_uncertain_graphs()
    job.prune_and_finetune()
    job.continue_dense()
    job.train_scratch()
    job.evaluate()
    return job


@pytest.fixture(scope="module")
def folder(job) -> Path:
    return job.folder.path


@pytest.fixture(scope="module")
def arrays(folder) -> dict[str, np.ndarray]:
    with np.load(folder / "predictions.npz", allow_pickle=False) as archive:
        return dict(archive)


def test_every_model_takes_its_steps(job):
    found = {name: (fit.steps, fit.lr) for name, fit in job.seen.items()}
    further = (EXTRA_EPOCHS * STEPS, 7e-4)
    assert found == {
        "dense": (DENSE_EPOCHS * STEPS, None),
        "pruned": further,
        "baseline": further,
        "scratch": (DENSE_EPOCHS * STEPS, None),
        "scratch_continued": further,
    }


def test_the_most_uncertain_graphs_are_selected(job, folder):
    with np.load(folder / "stages/selection.npz", allow_pickle=False) as archive:
        epistemic_std, selected = archive["uncertainty"], archive["selected"]
    assert len(epistemic_std) == 60 and len(selected) == 18
    assert set(selected.tolist()) == set(np.argsort(-epistemic_std)[:18].tolist())


def test_what_is_fitted_on_which_split(job):
    rows = {
        split: {int(g.row) for g in job.dataset.split(split)} for split in ("train", "val", "test")
    }
    assert not rows["train"] & rows["val"] and not rows["val"] & rows["test"]
    assert job.looked_at["fitting the error bars"] == rows["train"]
    assert job.looked_at["losses, embeddings"] == rows["train"]
    assert job.looked_at["calibrating"] == rows["val"]


def test_a_later_selection_replays_as_much_as_the_first(job):
    again = copy.copy(job)
    again.settings = copy.deepcopy(job.settings)
    again.settings.selection.rounds, again.settings.selection.replay = 2, 0.3
    (callback,) = again.reselection()
    weights = callback.weights(job.load("dense.safetensors"))
    likely = weights > 0.02  # 0.7 among 18 graphs, 0.3 among 42
    assert int(likely.sum()) == 18 and float(weights[likely].sum()) == pytest.approx(0.7)
    assert float(weights.sum()) == pytest.approx(1)


def selected_rows(job: WatchedJob) -> set[int]:
    with np.load(job.folder.path / "stages/selection.npz", allow_pickle=False) as archive:
        return {int(job.train[i].row) for i in archive["selected"].tolist()}


def test_the_pruned_model_learns_from_the_selected_graphs(job):
    assert set(job.seen["pruned"].rows) <= selected_rows(job)
    assert len(job.seen["pruned"].rows) > 9  # not a few of them


def test_channels_are_scored_on_the_selected_graphs(job):
    scored = job.seen["pruned"].scored
    assert len(scored) == 18 and set(scored) == selected_rows(job)
    assert selected_rows(job) != {int(graph.row) for graph in job.train[:18]}


@pytest.mark.parametrize(
    ("label", "epochs"),
    [("dense", DENSE_EPOCHS), ("baseline", EXTRA_EPOCHS), ("scratch", DENSE_EPOCHS)],
)
def test_the_others_learn_from_all_graphs_equally_often(job, label, epochs):
    rows = {int(graph.row) for graph in job.train}
    assert job.seen[label].rows == dict.fromkeys(rows, epochs)


def test_the_time_of_a_model_is_that_of_all_its_stages(job, folder):
    models = metrics(folder)["models"]
    took = {name: job.outputs(name)["train_seconds"] for name in ("dense", "baseline", "pruned")}
    selection = job.outputs("selection")["seconds"]
    assert models["dense"]["train_seconds"] == took["dense"] + took["baseline"]
    assert models["pruned"]["train_seconds"] == took["dense"] + selection + took["pruned"]
    assert models["scratch"]["train_seconds"] == job.outputs("scratch")["train_seconds"]


class Products(TorchDispatchMode):
    """Adds up rows times inputs times outputs of every matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = function(*args, **(kwargs or {}))
        left = {"aten::mm": 0, "aten::bmm": 0, "aten::addmm": 1}.get(function.name().split(".")[0])
        if left is not None:
            self.macs += out.numel() * args[left].shape[-1]
        return out


def test_macs_are_those_of_one_graph(job, folder):
    test = job.dataset.split("test")
    batch = Batch.from_data_list(test)
    content = metrics(folder)
    for name in ("dense", "pruned"):
        network = job.load_calibrated(f"{name}.safetensors").network
        with torch.no_grad(), Products() as products:
            network(batch)
        found = content["models"][name]["macs_per_graph"]
        assert found == round(products.macs / len(test)) > 100, name
        parts = [row[f"macs_{name}"] for row in content["ledger"]]
        assert sum(parts) == pytest.approx(found, abs=len(parts)), name


def test_auroc_by_hand(arrays, folder):
    """How often an out-of-distribution graph is doubted more than one of the test split."""
    found = {}
    for name in ("dense", "pruned", "scratch"):
        test, ood = (arrays[f"{split}_{name}_epistemic_std"] for split in ("test", "ood"))
        found[name] = above = (ood[:, None] > test).mean() + 0.5 * (ood[:, None] == test).mean()
        assert metrics(folder)["models"][name]["ood_auroc"] == pytest.approx(above, abs=1e-6)
    assert any(abs(a - 0.5) > 1e-3 for a in found.values()), "swapped it is another number"


def test_coverage_is_that_of_the_calibrated_intervals(job, folder, arrays):
    content = metrics(folder)["models"]
    for name in ("dense", "pruned"):
        error = np.abs(arrays[f"test_{name}_mean"] - arrays["test_target"])
        for suffix in ("", "_calibrated"):
            held = (error <= 1.6448536269514722 * arrays[f"test_{name}_std{suffix}"]).mean()
            assert content[name][f"coverage_90{suffix}"] == pytest.approx(held, abs=1e-9)


def test_one_deterministic_pass_is_kept(arrays, folder):
    for name, model in metrics(folder)["models"].items():
        for split in ("test", "ood"):
            off = np.abs(arrays[f"{split}_{name}_point"] - arrays[f"{split}_target"]).mean()
            assert model[f"{split}_mae"] == pytest.approx(off, rel=1e-12)


def test_intervals_hold_the_changes_they_belong_to(folder):
    content = metrics(folder)
    dense, pruned = content["models"]["dense"], content["models"]["pruned"]
    for key in ("test_mae", "test_rmse", "ood_mae", "latency_ms"):
        low, high = content["intervals"][key]
        assert (
            low <= pruned[key] / dense[key] - 1 + 1e-9
            and high >= pruned[key] / dense[key] - 1 - 1e-9
        )
    for key in ("nll", "crps", "ence", "ood_nll", "nll_calibrated", "ence_calibrated"):
        low, high = content["intervals"][key]
        assert low - 1e-9 <= pruned[key] - dense[key] <= high + 1e-9, key


class Clock:
    """Time that passes only while a model predicts."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def slow(self, model: nn.Module, seconds: list[float]) -> None:
        """Let the passes of a model take these times, one after the other and again."""
        calls: list[int] = []

        def hook(*_: Any) -> None:
            self.now += seconds[len(calls) % len(seconds)]
            calls.append(1)

        model.register_forward_hook(hook)


def test_every_model_has_its_own_latency(job):
    clock, batch = Clock(), Batch.from_data_list(job.dataset.split("test")[:4])
    models = {name: job.load(f"{name}.safetensors") for name in ("dense", "pruned")}
    clock.slow(models["dense"], [0.003])
    clock.slow(models["pruned"], [0.001])
    found = latencies(models, batch, CPU, clock)
    assert {len(times) for times in found.values()} == {2}  # as the tests' settings say
    assert found["dense"] == pytest.approx([3.0] * 2) and found["pruned"] == pytest.approx(
        [1.0] * 2
    )


def test_the_latency_of_a_row_is_that_of_its_model(job):
    clock = Clock()
    models = {name: job.load_calibrated(f"{name}.safetensors") for name in ("dense", "pruned")}
    clock.slow(models["dense"].network, [0.003, 0.005])
    clock.slow(models["pruned"].network, [0.001])
    results, arrays = evaluate(models, job.dataset.limited(10), job.settings, CPU, clock)
    assert results["dense"]["latency_ms"] == pytest.approx(4.0)
    assert results["pruned"]["latency_ms"] == pytest.approx(1.0)
    assert arrays["latency_dense"] == pytest.approx([3.0, 5.0])
