"""Signals mean the same before and after a fit, and what is ignored stays ignored."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from egnn_prune.data.collation import held
from egnn_prune.training import FitSettings, RegressionTask, fit, graph_batches
from egnn_prune.training.fit_checkpoint import SIGNALS, FitCheckpoint

CPU = torch.device("cpu")


@pytest.fixture(params=["saved", "not saved"])
def fitted(request, model, graphs, tmp_path):
    """A fit of four steps, with what happens after the second one."""

    class Then(Callback):
        def __init__(self, happens):
            self.happens = happens

        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 2:
                self.happens()

    def run(happens=lambda: None):
        saving = FitCheckpoint(tmp_path / "fit.ckpt", 1e6) if request.param == "saved" else None
        task, train = RegressionTask(model, FitSettings(4)), graph_batches(graphs[0][:15], 5)
        val = held(graphs[1], 5)
        fit(task, train, val, device=CPU, callbacks=[Then(happens)], checkpoint=saving)

    return run


@pytest.fixture
def own_handlers():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    seen = []
    for number in SIGNALS:
        signal.signal(number, lambda number, _: seen.append(number))
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_fit_leaves_signals_as_they_were(fitted, own_handlers):
    mine = [signal.getsignal(number) for number in SIGNALS]
    fitted()
    assert [signal.getsignal(number) for number in SIGNALS] == mine
    for number in SIGNALS:
        os.kill(os.getpid(), number)
    assert own_handlers == SIGNALS


def test_a_fit_that_fails_does_too(fitted, own_handlers):
    mine = [signal.getsignal(number) for number in SIGNALS]

    def fail():
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fitted(fail)
    assert [signal.getsignal(number) for number in SIGNALS] == mine


def test_within_a_fit_without_saves_they_mean_what_they_meant(fitted, own_handlers, request):
    if "not saved" not in request.node.name:
        pytest.skip("a fit that saves listens itself")
    fitted(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert own_handlers == [signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
def test_nohup_stays_nohup(fitted, own_handlers, number):
    signal.signal(number, signal.SIG_IGN)
    fitted(lambda: os.kill(os.getpid(), number))
    assert signal.getsignal(number) == signal.SIG_IGN and own_handlers == []
