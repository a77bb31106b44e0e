"""Pruning inside Lightning modules that know nothing of this package."""

from __future__ import annotations

import lightning as L
import pytest
import torch
import torchmetrics
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader as GraphLoader
from torch_geometric.nn import GAT, GCN, SchNet, global_mean_pool

import egnn_prune
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import keep_masks
from egnn_prune.pruning.calling import call
from egnn_prune.training import PruningCallback
from egnn_prune.uncertainty.metrics import AUSE, CRPS, ENCE, GaussianNLL, Sharpness


class Plain(L.LightningModule):
    """Somebody's module: a network under its own name, a step and a second loss of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU())
        self.top = nn.Linear(16, 1)
        self.net = nn.Sequential(self.body, self.top)
        self.seen: list[float] = []
        self.widths: list[int] = []

    def training_step(self, batch, _):
        x, y = batch
        loss = F.mse_loss(self.net(x)[:, 0], y) + 1e-4 * self.top.weight.square().sum()
        self.seen.append(float(loss.detach()))
        self.widths.append(int((self.body[0].weight != 0).any(1).sum()))
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)


@pytest.fixture
def loader() -> DataLoader:
    x = torch.randn(96, 4)
    return DataLoader(TensorDataset(x, (x[:, 0] * x[:, 1]).sin() + x[:, 2]), 16)


def losses(model: nn.Module, batch) -> torch.Tensor:
    return (model(batch[0])[:, 0] - batch[1]).square()


def trained(task: L.LightningModule, loader, *callbacks, epochs: int = 12, **fit) -> L.Trainer:
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=list(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(task, loader, **fit)
    return trainer


def tensors_of(net: nn.Module) -> list[int]:
    return [p.numel() for p in net.parameters()]


@pytest.mark.parametrize("how", ["module", "name"])
def test_a_plain_network_is_pruned_where_it_is(loader, how):
    task = Plain()
    tensors = {name: p for name, p in task.named_parameters()}
    which = {"module": task.net} if how == "module" else {"network": "net"}
    callback = PruningCallback(
        "magnitude", 0.5, batches=loader, loss=losses, rounds=2, until=0.4, **which
    )
    with pytest.raises(ConfigError, match="no fit has begun"):
        _ = callback.pruned
    trained(task, loader, callback)
    assert type(task.net) is nn.Sequential  # not wrapped, not replaced
    assert {id(p) for p in task.parameters()} == {id(p) for p in tensors.values()}
    gone = [int((~mask).sum()) for mask in keep_masks(callback.pruned).values()]
    assert sum(gone) == 24  # half of 32 + 16
    assert task.widths[0] > task.widths[-1]  # rounds came one after another
    kept = [value for value in task.state_dict().values() if value.dtype == torch.bool]
    assert kept and not all(bool(value.all()) for value in kept)  # checkpoints hold the masks
    # what is gone stayed zero through the optimiser's steps, what is left went on learning
    weight = task.body[0].weight
    zero = (weight == 0).all(1)
    assert zero.any() and (task.body[0].bias[zero] == 0).all()
    assert sum(task.seen[-6:]) < 0.7 * sum(task.seen[:6])
    small = egnn_prune.compact(callback.pruned)
    assert type(small) is nn.Sequential
    x = torch.randn(7, 4)
    assert torch.allclose(small(x), task.net(x), atol=1e-6)
    assert small[0][0].out_features == int((~zero).sum())
    assert sum(tensors_of(small)) < 0.6 * sum(tensors_of(task.net))


def test_a_fit_that_was_interrupted_goes_on(loader, tmp_path):
    def callback(task):
        return PruningCallback(
            "magnitude", 0.5, module=task.net, batches=loader, loss=losses, rounds=3, until=0.6
        )

    task = Plain()
    first = callback(task)
    trainer = trained(task, loader, first, epochs=4)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    fresh = Plain()
    second = callback(fresh)
    trained(fresh, loader, second, epochs=8, ckpt_path=tmp_path / "half.ckpt", weights_only=False)
    assert second.done == 3
    for name, mask in first.keep.items():
        assert torch.equal(second.keep[name] & mask, second.keep[name])
    assert egnn_prune.compact(second.pruned)[0][0].out_features < 32


def test_what_cannot_be_pruned_is_said(loader):
    task = Plain()
    options = {"batches": loader, "loss": losses}
    with pytest.raises(ConfigError, match=r"cannot be pruned.*module="):
        trained(task, loader, PruningCallback(**options))
    with pytest.raises(ConfigError, match="its net has no channel_groups"):
        trained(task, loader, PruningCallback("magnitude", module=task.net))
    with pytest.raises(ConfigError, match=r"module=Linear.* is no part of Plain"):
        trained(task, loader, PruningCallback(module=nn.Linear(1, 1), **options))
    with pytest.raises(ConfigError, match="Plain has no part 'nowhere'"):
        trained(task, loader, PruningCallback(network="nowhere", **options))
    with pytest.raises(ConfigError, match="not both"):
        PruningCallback(network="net", module=task.net, **options)
    with pytest.raises(ConfigError, match="not a single one to trace"):
        trained(task, loader, PruningCallback(module=task.net, batches=[], loss=losses))


# ------------------------------------------------------------------------- models of PyG


def graphs(count: int = 24) -> list[Data]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        n = int(torch.randint(4, 8, (1,), generator=generator))
        x = torch.randn(n, 5, generator=generator)
        ring = torch.arange(n)
        edges = torch.stack([ring, (ring + 1) % n])
        pos = 1.5 * torch.randn(n, 3, generator=generator)
        z = torch.randint(1, 9, (n,), generator=generator)
        y = x[:, :1].sum(0) / n
        edge_index = torch.cat([edges, edges.flip(0)], 1)
        found.append(Data(x=x, edge_index=edge_index, pos=pos, z=z, y=y))
    return found


class OfGraphs(nn.Module):
    """One of PyG's networks with a read-out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.out = network, nn.Linear(16, 1)

    def forward(self, x, edge_index, batch):
        return self.out(global_mean_pool(self.network(x, edge_index), batch))[:, 0]


