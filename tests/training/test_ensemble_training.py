"""Ensembles from one fit's snapshots and from resampled data: budgets, draws, copies."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from egnn_prune import data, load, save
from egnn_prune.errors import ConfigError
from egnn_prune.models import EGNNOptions, PropertyModel
from egnn_prune.training import FitSettings, RegressionTask, fit, graph_batches
from egnn_prune.training.ensembles import bootstrap_ensemble, snapshot_ensemble
from egnn_prune.uncertainty import DeepEnsemble

CPU, LR = torch.device("cpu"), 3e-3


@pytest.fixture(scope="module")
def graphs() -> list:
    return data.load("xtb").limited(24).split("train")


def small() -> PropertyModel:
    return PropertyModel.build((1, 6, 7, 8, 9), hidden=8, layers=1, options=EGNNOptions(radial=4))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Recorder(Callback):
    """Which graphs a fit drew, and at which learning rates."""

    def __init__(self) -> None:
        self.rows, self.rates = [], []

    def on_train_batch_start(self, trainer, module, batch, *_) -> None:
        self.rows += batch.row.tolist()
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    ("steps", "cycles", "shares"),
    [(9, 3, [3, 3, 3]), (11, 3, [3, 4, 4]), (2, 2, [1, 1]), (1000, 7, None)],
)
def test_the_budget_is_divided_among_the_cycles(steps, cycles, shares):
    asked = []
    snapshot_ensemble(nn.Linear(1, 1), lambda _, s: asked.append(s), steps=steps, cycles=cycles)
    assert sum(asked) == steps and len(asked) == cycles
    assert max(asked) - min(asked) <= 1
    assert shares is None or asked == shares


def test_a_snapshot_is_the_network_at_the_end_of_its_cycle(graphs):
    model, ends, recorder = small(), [], Recorder()

    def fit_cycle(network: nn.Module, steps: int) -> None:
        task = RegressionTask(network, FitSettings(steps, LR))
        fit(task, graph_batches(graphs, 8), device=CPU, callbacks=[recorder])
        ends.append(weights(network))

    ensemble = snapshot_ensemble(model, fit_cycle, steps=30, cycles=3)
    assert isinstance(ensemble, DeepEnsemble)
    assert all(torch.equal(weights(m), end) for m, end in zip(ensemble.members, ends, strict=True))
    assert torch.equal(weights(model), ends[-1])
    assert min((ends[i] - ends[j]).abs().max() for i, j in [(0, 1), (1, 2), (0, 2)]) > 1e-3
    # each cycle begins anew: the rate rises to its maximum and falls to nothing
    rates = [recorder.rates[i : i + 10] for i in (0, 10, 20)]
    assert rates[0] == rates[1] == rates[2]
    assert max(rates[0]) == pytest.approx(LR, rel=0.1)
    assert rates[0][-1] < 1e-3 * LR
    # the copies share no memory: training on changes no member
    fit_cycle(model, 3)
    assert torch.equal(weights(ensemble.members[-1]), ends[2])


def test_a_bootstrap_member_trains_on_exactly_its_resample(graphs):
    told, drawn = [], []

    def fit_member(member: nn.Module, rows: Tensor) -> None:
        recorder = Recorder()
        resample = [graphs[i] for i in rows.tolist()]
        # two passes over 24 graphs in batches of 8
        task = RegressionTask(member, FitSettings(6, LR))
        fit(task, graph_batches(resample, 8), device=CPU, callbacks=[recorder])
        told.append(rows)
        drawn.append(recorder.rows)

    torch.manual_seed(0)
    ensemble = bootstrap_ensemble(
        small, fit_member, n=len(graphs), members=3, generator=generator()
    )
    number = {int(graph.row): i for i, graph in enumerate(graphs)}
    for rows, seen in zip(told, drawn, strict=True):
        counts = torch.tensor([number[row] for row in seen]).bincount(minlength=len(graphs))
        assert torch.equal(counts, 2 * rows.bincount(minlength=len(graphs)))
        assert 0 in counts and counts.max() >= 4  # some are left out, some come several times
    assert not torch.equal(told[0].sort().values, told[1].sort().values)
    starts = [weights(m) for m in ensemble.members]
    assert (starts[0] - starts[1]).abs().max() > 1e-2


def test_resamples_are_uniform_and_decided_by_the_generator():
    def resamples(seed: int, members: int = 2, n: int = 50) -> Tensor:
        rows: list[Tensor] = []

        def fit_member(_: nn.Module, drawn: Tensor) -> None:
            rows.append(drawn)
            torch.rand(3, generator=source)  # a fit that uses the generator changes nothing

        source = generator(seed)
        build = partial(nn.Linear, 1, 1)
        bootstrap_ensemble(build, fit_member, n=n, members=members, generator=source)
        return torch.stack(rows)

    assert torch.equal(resamples(3), resamples(3))
    assert not torch.equal(resamples(3), resamples(4))
    rows = resamples(0, members=200, n=100)
    assert rows.shape == (200, 100) and int(rows.min()) == 0 and int(rows.max()) == 99
    distinct = torch.tensor([len(r.unique()) for r in rows]).double()
    # the share of distinct samples is 1 - (1 - 1/n)^n; its standard error here is 0.2 %
    assert float(distinct.mean()) / 100 == pytest.approx(1 - (1 - 1 / 100) ** 100, abs=0.01)
    counts = rows.flatten().bincount(minlength=100).double()
    chi2 = float(((counts - 200).square() / 200).sum())
    assert abs(chi2 - 99) < 5 * math.sqrt(2 * 99)


def test_image_networks(dtype):
    x = torch.randn(32, 3, 4, 4, dtype=dtype, generator=generator())
    loader = DataLoader(TensorDataset(x, x.mean((1, 2, 3)) > 0), 16)

    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).to(dtype)

    def losses(model: nn.Module, batch: list[Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1].long(), reduction="none")

    def fit_cycle(model: nn.Module, steps: int) -> float:
        return fit(RegressionTask(model, FitSettings(steps, LR), losses), loader, device=CPU)

    prediction = snapshot_ensemble(build(), fit_cycle, steps=6, cycles=2)(x)
    assert prediction.logits.shape == (2, 32, 2) and prediction.mutual_information.max() > 0


def test_an_ensemble_of_snapshots_is_saved(tmp_path, graphs):
    fit_cycle = partial(fit_quickly, graphs)
    ensemble = snapshot_ensemble(small(), fit_cycle, steps=4, cycles=2)
    save(ensemble, tmp_path / "ensemble.safetensors")
    again = load(tmp_path / "ensemble.safetensors")
    assert torch.equal(weights(again), weights(ensemble))


def fit_quickly(graphs: list, network: nn.Module, steps: int) -> float:
    task = RegressionTask(network, FitSettings(steps, LR))
    return fit(task, graph_batches(graphs, 8), device=CPU)


def never(*_: object) -> None:
    raise AssertionError("nothing may be trained before the numbers are checked")


@pytest.mark.parametrize(
    ("steps", "cycles", "message"),
    [(10, 1, "at least 2 members, not 1"), (3, 4, "3 optimiser steps .* among 4 cycles")],
)
def test_bad_cycles(steps, cycles, message):
    with pytest.raises(ConfigError, match=message):
        snapshot_ensemble(nn.Linear(1, 1), never, steps=steps, cycles=cycles)


@pytest.mark.parametrize(
    ("n", "members", "message"), [(9, 1, "at least 2 members, not 1"), (1, 3, "at least 2 train")]
)
def test_bad_resamples(n, members, message):
    with pytest.raises(ConfigError, match=message):
        bootstrap_ensemble(never, never, n=n, members=members, generator=generator())
