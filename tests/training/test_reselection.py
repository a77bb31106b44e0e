"""Selecting anew between epochs."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import TensorDataset

from egnn_prune.errors import ConfigError
from egnn_prune.training import FitSettings, RegressionTask, Reselection, fit


class Watch(Callback):
    """Notes the samples of every epoch."""

    def __init__(self) -> None:
        self.seen: list[set[int]] = []

    def on_train_epoch_start(self, trainer, module) -> None:
        self.seen.append(set())

    def on_train_batch_start(self, trainer, module, batch, index) -> None:
        self.seen[-1] |= set(batch[0].flatten().int().tolist())


def losses(model: nn.Module, batch) -> torch.Tensor:
    return model(batch[0]).flatten().square()


def train(callback: Callback, sampler) -> Watch:
    watch = Watch()
    data = TensorDataset(torch.arange(20.0)[:, None])
    loader = torch.utils.data.DataLoader(data, 5, sampler=sampler)
    task = RegressionTask(nn.Linear(1, 1), FitSettings(16, weight_decay=0.0, clip=1.0), losses)
    fit(task, loader, device=torch.device("cpu"), callbacks=[callback, watch])
    return watch


def first_half() -> torch.utils.data.WeightedRandomSampler:
    return torch.utils.data.WeightedRandomSampler([1.0] * 10 + [0.0] * 10, 20)


def test_later_epochs_draw_what_the_model_then_selects():
    asked = []

    def weights(model: nn.Module) -> torch.Tensor:
        asked.append(model)
        return torch.tensor([0.0] * 10 + [1.0] * 10)

    seen = train(Reselection(weights, [0, 2]), first_half()).seen
    assert len(asked) == 1
    assert isinstance(asked[0], nn.Linear)
    assert [max(s) < 10 for s in seen[:4]] == [True, True, False, False]
    assert all(min(s) >= 10 for s in seen[2:4])


def test_a_fit_without_weights_is_refused():
    callback = Reselection(lambda model: torch.ones(20), [0, 1])
    with pytest.raises(ConfigError, match="needs a fit with weights"):
        train(callback, torch.utils.data.SequentialSampler(range(20)))
