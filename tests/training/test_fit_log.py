"""What can be watched of a fit is what happened in it, once, and changes nothing."""

from __future__ import annotations

import copy
import sys
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from egnn_prune.configs.settings import TrainerSettings
from egnn_prune.data.collation import held
from egnn_prune.errors import ConfigError, MissingExtraError
from egnn_prune.training import (
    FitCheckpoint,
    FitLog,
    FitSettings,
    LearningCurve,
    PruningCallback,
    RegressionTask,
    fit,
    fit_log,
    graph_batches,
)

STEPS = 12  # passes of three steps


class Killed(BaseException):
    """Nobody catches it."""


class KilledAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *_) -> None:
        if trainer.global_step == self.step:
            raise Killed


def fitted(model, graphs, *callbacks, saving=None):
    torch.manual_seed(1)
    model, curve = copy.deepcopy(model), LearningCurve()
    fit(
        RegressionTask(model, FitSettings(STEPS)),
        graph_batches(graphs[0][:15], 5),
        held(graphs[1], 5),
        device=torch.device("cpu"),
        callbacks=[*callbacks, curve],
        checkpoint=saving,
    )
    return model.state_dict(), curve.rows


def points(folder) -> dict[str, dict[int, float]]:
    """By tag and step; a step that is there twice fails."""
    found = EventAccumulator(str(folder)).Reload()
    result = {}
    for tag in found.Tags()["scalars"]:
        events = found.Scalars(tag)
        result[tag] = {event.step: event.value for event in events}
        assert len(result[tag]) == len(events)
    return result


def test_tensorboard_shows_what_happened(model, graphs, tmp_path):
    pruning = PruningCallback("random", 0.5, rounds=2, scope="group")
    _, rows = fitted(model, graphs, pruning, FitLog("tensorboard", tmp_path, "dense"))
    found = points(tmp_path / "tensorboard" / "dense")
    assert found.keys() == {"train_loss", "lr", "sparsity", "val_mae", "val_mse"}
    assert list(found["train_loss"]) == list(range(1, STEPS + 1))
    assert found["sparsity"][STEPS] == pytest.approx(0.5, abs=0.1)
    assert found["lr"][1] == pytest.approx(1e-3 / 25)  # where one cycle begins
    assert max(found["lr"].values()) == pytest.approx(1e-3, rel=0.2)
    assert found["val_mae"] == pytest.approx({row["step"]: row["val_mae"] for row in rows})
    assert {p.name.partition(".")[0] for p in tmp_path.rglob("*") if p.is_file()} == {"events"}


def test_long_fits_are_logged_every_fifty_steps(model, graphs, tmp_path, monkeypatch):
    log = FitLog("tensorboard", tmp_path, "dense")
    monkeypatch.setattr(fit_log, "EVERY", 5)
    monkeypatch.setattr(fit_log, "POINTS", 2)
    fitted(model, graphs, log)
    assert list(points(log.folder)["train_loss"]) == [5, 10]


def test_a_killed_fit_goes_on_without_doubled_steps(model, graphs, tmp_path):
    undisturbed = FitLog("tensorboard", tmp_path / "a", "dense")
    fitted(model, graphs, undisturbed)
    logs = [FitLog("tensorboard", tmp_path / "b", "dense") for _ in range(3)]
    ticks = iter(range(0, 10**6, 3))  # saves every second step or so
    path = tmp_path / "fit.ckpt"
    for log, step in zip(logs, (5, 8), strict=False):
        saving = FitCheckpoint(path, 0.1, lambda: next(ticks))
        with pytest.raises(Killed):
            fitted(model, graphs, log, KilledAt(step), saving=saving)
    fitted(model, graphs, logs[2], saving=FitCheckpoint(path))
    assert points(logs[2].folder) == points(undisturbed.folder)


def test_the_log_changes_no_number_and_none_leaves_no_file(model, graphs, tmp_path):
    bare, _ = fitted(model, graphs)
    for kind in ("tensorboard", "csv", "none"):
        found, _ = fitted(model, graphs, FitLog(kind, tmp_path / kind, "dense"))
        assert all(torch.equal(found[name], bare[name]) for name in bare)
    assert not (tmp_path / "none").exists() and not (tmp_path / "csv").exists()


def test_what_is_not_installed_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(fit_log, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install wandb"):
        FitLog("wandb", tmp_path, "dense")
    with pytest.raises(MissingExtraError, match=r"egnn_prune\[train\]"):
        FitLog("tensorboard", tmp_path, "dense")
    FitLog("csv", tmp_path, "dense")
    with pytest.raises(ConfigError, match="one of tensorboard"):
        FitLog("clay tablets", tmp_path, "dense")


def test_settings_and_log_know_the_same_kinds():
    choices = TrainerSettings.__dataclass_fields__["logger"].metadata["allowed"].choices
    assert set(choices) == set(fit_log.NEEDS)


def test_a_full_disk_stops_the_log_and_not_the_fit(model, graphs, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fit_log.TensorBoard, "put", full)
    with pytest.warns(UserWarning, match="No space left on device; the fit goes on without"):
        found, _ = fitted(model, graphs, FitLog("tensorboard", tmp_path, "dense"))
    bare, _ = fitted(model, graphs)
    assert all(torch.equal(found[name], bare[name]) for name in bare)


def test_weights_and_biases_gets_the_same_points(model, graphs, tmp_path, monkeypatch):
    sent, ended, made = {}, [], []

    class Stub:  # in the place of Lightning's, which needs the package and an account
        def __init__(self, **options) -> None:
            made.append(options)
            self.experiment = SimpleNamespace(finish=lambda: ended.append(True))

        def log_metrics(self, numbers, step) -> None:
            sent.setdefault(step, {}).update(numbers)

    monkeypatch.setattr(fit_log, "find_spec", lambda name: True)
    monkeypatch.setattr(sys.modules["lightning.pytorch.loggers"], "WandbLogger", Stub)
    for _ in range(2):
        fitted(model, graphs, FitLog("wandb", tmp_path / "run", "dense"))
    assert made[0]["name"] == "run/dense" and made[0] == made[1]  # the same run goes on
    assert sent[3].keys() == {"lr", "train_loss", "val_mae", "val_mse"}
    assert ended == [True, True]
