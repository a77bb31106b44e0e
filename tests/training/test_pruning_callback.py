"""Pruning during a fit: masks only, on schedule, resumable, under DDP, with any loss."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from egnn_prune.channels import ChannelGate, ChannelGroup, gate_members, linear_members
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import CRITERIA, compact, effective_sparsity, keep_masks, rewind, snapshot
from egnn_prune.pruning.masks import freeze_entries
from egnn_prune.training import GradualUnfreezing, IncrementalPruning, Pruning, PruningCallback


class Perceptron(nn.Module):
    """2 to 1 with one hidden layer of ``n`` channels that can be removed."""

    def __init__(self, n: int = 20) -> None:
        super().__init__()
        self.n = n
        self.lower, self.gate, self.upper = nn.Linear(2, n), ChannelGate(n), nn.Linear(n, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.gate(F.silu(self.lower(x)), torch.arange(len(x)))
        return self.upper(hidden)[:, 0]

    def channel_groups(self) -> list[ChannelGroup]:
        members = (
            *linear_members("lower", self.n, rows=True),
            *linear_members("upper", self.n),
            *gate_members("gate", self.n),
        )
        return [ChannelGroup("hidden", "hidden", self.n, members, "gate")]

    def resized(self, keep: dict[str, Tensor]) -> Perceptron:
        return Perceptron(len(keep["hidden"]))


def losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (model(batch[0]) - batch[1]).square()


class Task(L.LightningModule):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.removed: list[int] = []

    def training_step(self, batch, _):
        if isinstance(self.model, Perceptron):
            mask = keep_masks(self.model)["hidden"]
            self.removed.append(int((~mask).sum()))
        return losses(self.model, batch).mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2, weight_decay=0.1)


@pytest.fixture
def loader() -> DataLoader:
    x = torch.randn(64, 2)
    return DataLoader(TensorDataset(x, (x[:, 0] * x[:, 1]).sin()), 16)  # 4 steps an epoch


def trained(task: L.LightningModule, loader, *callbacks, epochs: int = 5, **options) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options = {"max_epochs": epochs, "enable_checkpointing": False} | options
    trainer = L.Trainer(accelerator="cpu", callbacks=list(callbacks), **quiet, **options)
    checkpoint = options.pop("ckpt_path", None)
    trainer.fit(task, loader, ckpt_path=checkpoint)
    return trainer


def pruning(loader, **options) -> PruningCallback:
    defaults = {"sparsity": 0.5, "batches": loader, "loss": losses, "rounds": 3, "until": 0.5}
    return PruningCallback(options.pop("criterion", "taylor"), **(defaults | options))


def test_rounds_come_when_the_schedule_says(loader):
    task = Task(Perceptron())
    callback = pruning(loader, schedule="linear", sparsity=0.6)
    model, tensors = task.model, [id(p) for p in task.model.parameters()]
    trained(task, loader, callback)
    # 20 steps; rounds before steps 0, 4 or 5, and 9; of 20 channels 4, 8, 12 are gone
    assert task.removed == [4] * 4 + [8] * 5 + [12] * 11
    assert task.model is model and [id(p) for p in model.parameters()] == tensors
    assert math.isclose(effective_sparsity(model), 0.6)
    x = torch.randn(5, 2)
    assert torch.allclose(compact(model)(x), model(x), atol=1e-6)


@pytest.mark.parametrize("criterion", sorted(set(CRITERIA) - {"uncertainty"}))
def test_every_criterion_prunes_during_a_fit(loader, criterion):
    task = Task(Perceptron())
    trained(task, loader, pruning(loader, criterion=criterion))
    assert task.removed[-1] == 10


def test_uncertainty_looks_at_the_variance_that_it_is_given(loader):
    seen = []

    def variance(model: nn.Module, batch) -> Tensor:
        seen.append(len(batch[0]))
        return 1 + model(batch[0]).square()

    task = Task(Perceptron())
    trained(task, loader, pruning(loader, criterion="uncertainty", variance=variance))
    assert task.removed[-1] == 10 and set(seen) == {16}


def test_survivors_learn_and_zeros_stay(loader):
    task = Task(Perceptron())
    trained(task, loader, pruning(loader, rounds=1))
    keep = keep_masks(task.model)["hidden"]
    before = task.model.lower.weight.detach().clone()
    trained(task, loader, epochs=1)
    after = task.model.lower.weight
    assert (after[~keep] == 0).all() and (after[keep] != before[keep]).all()


@pytest.mark.parametrize(
    ("of", "removed"), [("original", [0, 0, 5, 5, 10, 10]), ("remaining", [0, 0, 5, 5, 8, 8])]
)
def test_incremental_pruning_every_other_epoch(loader, of, removed):
    task = Task(Perceptron())
    callback = IncrementalPruning("magnitude", 0.25, every=2, of=of, batches=loader, loss=losses)
    trained(task, loader, callback, epochs=6)
    assert task.removed[::4] == removed  # floor(20 * 0.4375) = 8


def test_incremental_pruning_stops_at_its_limit(loader):
    task = Task(Perceptron())
    callback = IncrementalPruning("magnitude", 0.4, every=1, of="original", limit=0.5)
    trained(task, loader, callback, epochs=6)
    assert task.removed[::4] == [0, 8, 10, 10, 10, 10]


def test_rewinding_after_every_round(loader):
    task = Task(Perceptron())
    start = snapshot(task.model)
    rewound = []

    def after(model: nn.Module) -> None:
        rewind(model, start)
        keep = keep_masks(model)["hidden"]
        rewound.append(torch.equal(model.lower.weight[keep], start["lower.weight"][keep]))

    trained(task, loader, pruning(loader, after_round=after))
    assert rewound == [True] * 3


def test_a_resumed_fit_goes_on_where_it_stopped(loader, tmp_path):
    torch.manual_seed(1)
    whole, halves = Task(Perceptron()), Task(Perceptron())
    halves.load_state_dict(whole.state_dict())
    again = copy.deepcopy(halves)
    trained(whole, loader, pruning(loader, until=0.8))

    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer, *_) -> None:
            if trainer.current_epoch == 1:
                trainer.save_checkpoint(tmp_path / "half.ckpt")
                trainer.should_stop = True

    trained(halves, loader, pruning(loader, until=0.8), Stop())
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=5,
        enable_checkpointing=False,
        callbacks=[pruning(loader, until=0.8)],
        **quiet,
    )
    trainer.fit(again, loader, ckpt_path=tmp_path / "half.ckpt", weights_only=False)
    assert again.removed == whole.removed[8:]
    for a, b in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)


class Written(L.Callback):
    """Leaves each process's model in a file: DDP's workers are gone after the fit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer, pl_module) -> None:
        (keep,) = (c.keep for c in trainer.callbacks if isinstance(c, PruningCallback))
        content = pl_module.model.state_dict() | {f"keep {k}": v for k, v in keep.items()}
        torch.save(content, self.folder / f"{trainer.global_rank}.pt")


