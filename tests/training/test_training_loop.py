"""What a step costs beside its network: same numbers as a plain loop, few looks, no waiting."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from egnn_prune.data.collation import held
from egnn_prune.errors import ConfigError
from egnn_prune.graphs import tracing
from egnn_prune.models import EGNNOptions, PropertyModel
from egnn_prune.training import (
    FitSettings,
    ForceLosses,
    LearningCurve,
    RegressionTask,
    fit,
    graph_batches,
    graph_losses,
)
from egnn_prune.training.divergence import FiniteLosses
from egnn_prune.training.looks import VALIDATIONS, affordable, passes_between_looks

CPU = torch.device("cpu")
#: What makes the processor wait for a GPU.
WAITS = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2", "bincount"}


class Waits(TorchDispatchMode):
    """Counts the operations for which the processor would have to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in WAITS or (name == "repeat_interleave" and not (kwargs or {}).get("output_size")):
            self.found[name] += 1
        return function(*args, **(kwargs or {}))


def dropping(model: PropertyModel) -> PropertyModel:
    other = PropertyModel.build(
        model.elements,
        hidden=8,
        layers=2,
        readout_dropout=0.2,
        options=EGNNOptions(radial=8, attention=True),
    ).double()
    other.scale = model.scale
    return other


def test_the_numbers_are_those_of_a_plain_loop(model, graphs):
    """PyG's loader, AdamW and clipping weight by weight: the loop that this one replaces."""
    train, steps = graphs[0][:13], 9
    found = dropping(model)
    expected = copy.deepcopy(found)
    torch.manual_seed(3)
    settings = FitSettings(steps, 3e-3, clip=0.1, passes_per_look=2)
    fit(
        RegressionTask(found, settings),
        graph_batches(train, 5),
        held(graphs[1], 5),
        device=CPU,
    )
    after = torch.rand(1)

    torch.manual_seed(3)
    expected.train()
    plain = torch.optim.AdamW(expected.parameters(), 3e-3, weight_decay=1e-2, fused=False)
    schedule = torch.optim.lr_scheduler.OneCycleLR(plain, 3e-3, total_steps=steps, pct_start=0.09)
    done = 0
    while done < steps:
        for batch in DataLoader(train, 5, shuffle=True, drop_last=True):
            plain.zero_grad()
            graph_losses(expected, batch).mean().backward()
            nn.utils.clip_grad_norm_(expected.parameters(), 0.1)
            plain.step()
            schedule.step()
            done += 1
            if done == steps:
                break
        else:  # a look after each complete pass
            list(DataLoader(graphs[1], 5))
    assert torch.equal(after, torch.rand(1))
    state = expected.state_dict()
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=1e-9, atol=1e-12)


class Drawn(Callback):
    """The graphs of every step."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def on_train_batch_start(self, trainer, module, batch, *_) -> None:
        self.rows += batch.row.tolist()


@pytest.mark.parametrize(("least", "steps"), [(1, [4, 8, 12]), (2, [12]), (9, [12])])
def test_looks_are_left_out_and_change_nothing_else(model, graphs, least, steps):
    weights = []
    for each in (1, least):
        network, curve, drawn = copy.deepcopy(model), LearningCurve(), Drawn()
        torch.manual_seed(1)
        fit(
            RegressionTask(network, FitSettings(13, passes_per_look=each)),
            graph_batches(graphs[0], 10),
            held(graphs[1], 10),
            device=CPU,
            callbacks=[curve, drawn],
        )
        weights.append((network.state_dict(), drawn.rows, torch.rand(1)))
    (first, order, after), (second, other, then) = weights
    assert [row["step"] for row in curve.rows] == steps
    assert order == other and torch.equal(after, then)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(
    ("passes", "least", "every"),
    [(0, 1, 1), (1, 1, 1), (24, 1, 1), (250, 1, 2), (1000, 1, 10), (5, 3, 5), (24, 5, 6)]
    + [(100, 3, 3), (7, 100, 7), (0, 5, 1), (1000, 25, 30), (250, 2, 2)],
)
def test_passes_between_looks(passes, least, every):
    assert passes_between_looks(passes, least) == every


@pytest.mark.parametrize("passes", [1, 7, 40, 99, 100, 101, 555])
@pytest.mark.parametrize(("learned", "looked"), [(32, 1000), (3000, 2000), (4200, 500), (5, 5)])
def test_looks_cost_a_tenth(passes, learned, looked):
    """Of the learning, counted in passes forwards of one graph; one look there is always."""
    every = passes_between_looks(passes, affordable(learned, looked))
    looks = passes // every
    assert looks == 1 or looks * looked <= 0.1 * passes * learned * 3 * 1.02
    assert 1 <= looks <= 2 * VALIDATIONS
    assert passes - looks * every < every


def test_less_than_a_pass_between_looks_is_refused():
    with pytest.raises(ConfigError, match="passes_per_look must be at least 1, not 0"):
        FitSettings(10, passes_per_look=0)


def test_many_training_graphs_leave_the_looks_as_they_are():
    assert affordable(4200, 500) == 1


@pytest.mark.parametrize("losses", [graph_losses, ForceLosses(1.0)], ids=["energies", "forces"])
def test_nothing_but_the_checks_waits_for_a_gpu(model, graphs, losses):
    task = RegressionTask(model.train(), FitSettings(10), losses)
    (optimiser,), (schedule,) = task.configure_optimizers()
    batch = model.prepared(Batch.from_data_list(graphs[0][:5]))
    with Waits() as waits, tracing():
        losses(model, batch).mean().backward()
        task.configure_gradient_clipping(optimiser, 5.0)
        optimiser.step()
        schedule["scheduler"].step()
    assert not waits.found
    with Waits() as waits:  # or the counter counts nothing
        losses(model, batch).mean()
    assert waits.found


class Elsewhere:
    """A loss that says that it lies on a GPU."""

    device = torch.device("cuda")

    def __init__(self, value: float) -> None:
        self.value = torch.tensor(value)

    def detach(self) -> torch.Tensor:
        return self.value


def test_losses_on_a_gpu_are_looked_at_together():
    finite = FiniteLosses(steps=4)
    for number, value in enumerate([1.0, 2.0, 3.0, 4.0, 5.0, float("nan"), 7.0]):
        with Waits() as waits:
            finite.check(Elsewhere(value), None, number)
        assert bool(waits.found) == (number == 3)
    with pytest.raises(ConfigError, match=r"within the last 4 steps; lower training\.lr"):
        finite.check(Elsewhere(8.0), None, 7)


def test_a_loss_on_the_cpu_is_looked_at_now(graphs):
    batch = Batch.from_data_list(graphs[0][:2])
    batch.y = torch.tensor([1.0, torch.nan])
    with pytest.raises(ConfigError, match=r"targets y of batch 3 are NaN.*first in row 1"):
        FiniteLosses().check(torch.tensor(torch.nan), batch, 3)
