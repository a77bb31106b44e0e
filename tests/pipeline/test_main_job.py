"""The main job, tiny: what it leaves, that it repeats itself, continues, and never overwrites."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_jobs import metrics, tiny

from egnn_prune import load, load_estimator
from egnn_prune.errors import ConfigError
from egnn_prune.evaluation.predict import point_predictions, predict_all, targets
from egnn_prune.pipeline import main_job as pipeline
from egnn_prune.pipeline import run_context as run_context
from egnn_prune.pipeline.main_job import run
from egnn_prune.runs import run_folder
from egnn_prune.testing import equivariance_error
from egnn_prune.uncertainty import Calibrated, RobustScaling

CALIBRATED = ("", "_calibrated")
MODEL_KEYS = {
    *("test_mae", "test_rmse", "ood_mae", "unit", "params", "macs_per_graph", "latency_ms"),
    *("latency_batch", "nll", "spearman_error_uncertainty", "equivariance_error"),
    *("train_seconds", "checkpoint_bytes"),
}
SCORES = {
    *("nll", "crps", "ence", "miscalibration_area", "rms_calibration", "sharpness", "ause"),
    *("coverage_50", "coverage_80", "coverage_90", "coverage_95", "spearman_error_uncertainty"),
}
KEYS = {
    *("schema_version", "config_hash", "git_commit", "seed", "device", "threads", "dataset"),
    *("models", "selection", "ledger", "uncertainty", "intervals", "force_uncertainty", "steps"),
}
FORCE_SCORES = {f"force_{name}" for name in SCORES - {"spearman_error_uncertainty"}} | {
    *("force_spearman_atoms", "force_spearman_structures", "force_auroc_wrong"),
}
FILES = {
    *("metrics.json", "pruned_vs_baseline.png", "parity.png", "report.html"),
    *("dense.safetensors", "pruned.safetensors"),
}


def without_times(content: dict[str, Any]) -> dict[str, Any]:
    """The numbers that a second run must reproduce."""
    content = {k: v for k, v in content.items() if k != "git_commit"}
    times = ("latency_ms", "train_seconds")
    content["intervals"] = {k: v for k, v in content["intervals"].items() if k not in times}
    content["models"] = {
        name: {k: v for k, v in model.items() if k not in times}
        for name, model in content["models"].items()
    }
    return content


@pytest.mark.slow
def test_the_default_folder_of_an_interrupted_run_is_found_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline.Job, "continue_dense", lambda _: 1 / 0)
    settings = tiny(tmp_path)
    settings.out = None
    with pytest.raises(ZeroDivisionError):
        run(settings)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    folder = run(settings)
    assert len(list(Path("runs").iterdir())) == 1 and (folder / "report.html").exists()
    assert run_folder.RunFolder(settings).path != folder, "a finished run is never continued"


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "metrics.json").write_text("mine")
    with pytest.raises(ConfigError, match="holds files that are not a run"):
        run(tiny(tmp_path))
    assert (tmp_path / "metrics.json").read_text() == "mine"


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return run(tiny(tmp_path_factory.mktemp("job") / "run"))


@pytest.fixture(scope="module")
def dataset(finished):
    settings = tiny(finished)
    data = run_context.sources.load("xtb").limited(60)
    return data.with_cutoff(settings.model.cutoff)


def test_every_promised_file(finished):
    assert {p.name for p in finished.iterdir() if p.is_file()} >= FILES
    for name in ("pruned_vs_baseline.png", "parity.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 2
    assert 'src="http' not in page and 'href="http' not in page.split("</style>")[0]
    assert not list(finished.rglob(".*"))  # no temporary files


def test_metrics_have_the_keys_of_the_schema(finished):
    content = metrics(finished)
    assert set(content) - {"pruning"} == KEYS
    assert set(content["models"]) == {"dense", "pruned", "scratch"}
    for model in content["models"].values():
        bars = {f"{a}{s}{b}" for s in SCORES for a in ("", "ood_") for b in CALIBRATED}
        bars |= {f"{a}{s}{b}" for s in FORCE_SCORES for a in ("", "ood_") for b in CALIBRATED}
        bars |= {f"{a}ood_auroc{b}" for a in ("", "force_") for b in CALIBRATED}
        assert set(model) - {"val_mae"} == MODEL_KEYS | bars
        assert model["unit"] == "eV" and model["latency_batch"] == 128
        numbers = [v for v in model.values() if not isinstance(v, str)]
        assert all(math.isfinite(v) for v in numbers)
        assert model["equivariance_error"] <= 1e-5
    assert content["seed"] == 0 and content["device"] == "cpu" and content["threads"] == 1
    assert content["dataset"]["train"] == 60 and content["dataset"]["test"] == 150


def test_metrics_are_what_the_models_say(finished, dataset):
    y = torch.cat([g.y for g in dataset.split("test")])
    for name in ("dense", "pruned"):
        found, model = metrics(finished)["models"][name], load(finished / f"{name}.safetensors")
        error = point_predictions(model, dataset.split("test"), torch.device("cpu")) - y
        assert found["test_mae"] == pytest.approx(float(error.abs().mean()), rel=1e-6)
        assert found["test_rmse"] == pytest.approx(float(error.square().mean().sqrt()), rel=1e-6)
        assert found["params"] == sum(p.numel() for p in model.parameters())
        assert found["checkpoint_bytes"] == (finished / f"{name}.safetensors").stat().st_size


def test_loaded_models_reproduce_predictions_bit_for_bit(finished, dataset):
    with np.load(finished / "predictions.npz", allow_pickle=False) as stored:
        for name in ("dense", "pruned"):
            model = load_estimator(finished / f"{name}.safetensors")
            for split in ("test", "ood"):
                found = predict_all(model, dataset.split(split), torch.device("cpu"), "")
                assert np.array_equal(found.mean.numpy(), stored[f"{split}_{name}_mean"])
                bars = stored[f"{split}_{name}_std_calibrated"]
                assert np.array_equal(found.variance.sqrt().numpy(), bars)
                assert not np.array_equal(bars, stored[f"{split}_{name}_std"])


def test_calibrations_know_the_validation_split_alone(finished, dataset):
    """The stored factor is the one that the validation split gives, and no other split."""
    for name in ("dense", "pruned"):
        model = load_estimator(finished / f"{name}.safetensors")
        assert isinstance(model, Calibrated)
        factors = {}
        for split in ("val", "test", "ood"):
            graphs = dataset.split(split)
            raw = predict_all(model.estimator, graphs, torch.device("cpu"), "")
            factors[split] = float(RobustScaling().fit(raw, targets(graphs)).factor)
        assert float(model.calibration.factor) == pytest.approx(factors["val"], rel=1e-12)
        assert min(abs(factors["val"] - factors[s]) for s in ("test", "ood")) > 1e-6


def test_the_gallery_holds_the_most_uncertain_graphs(finished, dataset):
    with np.load(finished / "predictions.npz", allow_pickle=False) as stored:
        for split in ("test", "ood"):
            epistemic_std = stored[f"{split}_pruned_epistemic_std"]
            rows = stored[f"gallery_{split}_row"]
            assert len(rows) == 2 and np.array_equal(
                epistemic_std[rows], np.sort(epistemic_std)[::-1][:2]
            )
            graphs = [dataset.split(split)[i] for i in rows]
            positions = np.concatenate([g.pos.numpy() for g in graphs])
            assert np.array_equal(stored[f"gallery_{split}_pos"], positions)
            assert stored[f"gallery_{split}_frame"].tolist() == [int(g.row) for g in graphs]
            assert f"gallery_{split}_cell" not in stored, "molecules have no cell"
            smiles = [dataset.smiles[int(g.row)] for g in graphs]
            assert stored[f"gallery_{split}_smiles"].tolist() == smiles
            sizes = np.cumsum(stored[f"{split}_forces_atoms"])[:-1]
            for key, own in (("forces_std", "std_calibrated"), ("distance", "distance")):
                parts = np.split(stored[f"{split}_pruned_forces_{own}"], sizes)
                chosen = np.concatenate([parts[row] for row in rows])
                assert np.array_equal(stored[f"gallery_{split}_{key}"], chosen)


def test_the_pruned_model_is_smaller_and_equivariant(finished, dataset):
    models = metrics(finished)["models"]
    for key in ("params", "macs_per_graph", "checkpoint_bytes"):
        same = pytest.approx(models["scratch"][key], rel=0.01 * (key == "checkpoint_bytes"))
        assert models["pruned"][key] == same  # the files' error bars may have other sources
        assert models["pruned"][key] < models["dense"][key]
    model = load(finished / "pruned.safetensors")
    batch = pipeline.Batch.from_data_list(dataset.split("test")[:10])
    del batch.edge_index  # found again for every view
    assert equivariance_error(model, batch, scale=1.0) <= 1e-5


def test_floor_of_sparsity_times_n_channels_are_gone(finished):
    pruning = metrics(finished)["pruning"]
    assert len(pruning["groups"]) > 4
    for group in pruning["groups"]:
        assert group["total"] - group["kept"] == math.floor(0.5 * group["total"])


def test_the_ledger_adds_up(finished):
    content = metrics(finished)
    rows, models = content["ledger"], content["models"]
    assert sum(row["total"] for row in rows) == models["dense"]["params"]
    assert sum(row["total"] - row["pruned"] for row in rows) == models["pruned"]["params"]
    for row in rows:
        assert row["pruned"] + row["frozen"] + row["trainable"] == row["total"]


def test_the_same_seed_gives_the_same_numbers(finished, tmp_path, no_report):
    again = run(tiny(tmp_path / "again"))
    assert without_times(metrics(again)) == without_times(metrics(finished))
    for name in ("dense", "pruned"):
        mine, theirs = (f / f"{name}.safetensors" for f in (again, finished))
        assert mine.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
def test_another_seed_gives_other_numbers(finished, tmp_path):
    other = run(tiny(tmp_path / "other", seed=1))
    assert (
        metrics(other)["models"]["dense"]["test_mae"]
        != (metrics(finished)["models"]["dense"]["test_mae"])
    )


class Interrupted(Exception):
    """Pulls the plug."""


@pytest.mark.parametrize(
    "stage",
    [
        "select_uncertain_graphs",
        pytest.param("train_scratch", marks=pytest.mark.slow),
        pytest.param("evaluate", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_continues(finished, tmp_path, monkeypatch, no_report, stage):
    settings = tiny(tmp_path / "run")
    with monkeypatch.context() as patch:

        def stop(_: object) -> None:
            raise Interrupted

        patch.setattr(pipeline.Job, stage, stop)
        with pytest.raises(Interrupted):
            run(settings)
    before = snapshot(tmp_path / "run")
    torch.manual_seed(99)  # the second start finds other random numbers
    run(settings)
    after = snapshot(tmp_path / "run")
    assert {k: after[k] for k in before} == before  # nothing is done twice
    assert without_times(metrics(tmp_path / "run")) == without_times(metrics(finished))


@pytest.mark.slow
def test_an_interruption_within_a_stage_starts_that_stage_again(finished, tmp_path, monkeypatch):
    settings = tiny(tmp_path / "run")
    with monkeypatch.context() as patch:

        def stop(*_: object) -> None:
            raise Interrupted

        patch.setattr("egnn_prune.pipeline.main_job.compact", stop)
        with pytest.raises(Interrupted):
            run(settings)
    assert not (tmp_path / "run" / "pruned.safetensors").exists()
    run(settings)
    assert without_times(metrics(tmp_path / "run")) == without_times(metrics(finished))


def test_a_finished_run_is_left_alone(finished, capsys):
    before = snapshot(finished)
    run(tiny(finished))
    assert snapshot(finished) == before
    assert "nothing is run again" in capsys.readouterr().out


def test_another_configuration_is_refused(finished):
    before = snapshot(finished)
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        run(tiny(finished, pruning__sparsity=0.25))
    assert snapshot(finished) == before


def test_equal_stages_are_copied(finished, tmp_path, monkeypatch, no_report):
    labels = []
    original = run_context.fit
    monkeypatch.setattr(
        run_context, "fit", lambda *a, **k: labels.append(k["label"]) or original(*a, **k)
    )
    settings = tiny(tmp_path / "run", reuse=[str(finished)], pruning__sparsity=0.25)
    run(settings)
    assert labels == ["pruned", "scratch", "scratch_continued"]
    for name in ("dense.safetensors", "stages/trained.safetensors", "stages/selection.npz"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.slow
def test_a_run_with_copied_stages_is_the_run_without(finished, tmp_path):
    settings = tiny(tmp_path / "run", reuse=[str(finished)], pruning__sparsity=0.25)
    run(settings)
    alone = run(tiny(tmp_path / "alone", pruning__sparsity=0.25))
    assert without_times(metrics(tmp_path / "run")) == without_times(metrics(alone))


def test_a_damaged_folder_to_reuse_is_named(finished, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(finished, broken)
    (broken / "stages" / "trained.safetensors").unlink()
    with pytest.raises(ValueError, match=r"broken lacks stages/trained\.safetensors"):
        run(tiny(tmp_path / "run", reuse=[str(broken)]))