@pytest.mark.slow
def test_ddp_with_two_processes_keeps_one_set_of_masks(loader, tmp_path):
    """Each process draws other random scores; the masks of the first one count."""

    def differently(group, context):
        return torch.rand(group.n) + torch.distributed.get_rank() * torch.arange(group.n).flip(0)

    task = Task(Perceptron())
    callback = pruning(loader, criterion=differently)
    trained(task, loader, callback, Written(tmp_path), strategy="ddp_fork", devices=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(v, second[k]) for k, v in first.items())
    assert int(first["lower.parametrizations.weight.0.pruned"].all(1).sum()) == 10


def test_ddp_wrapping_keeps_masks(loader):
    torch.distributed.init_process_group(
        "gloo", init_method="tcp://127.0.0.1:29537", rank=0, world_size=1
    )
    try:
        task = Task(Perceptron())
        trained(task, loader, pruning(loader, rounds=1))
        keep = keep_masks(task.model)["hidden"]
        wrapped = nn.parallel.DistributedDataParallel(task.model)
        optimiser = torch.optim.AdamW(wrapped.parameters(), 1e-2, weight_decay=0.1)
        for x, y in loader:
            optimiser.zero_grad()
            (wrapped(x) - y).square().mean().backward()
            optimiser.step()
        assert (task.model.lower.weight[~keep] == 0).all()
        assert torch.equal(keep_masks(wrapped.module)["hidden"], keep)
    finally:
        torch.distributed.destroy_process_group()


