"""A fit that is stopped at any moment and goes on is the fit that nobody stopped."""

from __future__ import annotations

import copy
import os
import signal
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from egnn_prune.data.collation import held
from egnn_prune.errors import ConfigError, InputError
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
HOOKS = ("on_train_batch_start", "on_train_batch_end", "on_validation_end")


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


def fitted(parts, saving=None, more=()):
    network, train, val, callbacks = parts
    task = RegressionTask(network, FitSettings(STEPS, 3e-3))
    fit(task, train, val, device=CPU, callbacks=[*more, *callbacks], checkpoint=saving)
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in callbacks[-1].rows]
    return network.state_dict(), rows, torch.rand(1)


@pytest.fixture
def dropping(model):
    other = PropertyModel.build(
        model.elements, hidden=8, layers=2, readout_dropout=0.2, options=EGNNOptions(radial=8)
    )
    other.scale = model.scale
    return other


@pytest.mark.parametrize("step", range(STEPS))
@pytest.mark.parametrize(
    "hook", ["on_train_batch_start", "on_train_batch_end", "on_validation_end"]
)
def test_killed_anywhere(dropping, graphs, tmp_path, step, hook):
    saving = partial(FitCheckpoint, tmp_path / "fit.ckpt", 0.0)  # at every step
    torch.manual_seed(3)
    expected = fitted(setting(dropping, graphs))
    torch.manual_seed(3)
    try:
        fitted(setting(dropping, graphs), saving(), [KilledAt(step, hook)])
    except Killed:
        pass
    torch.manual_seed(99)
    parts = setting(dropping, graphs)
    found = fitted(parts, saving())
    assert found[1] == expected[1]
    assert all(torch.equal(v, expected[0][k]) for k, v in found[0].items())
    again = setting(dropping, graphs)
    assert all(torch.equal(v, expected[0][k]) for k, v in fitted(again, saving())[0].items())
    assert again[3][-1].rows == parts[3][-1].rows


def test_a_damaged_file_is_lost_work_and_no_more(dropping, graphs, tmp_path):
    path = tmp_path / "fit.ckpt"
    torch.manual_seed(3)
    expected = fitted(setting(dropping, graphs), FitCheckpoint(path))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"\x80\x02c" + whole):
        path.write_bytes(content)
        torch.manual_seed(3)
        with pytest.warns(UserWarning, match=r"fit\.ckpt is damaged .*; the fit begins anew"):
            found = fitted(setting(dropping, graphs), FitCheckpoint(path))
        assert found[1] == expected[1]


def test_the_file_of_another_network_is_refused(dropping, graphs, tmp_path):
    path = tmp_path / "fit.ckpt"
    fitted(setting(dropping, graphs), FitCheckpoint(path))
    other = PropertyModel.build(dropping.elements, hidden=4, layers=1)
    other.scale = dropping.scale
    with pytest.raises(InputError, match=r"another fit or another version .* delete it to begin"):
        fitted(setting(other, graphs), FitCheckpoint(path))


def test_batches_that_cannot_go_on_are_refused(dropping, graphs, tmp_path):
    network, _, val, callbacks = setting(dropping, graphs)
    with pytest.raises(ConfigError, match="only a fit on graph_batches"):
        fitted((network, held(graphs[0], 5), val, callbacks), FitCheckpoint(tmp_path / "fit.ckpt"))


def test_a_fit_that_the_system_ends_saves_first(dropping, graphs, tmp_path):
    path = tmp_path / "fit.ckpt"
    torch.manual_seed(3)
    expected = fitted(setting(dropping, graphs))

    class Ended(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 5:
                os.kill(os.getpid(), signal.SIGTERM)

    torch.manual_seed(3)
    with pytest.raises(KeyboardInterrupt):
        fitted(setting(dropping, graphs), FitCheckpoint(path, minutes=1e6), [Ended()])
    torch.manual_seed(99)
    steps = []

    class Counts(Callback):
        def on_train_batch_end(self, trainer, *_):
            steps.append(trainer.global_step)

    found = fitted(setting(dropping, graphs), FitCheckpoint(path), [Counts()])
    assert steps == [6, 7, 8, 9, 10]
    assert all(torch.equal(v, expected[0][k]) for k, v in found[0].items())


def test_time_goes_by_between_saves(dropping, graphs, tmp_path):
    now = [0.0]

    class Ticks(Callback):
        def on_train_batch_end(self, *_):
            now[0] += 60.0

    saving = FitCheckpoint(tmp_path / "fit.ckpt", 4.0, lambda: now[0])
    saved = []
    write, saving.save = (
        saving.save,
        lambda trainer, ended=False: (
            saved.append(trainer.global_step),
            write(trainer, ended),
        ),
    )
    fitted(setting(dropping, graphs), saving, [Ticks()])
    assert saved == [4, 8, 10] and saving.seconds == 600.0
