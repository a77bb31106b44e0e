"""Learning rates along a fit, against formulas."""

from __future__ import annotations

import math

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from egnn_prune.errors import ConfigError
from egnn_prune.training import FitSettings, PotentialSettings, RegressionTask, fit, graph_batches

STEPS, LR = 8, 3e-3


class Rates(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer, *_) -> None:
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def rates(model, graphs, steps=STEPS, **how) -> list[float]:
    task = RegressionTask(model, FitSettings(steps, LR, **how))
    batches, seen = graph_batches(graphs[0][:10], 5), Rates()
    fit(task, batches, device=torch.device("cpu"), callbacks=[seen])
    return seen.seen


def of_torch(steps: int, rise: float) -> list[float]:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], LR)
    schedule = OneCycleLR(optimiser, LR, total_steps=steps, pct_start=rise)
    found = []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0])
        optimiser.step()
        if len(found) < steps:
            schedule.step()
    return found


def test_one_cycle_is_the_default(model, graphs):
    found = rates(model, graphs, warmup=0.5)
    assert found == pytest.approx(of_torch(STEPS, 0.5), rel=1e-12)
    assert max(found) == pytest.approx(LR) and found.index(max(found)) == 3


@pytest.mark.parametrize("steps", [1, STEPS])
def test_cosine_falls_from_the_highest_rate(model, graphs, steps):
    expected = [LR * (1 + math.cos(math.pi * k / steps)) / 2 for k in range(steps)]
    assert rates(model, graphs, steps, schedule="cosine") == pytest.approx(expected, rel=1e-12)


def test_a_constant_rate_stays(model, graphs):
    assert rates(model, graphs, schedule="constant") == [LR] * STEPS


@pytest.mark.parametrize("kind", [FitSettings, PotentialSettings])
def test_an_unknown_schedule_is_named(kind):
    with pytest.raises(ConfigError, match="one of onecycle, cosine, constant, not 'step'"):
        kind(3, schedule="step")