class SchNetEnergy(nn.Module):
    """SchNet as it is: it reads elements and positions, and finds its own neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.schnet = SchNet(16, 16, 2, 8, interaction_graph=AllPairs())

    def forward(self, z, pos, batch):
        return self.schnet(z, pos, batch)[:, 0]


class AllPairs(nn.Module):
    """Edges between all atoms of a graph: PyG's own search needs a compiled extension."""

    def forward(self, pos, batch):
        same = (batch[:, None] == batch[None]) & ~torch.eye(len(pos), dtype=torch.bool)
        source, target = same.nonzero().T
        return torch.stack([source, target]), (pos[source] - pos[target]).norm(dim=-1)


class GraphTask(L.LightningModule):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.seen = net, []

    def training_step(self, batch, _):
        found = call(self.net, batch)
        loss = F.mse_loss(found, batch.y)
        self.seen.append(float(loss.detach()))
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


NETWORKS = {
    "GCN": lambda: OfGraphs(GCN(5, 24, 2, 16)),
    "GAT": lambda: OfGraphs(GAT(5, 24, 2, 16, heads=2)),
    "SchNet": SchNetEnergy,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_models_of_pyg(name):
    torch.manual_seed(0)
    loader = GraphLoader(graphs(), 8)
    task = GraphTask(NETWORKS[name]())
    callback = PruningCallback("taylor", 0.4, module=task.net, batches=loader, rounds=2)
    trained(task, loader, callback, epochs=15)
    assert sum(task.seen[-3:]) < 0.8 * sum(task.seen[:3])
    small = egnn_prune.compact(callback.pruned).eval()
    count = [sum(tensors_of(net)) for net in (small, task.net)]
    assert count[0] < 0.9 * count[1] and type(small) is type(task.net)
    batch = next(iter(loader))
    found = [call(net.eval(), batch) for net in (small, task.net)]
    assert torch.allclose(*found, atol=1e-5)


# --------------------------------------------------------------------------- torchmetrics


def test_metrics_of_error_bars_live_in_a_collection():
    """Updated together over batches, computed, reset and cloned as torchmetrics' own are."""
    ours = [GaussianNLL(), ENCE(), Sharpness(), CRPS(), AUSE()]
    collection = torchmetrics.MetricCollection(ours)
    generator = torch.Generator().manual_seed(0)
    mean, target = torch.randn(2, 400, generator=generator, dtype=torch.float64)
    variance = (0.5 + torch.rand(400, generator=generator, dtype=torch.float64)).square()
    found = []
    for parts in (1, 4):
        for batch in zip(*(x.chunk(parts) for x in (mean, variance, target)), strict=True):
            collection.update(*batch)
        found.append({name: float(value) for name, value in collection.compute().items()})
        collection.reset()
    assert set(found[0]) == {"GaussianNLL", "ENCE", "Sharpness", "CRPS", "AUSE"}
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    for metric in ours:  # sharing states in a group changes no score
        alone = type(metric)()
        alone.update(mean, variance, target)
        assert float(alone.compute()) == pytest.approx(found[0][type(metric).__name__], rel=1e-9)
    twin = collection.clone(prefix="val_")
    twin.update(mean, variance, target)
    values = {name.removeprefix("val_"): float(v) for name, v in twin.compute().items()}
    assert values == pytest.approx(found[0], rel=1e-9)
