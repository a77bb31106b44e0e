"""Every choice that the main job offers runs, tiny, and does what its name says."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from slow_cases import slow_but
from tiny_jobs import metrics, tiny
from torch_geometric.data import Batch

from egnn_prune import data, load, load_estimator
from egnn_prune.configs.settings import METHODS
from egnn_prune.data import GraphDataset
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.models import EGNNLayer
from egnn_prune.pipeline import run_context as run_context
from egnn_prune.pipeline.main_job import run
from egnn_prune.selection import STRATEGIES
from egnn_prune.training import AveragedWeights
from egnn_prune.uncertainty import (
    DeepEnsemble,
    LastLayer,
    MCDropout,
    NoiseAndRigidity,
    SinglePass,
)

#: Graphs of each split but the training's.
JUDGED = 24
KINDS = {
    "dropout": MCDropout,
    "last_layer": LastLayer,
    "rigidity": NoiseAndRigidity,
}


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Short latencies, and a part of the molecules, so that a job takes less than a second."""
    whole = data.load("xtb").limited(60)
    parts = {k: rows[: 60 if k == "train" else JUDGED] for k, rows in whole.splits.items()}

    def few(name, path, target, seed, **_) -> GraphDataset:
        rows = torch.cat(list(parts.values()))
        graphs = [whole.graphs[i].clone() for i in rows.tolist()]
        places = torch.arange(len(rows)).split([len(rows) for rows in parts.values()])
        splits = dict(zip(parts, places, strict=True))
        return GraphDataset("xtb", whole.target, "eV", True, graphs, splits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_context.sources, "load", few)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A run whose dense model the others share."""
    return run(tiny(tmp_path_factory.mktemp("base") / "run", training__scratch=False))


def variant(tmp_path: Path, base: Path | None, **changes) -> Path:
    reuse = [str(base)] if base else []
    changes = {"training__scratch": False, "reuse": reuse} | changes
    return run(tiny(tmp_path / "run", **changes))


def selection(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "stages" / "selection.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


@pytest.mark.parametrize(
    "strategy", slow_but([s for s in STRATEGIES if s != "threshold"], "top", "least", "diverse")
)
def test_selection_strategies(tmp_path, base, no_report, strategy):
    if strategy == "top":  # the default
        folder = base
    else:
        reused = None if strategy == "diverse" else base
        folder = variant(tmp_path, reused, selection__strategy=strategy)
    found, arrays = metrics(folder)["selection"], selection(folder)
    uncertainty, selected = arrays["uncertainty"], arrays["selected"]
    assert found["strategy"] == strategy
    assert found["selected"] == len(selected) == 18  # 30 % of 60
    assert uncertainty.shape == (60,) and (uncertainty > 0).all()
    assert found["mean_epistemic_std_selected"] == pytest.approx(uncertainty[selected].mean())
    assert len(set(selected.tolist())) == 18
    ranked = np.sort(uncertainty)  # values, not rows: equal ones may be taken in either order
    if strategy == "top":
        assert uncertainty[selected].tolist() == ranked[::-1][:18].tolist()
    if strategy == "least":
        assert np.sort(uncertainty[selected]).tolist() == ranked[:18].tolist()


def test_selection_above_a_threshold(tmp_path, base, no_report):
    uncertainty = selection(base)["uncertainty"]
    threshold = float(np.sort(uncertainty)[-6:-4].mean())
    folder = variant(
        tmp_path, base, selection__strategy="threshold", selection__threshold=threshold
    )
    assert metrics(folder)["selection"]["selected"] == 5


def test_nothing_above_the_threshold(tmp_path, base):
    with pytest.raises(ConfigError, match="no training sample has an uncertainty above 1e\\+06"):
        variant(tmp_path, base, selection__strategy="threshold", selection__threshold=1e6)


@pytest.mark.parametrize(
    ("scope", "criterion"),
    slow_but(
        itertools.product(["global", "group"], ["taylor", "magnitude", "random"]),
        ("global", "taylor"),
        ("group", "magnitude"),
    ),
)
def test_the_number_of_removed_channels(tmp_path, base, no_report, criterion, scope):
    sparsity = 0.37
    folder = variant(
        tmp_path,
        base,
        pruning__criterion=criterion,
        pruning__scope=scope,
        pruning__sparsity=sparsity,
    )
    found = metrics(folder)["pruning"]
    pools = found["groups"] if scope == "group" else [{"total": found["channels_total"]}]
    expected = sum(math.floor(sparsity * pool["total"]) for pool in pools)
    assert found["channels_removed"] == expected
    removed = [group["total"] - group["kept"] for group in found["groups"]]
    assert sum(removed) == expected
    if scope == "group":
        assert removed == [math.floor(sparsity * g["total"]) for g in found["groups"]]
    model = load(folder / "pruned.safetensors")
    assert [g.n for g in model.channel_groups()] == [g["kept"] for g in found["groups"]]


def test_sparsity_zero_removes_nothing(tmp_path, base, no_report):
    found = metrics(variant(tmp_path, base, pruning__sparsity=0.0))
    assert found["pruning"]["channels_removed"] == 0
    assert found["models"]["pruned"]["params"] == found["models"]["dense"]["params"]


@pytest.mark.parametrize(
    "freeze", slow_but(["message_passing", "important", "none"], "message_passing", "important")
)
def test_freezing(tmp_path, base, no_report, freeze):
    share = {"pruning__freeze_fraction": 0.5} if freeze == "important" else {}
    folder = variant(tmp_path, base, pruning__freeze=freeze, **share)
    rows = metrics(folder)["ledger"]
    models = metrics(folder)["models"]
    frozen = sum(row["frozen"] for row in rows)
    assert (frozen > 0) == (freeze != "none")
    if freeze == "message_passing":
        trainable = {row["layer"] for row in rows if row["trainable"]}
        assert trainable and all("head" in name for name in trainable)
    assert models["pruned"]["params"] < 0.6 * models["dense"]["params"]


@pytest.mark.parametrize("rounds", slow_but([1, 3, 50], 50))
def test_rounds(tmp_path, base, no_report, rounds):
    folder = variant(tmp_path, base, pruning__rounds=rounds, pruning__freeze="pruned")
    for group in metrics(folder)["pruning"]["groups"]:
        assert group["kept"] == group["total"] - group["total"] // 2


@pytest.mark.parametrize("method", slow_but(METHODS, "dropout", "deep"))
def test_uncertainty_methods(tmp_path, no_report, method):
    dropout = 0.2 if method == "dropout" else 0.0
    folder = variant(
        tmp_path,
        None,
        uncertainty__method=method,
        model__dropout=dropout,
        model__readout_dropout=0.0,
        training__scratch=method == "deep",
    )
    model, found = load(folder / "pruned.safetensors"), metrics(folder)
    assert isinstance(model, DeepEnsemble) == (method in ("deep", "snapshot", "bootstrap"))
    estimator = load_estimator(folder / "pruned.safetensors")
    assert type(estimator.estimator) is KINDS.get(method, SinglePass)
    assert found["selection"]["uncertainty"] == method
    assert found["selection"]["mean_epistemic_std_all"] > 0
    if method in ("deep", "bootstrap"):
        states = [m.trunk.embedding.weight for m in model.members]
        assert not torch.equal(states[0][: len(states[1])], states[1][: len(states[0])])
    for name in ("dense", "pruned"):
        assert found["models"][name]["equivariance_error"] <= 1e-5


@pytest.mark.parametrize("loss", slow_but(["nll", "crps"], "crps"))
def test_pooled_losses(tmp_path, no_report, loss):
    folder = variant(tmp_path, None, uncertainty__method="shallow", training__loss=loss)
    assert math.isfinite(metrics(folder)["models"]["pruned"]["crps"])


@pytest.mark.parametrize(
    "calibration",
    slow_but(["variance", "monotone", "isotonic", "conformal", "none"], "monotone", "none"),
)
def test_calibrations(tmp_path, base, no_report, calibration):
    folder = variant(tmp_path, None, uncertainty__calibration=calibration)
    found = metrics(folder)
    assert found["uncertainty"]["calibration"] == calibration
    assert found["uncertainty"]["points"] == JUDGED
    for model in found["models"].values():
        same = model["nll"] == model["nll_calibrated"]
        assert same == (calibration == "none")
    model = load_estimator(folder / "pruned.safetensors")
    graphs = run_context.sources.load("xtb", None, None, 0).with_cutoff(4.0).split("test")
    y = torch.cat([g.y for g in graphs])
    low, high = model.interval(Batch.from_data_list(graphs), 0.9)
    coverage = float(((low <= y) & (y <= high)).double().mean())
    expected = found["models"]["pruned"]["coverage_90_calibrated"]
    assert coverage == pytest.approx(expected, abs=1.5 / len(y))


def test_a_selection_in_rounds_is_made_anew(tmp_path, base, no_report, monkeypatch):
    asked = []
    original = run_context.RunContext.select
    monkeypatch.setattr(
        run_context.RunContext, "select", lambda *a: asked.append(1) or original(*a)
    )
    variant(tmp_path, base, selection__rounds=3, training__finetune_epochs=3)
    assert len(asked) == 3


def test_double_precision(tmp_path, no_report):
    folder = variant(tmp_path, None, precision="float64")
    for name in ("dense", "pruned"):
        assert metrics(folder)["models"][name]["equivariance_error"] <= 1e-10
        model = load(folder / f"{name}.safetensors")
        assert all(p.dtype == torch.float64 for p in model.parameters())


def test_all_pairs_and_raw_distances(tmp_path, no_report):
    folder = variant(
        tmp_path,
        None,
        model__cutoff=None,
        model__radial=0,
        model__attention=False,
        model__update_positions=False,
        model__aggregation="mean",
    )
    assert metrics(folder)["models"]["pruned"]["equivariance_error"] <= 1e-5


def test_without_scratch_and_without_ood(tmp_path, monkeypatch):
    full = run_context.sources.load

    def no_ood(*arguments, **_) -> GraphDataset:
        dataset = full(*arguments)
        dataset.splits["ood"] = torch.empty(0, dtype=torch.long)
        return dataset

    monkeypatch.setattr(run_context.sources, "load", no_ood)
    folder = variant(tmp_path, None)
    found = metrics(folder)
    assert set(found["models"]) == {"dense", "pruned"}
    assert all(model["ood_mae"] is None for model in found["models"].values())
    assert found["dataset"]["ood"] == 0
    assert "NaN" not in (folder / "metrics.json").read_text()
    assert (folder / "report.html").stat().st_size > 10_000


def test_too_few_validation_graphs_are_refused_before_training(tmp_path, monkeypatch):
    full = run_context.sources.load

    def few(*arguments, **_) -> GraphDataset:
        dataset = full(*arguments)
        dataset.splits["val"] = dataset.splits["val"][:9]
        return dataset

    monkeypatch.setattr(run_context.sources, "load", few)
    with pytest.raises(DataError, match="9 validation graphs, and error bars are calibrated on 10"):
        variant(tmp_path, None)
    assert not list((tmp_path / "run").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selection__rounds": 0}, "selection.rounds must be at least 1"),
        ({"selection__rounds": 9}, r"selection.rounds \(9\) cannot exceed"),
        ({"selection__band": [0.9, 0.5]}, "selection.band needs two quantiles"),
        ({"uncertainty__calibration": "temperature"}, "uncertainty.calibration must be one of"),
        (
            {"training__loss": "mae"},
            "training.loss must be one of null, faithful, squared, nll, crps",
        ),
        ({"training__monitor": "loss"}, "training.monitor must be one of null, val_mae, val_mse"),
        ({"training__monitor": "val_force_mae"}, "monitor=val_force_mae needs forces"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        variant(tmp_path, None, **changes)
    assert not (tmp_path / "run").exists()


def test_a_latency_decides_what_goes(tmp_path, base, no_report, monkeypatch):
    measured: list[list[str]] = []

    def stopwatch(_job):
        """The time of a network is the number of its channels; of positions there is none."""

        def measure(models):
            measured.append(list(models))
            widths = {
                name: sum(g.n for g in m.channel_groups() if g.kind != "position")
                for name, m in models.items()
            }
            return {name: [float(width)] * 3 for name, width in widths.items()}

        return measure

    for module in ("main_job", "timed_pruning"):
        monkeypatch.setattr(f"egnn_prune.pipeline.{module}.stopwatch", stopwatch)
    changes = {"pruning__sparsity": None, "pruning__latency": 0.6, "pruning__scope": "global"}
    folder = variant(tmp_path, base, **changes)
    found = metrics(folder)["pruning"]
    timed = [g for g in found["groups"] if g["kind"] != "position"]
    share = sum(g["kept"] for g in timed) / sum(g["total"] for g in timed)
    assert found["latency_budget"] == 0.6 and found["latency_share_measured"] == share
    assert 0.58 <= share <= 0.6 and found["sparsity"] is None
    assert all(g["kept"] == g["total"] for g in found["groups"] if g["kind"] == "position")
    # a run that stopped after the pruning, and before the stage was over, reads the times
    keep, calls = load(folder / "pruned.safetensors").state_dict(), len(measured)
    for name in ("pruned", "evaluation", "report"):
        (folder / "stages" / f"{name}.json").unlink()
    (folder / "pruned.safetensors").unlink()
    assert metrics(variant(tmp_path, base, **changes))["pruning"] == found
    again = load(folder / "pruned.safetensors").state_dict()
    assert all(torch.equal(v, again[k]) for k, v in keep.items())
    assert len(measured) - calls <= 2, "only the check before the training is done again"


def test_one_budget_decides(tmp_path):
    with pytest.raises(ConfigError, match=r"sparsity=0.5 and pruning.latency=0.6 are two budgets"):
        run(tiny(tmp_path / "run", pruning__latency=0.6))
    with pytest.raises(ConfigError, match=r"pruning.latency must be above 0 and at most 1, not 0"):
        run(tiny(tmp_path / "run", pruning__latency=0.0))


def test_messages_are_computed_again_where_the_settings_say_so(tmp_path, no_report, monkeypatch):
    seen, fit = [], run_context.fit

    def watched(task, *arguments, **keywords):
        seen.extend(m.recompute for m in task.model.modules() if isinstance(m, EGNNLayer))
        return fit(task, *arguments, **keywords)

    monkeypatch.setattr(run_context, "fit", watched)
    variant(tmp_path, None, training__recompute=True)
    assert seen and all(seen)


def test_a_fit_follows_the_schedule_averages_and_ends_early(
    tmp_path, no_report, monkeypatch, capsys
):
    asked = []
    original = run_context.fit

    def watched(task, *arguments, **keywords):
        averages = [c.decay for c in keywords["callbacks"] if isinstance(c, AveragedWeights)]
        asked.append((task.settings.schedule, averages))
        return original(task, *arguments, **keywords)

    monkeypatch.setattr(run_context, "fit", watched)
    run(
        tiny(
            tmp_path / "run",
            training__schedule="constant",
            training__average="ema",
            training__monitor="val_mae",
            training__patience=1,
            training__lr=1e-12,  # so that no look is better than another
            training__max_epochs=4,
            training__scratch=False,
        )
    )
    assert asked == [("constant", [0.999])] * 3
    lines = (tmp_path / "run" / "curves" / "dense.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "5", "10"]
    assert "dense: no better val_mae in 1 looks; 10 of 20 steps" in capsys.readouterr().out
    assert metrics(tmp_path / "run")["steps"] == {"dense": [10], "baseline": [5], "pruned": [5]}
