"""The bar of a fit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from egnn_prune.training.progress import StepBar


def test_steps_of_an_earlier_process_do_not_count_as_speed(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    trainer: Any = SimpleNamespace(estimated_stepping_batches=100, global_step=60)
    bar = StepBar("dense")
    bar.on_train_start(trainer)
    assert (bar.bar.n, bar.bar.initial) == (60, 60), "the time left is of 40 steps at their speed"
    trainer.global_step = 61
    bar.on_train_batch_end(trainer)
    assert bar.bar.n == 61
    bar.on_train_end()
