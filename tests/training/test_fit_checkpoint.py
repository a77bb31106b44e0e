"""A fit that is stopped at any moment and goes on is the fit that nobody stopped."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from egnn_prune.channels import gates
from egnn_prune.data.collation import held
from egnn_prune.models import EGNNOptions, PropertyModel
from egnn_prune.training import (
    FitSettings,
    KeepBest,
    LearningCurve,
    Pruning,
    PruningCallback,
    RegressionTask,
    fit,
    graph_batches,
)
from egnn_prune.training.fit_checkpoint import FitCheckpoint
from egnn_prune.training.weight_averaging import AveragedWeights

CPU = torch.device("cpu")
STEPS = 10  # passes of three steps


class Killed(BaseException):
    """Nobody catches it."""


class KilledAt(Callback):
    def __init__(self, step: int, hook: str) -> None:
        self.step = step
        setattr(self, hook, self._kill)

    def _kill(self, trainer, *_) -> None:
        if trainer.global_step == self.step:
            raise Killed


def setting(model, graphs, pruning=True):
    network = copy.deepcopy(model)
    callbacks = [AveragedWeights(0.9)]
    if pruning:
        how = Pruning("random", 0.5, rounds=3, until=0.8, scope="group")
        callbacks.append(PruningCallback(how))
    curve = LearningCurve()
    best = KeepBest("val_mae", lambda: all(c.finished for c in callbacks[1:]))
    weights = torch.linspace(0.5, 1, 15)
    train = graph_batches(graphs[0][:15], 5, weights)
    return network, train, held(graphs[1], 5), [*callbacks, best, curve]


def fitted(parts, path=None, more=()):
    network, train, val, callbacks = parts
    task = RegressionTask(network, FitSettings(STEPS, 3e-3))
    fit(task, train, val, device=CPU, callbacks=[*more, *callbacks], checkpoint=path)
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in callbacks[-1].rows]
    return network.state_dict(), rows, torch.rand(1)


@pytest.fixture
def dropping(model):
    other = PropertyModel.build(
        model.elements, hidden=8, layers=2, readout_dropout=0.2, options=EGNNOptions(radial=8)
    )
    other.scale = model.scale
    return other


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(FitCheckpoint.__init__, "__defaults__", (0.0, *FitCheckpoint.__init__.__defaults__[1:]))


@pytest.mark.parametrize("step", range(STEPS))
@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_train_batch_end", "on_validation_end"])
def test_killed_anywhere(dropping, graphs, tmp_path, every_step, step, hook):
    path = tmp_path / "fit.ckpt"
    torch.manual_seed(3)
    expected = fitted(setting(dropping, graphs))
    torch.manual_seed(3)
    try:
        fitted(setting(dropping, graphs), path, [KilledAt(step, hook)])
    except Killed:
        pass
    torch.manual_seed(99)
    parts = setting(dropping, graphs)
    found = fitted(parts, path)
    assert found[1] == expected[1]
    assert all(torch.equal(v, expected[0][k]) for k, v in found[0].items())
    again = setting(dropping, graphs)
    assert all(torch.equal(v, expected[0][k]) for k, v in fitted(again, path)[0].items())
    assert again[3][-1].rows == parts[3][-1].rows