def test_gradual_unfreezing_from_the_top(loader):
    task = Task(Perceptron())
    trained(task, loader, pruning(loader, rounds=1), epochs=1)
    keep = keep_masks(task.model)["hidden"]
    lower = [task.model.lower.weight.detach().clone()]
    upper = [task.model.upper.weight.detach().clone()]

    class Watch(L.Callback):
        def on_train_batch_end(self, *_) -> None:
            lower.append(task.model.lower.weight.detach().clone())
            upper.append(task.model.upper.weight.detach().clone())

    trained(task, loader, GradualUnfreezing(every=3), Watch(), epochs=2)
    changed = [not torch.equal(a, b) for a, b in itertools.pairwise(lower)]
    assert changed == [False] * 3 + [True] * 5
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(upper))
    assert (lower[-1][~keep] == 0).all()
    with pytest.raises(ConfigError, match="every 1 or more"):
        GradualUnfreezing(0)


def test_what_cannot_be_pruned_is_refused(loader):
    with pytest.raises(ConfigError, match=r"Task cannot be pruned.*module="):
        trained(Task(nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))), loader, pruning(loader))
    with pytest.raises(ConfigError, match="fraction removed"):
        PruningCallback("taylor", 1.0)
    with pytest.raises(ConfigError, match="needs data"):
        trained(Task(Perceptron()), loader, pruning(loader, batches=None))


def test_a_callback_can_prune_another_model(loader):
    callback = pruning(loader)
    first, second = Task(Perceptron()), Task(Perceptron())
    trained(first, loader, callback)
    trained(second, loader, callback)
    assert first.removed[-1] == second.removed[-1] == 10


def test_incremental_pruning_counts_epochs_with_accumulated_gradients(loader):
    task = Task(Perceptron())
    callback = IncrementalPruning("magnitude", 0.4, every=1, of="original")
    trained(task, loader, callback, epochs=2, accumulate_grad_batches=3)  # 2 steps an epoch
    assert task.removed == [0] * 4 + [8] * 4


def test_what_was_frozen_before_is_not_thawed(loader):
    task = Task(Perceptron())
    entries = torch.zeros(20, 2, dtype=torch.bool)
    entries[:5] = True
    freeze_entries(task.model, "lower.weight", entries)
    before = task.model.lower.weight.detach().clone()
    trained(task, loader, GradualUnfreezing(every=1), epochs=2)
    after = task.model.lower.weight
    assert torch.equal(after[:5], before[:5]) and (after[5:] != before[5:]).all()


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"criterion": "beauty"}, "criterion must be one of"),
        ({"scope": "atom"}, "scope must be one of"),
        ({"freezing": "all"}, "freezing must be one of"),
        ({"until": 5.0}, "shares in"),
        ({"round_to": -1}, "round_to is at least 0"),
    ],
)
def test_bad_settings_are_refused_before_the_fit(keywords, words):
    with pytest.raises(ConfigError, match=words):
        PruningCallback(**keywords)


def test_a_pruning_is_handed_through_as_one_value():
    how = Pruning("magnitude", 0.6, rounds=2, scope="layer")
    assert PruningCallback(how).pruning == how
    assert PruningCallback("magnitude", 0.6, rounds=2, scope="layer").pruning == how
    assert PruningCallback(how, rounds=3).pruning.rounds == 3
    with pytest.raises(TypeError, match="widths"):
        PruningCallback(how, widths=3)


def by_width(models):
    """Times of a machine that needs 4 ms, and 1 ms a channel."""
    return {name: [4.0 + m.n] * 3 for name, m in models.items()}


def test_a_latency_is_reached_round_by_round(loader):
    widths: list[int] = []
    callback = pruning(
        loader,
        latency=0.5,
        rounds=2,
        measure=by_width,
        after_round=lambda m: widths.append(int(keep_masks(m)["hidden"].sum())),
    )
    trained(Task(Perceptron()), loader, callback)
    assert widths == [12, 8], "24 ms are to become 17 (the square root of a half), then 12"
    assert callback.latency is not None and callback.latency.costs == {"hidden": 1.0}
    assert callback.latency.measured(callback.keep).share == 0.5


def test_latencies_that_cannot_be(loader):
    with pytest.raises(ConfigError, match=r"latency is the share .* lies in \(0, 1\], not 45"):
        Pruning(latency=45)
    with pytest.raises(ConfigError, match=r"measured on a batch: pass batches=\.\.\. or timed="):
        PruningCallback("magnitude", latency=0.5)
    with pytest.raises(ConfigError, match="its own schedule; leave latency away"):
        IncrementalPruning("magnitude", latency=0.5)
    callback = pruning(loader, latency=0.1, measure=by_width)
    with pytest.raises(ConfigError, match="a budget of 10% of the dense cost cannot be met"):
        trained(Task(Perceptron()), loader, callback)
