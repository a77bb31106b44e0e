"""Pruning in three lines, on our models and on networks of others."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch_geometric.data import Batch

import egnn_prune
from egnn_prune.api.pruning import compact, fine_tune, prune
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.pruning import count_macs, keep_masks
from egnn_prune.training.batch_losses import tuple_losses


@pytest.fixture
def loader(make_batch) -> list[Batch]:
    return [make_batch(5, 7, seed=s) for s in range(3)]


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


@pytest.fixture
def images() -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, 8, 8, generator=generator)
    return DataLoader(TensorDataset(x, (x.mean((1, 2, 3)) > 0).long()), 16)


def test_three_lines_on_a_graph_network(make_property_model, loader, dtype):
    model = make_property_model()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    pruned = prune(model, criterion="taylor", sparsity=0.75, data=loader)
    fine_tune(pruned, loader, steps=5, device="cpu")
    small = compact(pruned)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    total = sum(g.n for g in model.channel_groups())
    gone = sum(int((~m).sum()) for m in keep_masks(pruned).values())
    assert gone == math.floor(0.75 * total)
    assert type(small) is type(model)
    a, b = small(loader[0]).mean, pruned(loader[0]).mean
    assert torch.allclose(a, b, rtol=1e-5 if dtype == torch.float32 else 1e-10)
    assert sum(p.numel() for p in small.parameters()) < 0.2 * sum(
        p.numel() for p in model.parameters()
    )


def test_three_lines_on_an_image_network(images):
    model = convolutional()
    pruned = prune(model, criterion="taylor", sparsity=0.75, data=images)
    fine_tune(pruned, images, steps=5, device="cpu")
    small = compact(pruned)
    assert type(small) is nn.Sequential
    assert small[0].out_channels + small[3].out_channels == 48 - 36
    x = next(iter(images))[0]
    assert torch.allclose(small(x), pruned.eval()(x), atol=1e-5)


def test_again_with_more(make_property_model, loader):
    model = make_property_model()
    first = prune(model, "magnitude", 0.3, scope="group")
    second = prune(first, "random", 0.6, scope="group")
    a, b = keep_masks(first), keep_masks(second)
    assert all((b[k] <= a[k]).all() for k in a)
    assert sum(int(m.sum()) for m in b.values()) < sum(int(m.sum()) for m in a.values())


def test_a_budget_instead_of_a_sparsity(make_property_model, loader):
    model = make_property_model(hidden=24)
    pruned = prune(model, "magnitude", data=loader, macs=0.3)
    run = lambda m: m(loader[0])  # noqa: E731
    left = count_macs(compact(pruned), run)[""] / count_macs(model, run)[""]
    assert 0.25 < left <= 0.3


def test_round_to(make_property_model):
    pruned = prune(make_property_model(hidden=16), "random", 0.6, round_to=4)
    assert all(int(m.sum()) % 4 == 0 for m in keep_masks(pruned).values())


def test_default_losses(images):
    x, y = next(iter(images))
    model = convolutional()
    expected = nn.functional.cross_entropy(model(x), y, reduction="none")
    assert torch.allclose(tuple_losses(model, (x, y)), expected)
    target = torch.randn(16, 10)
    expected = (model(x) - target).square().mean(1)
    assert torch.allclose(tuple_losses(model, (x, target)), expected)


def test_the_package_offers_it():
    names = ["prune", "fine_tune", "compact", "channel_groups", "sparsity_sweep"]
    assert all(callable(getattr(egnn_prune, name)) for name in names)
    assert set(names) <= set(egnn_prune.__all__)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"criterion": "taylor", "sparsity": 0.5}, "needs data"),
        ({"criterion": "taylor", "sparsity": 0.5, "data": []}, "not a single batch"),
        ({"criterion": "magnitude"}, "give one of sparsity, macs and latency"),
        ({"criterion": "magnitude", "sparsity": 0.5, "macs": 0.5}, "give one of sparsity"),
        ({"criterion": "magnitude", "macs": 0.5}, "measured on data"),
        ({"criterion": "magnitude", "sparsity": 1.0}, "fraction removed"),
        ({"criterion": "beauty", "sparsity": 0.5}, "criterion must be one of"),
        ({"criterion": "magnitude", "sparsity": 0.5, "scope": "half"}, "scope must be one of"),
        ({"criterion": "movement", "sparsity": 0.5}, "use PruningCallback"),
    ],
)
def test_bad_input(make_property_model, arguments, words):
    with pytest.raises(ConfigError, match=words):
        prune(make_property_model(), **arguments)


def test_networks_that_do_not_say_how_sure_they_are(images):
    with pytest.raises(ConfigError, match=r"does not say how sure it is; pass variance"):
        prune(convolutional(), "uncertainty", 0.5, data=images)
    pruned = prune(
        convolutional(),
        "uncertainty",
        0.5,
        data=images,
        variance=lambda m, b: m(b[0]).softmax(1).max(1).values,
    )
    assert sum(int((~m).sum()) for m in keep_masks(pruned).values()) == 24


def test_networks_without_a_loss_of_their_own(make_egnn, loader):
    with pytest.raises(ConfigError, match=r"EGNN has no training loss of its own; pass loss"):
        prune(make_egnn(), "taylor", 0.5, data=loader)


@pytest.mark.parametrize("shape", [(-1, 1), None])
def test_targets_of_the_wrong_shape_are_not_broadcast(make_property_model, loader, shape):
    for batch in loader:
        batch.y = None if shape is None else batch.y.reshape(shape)
    with pytest.raises(DataError, match=r"targets in batch\.y of shape \(2,\)"):
        prune(make_property_model(members=2), "taylor", 0.5, data=loader)


def test_a_generator_of_batches_is_not_used_up(make_property_model, loader):
    model = make_property_model()
    fine_tune(model, (batch for batch in loader), steps=7, device="cpu")  # longer than one pass


def test_several_inputs():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(3, 8), nn.Linear(2, 8), nn.Linear(8, 1)

        def forward(self, x, y):
            return self.out((self.a(x) + self.b(y)).relu())

    data = [((torch.randn(4, 3), torch.randn(4, 2)), torch.randn(4)) for _ in range(3)]
    pruned = prune(Two(), "taylor", macs=0.6, data=data)
    fine_tune(pruned, data, steps=3, device="cpu")
    assert compact(pruned)(*data[0][0]).shape == (4, 1)


@pytest.mark.parametrize(
    ("targets", "words"),
    [(torch.full((16,), 10), "from 0 to below"), (torch.zeros(5).long(), "5 targets for 16")],
)
def test_bad_targets(images, targets, words):
    x = next(iter(images))[0]
    with pytest.raises(ConfigError, match=words):
        tuple_losses(convolutional(), (x, targets))


def test_bad_fits(make_property_model, loader):
    for keywords in ({"steps": 0}, {"lr": -1.0}):
        with pytest.raises(ConfigError, match="1 or more steps and a positive learning rate"):
            fine_tune(make_property_model(), loader, device="cpu", **keywords)
    with pytest.raises(ConfigError, match="not a single batch"):
        fine_tune(make_property_model(), [], device="cpu")


def test_what_people_hand_over_instead_of_batches_and_losses(images, make_batch):
    for data in (torch.zeros(2, 3, 8, 8), make_batch(5, 7), {"x": torch.zeros(2, 3, 8, 8)}):
        with pytest.raises(ConfigError, match=r"handed over in a list, \[batch\]"):
            prune(convolutional(), "magnitude", 0.5, data=data)
        with pytest.raises(ConfigError, match=r"handed over in a list, \[batch\]"):
            fine_tune(convolutional(), data)
    for act in (prune, fine_tune):
        with pytest.raises(ConfigError, match=r"instead of MSELoss\(\) write such as lambda"):
            how = {"sparsity": 0.5} if act is prune else {}
            act(convolutional(), data=images, loss=nn.MSELoss(), **how)
    with pytest.raises(ConfigError, match=r"lies in \[0, 1\), not '0.5'"):
        prune(convolutional(), "magnitude", "0.5", data=images)


def test_another_type_of_numbers(images):
    with pytest.raises(ConfigError, match=r"weights are torch.float16, the batch is torch.float32"):
        prune(convolutional().half(), "magnitude", 0.5, data=images)


def test_tuples_do_not_tell_graphs_apart():
    class Pooled(nn.Sequential):
        def forward(self, x, graph):
            nodes = self[1](self[0](x))
            return self[2](nodes.new_zeros(2, 4).index_add(0, graph, nodes))[:, 0]

    batch = ((torch.randn(5, 3), torch.tensor([0, 0, 1, 1, 1])), torch.zeros(2))
    with pytest.raises(ConfigError, match=r"shape \(5,\), not \(2,\); of graphs hand over PyG"):
        layers = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        prune(Pooled(*layers), "taylor", 0.5, data=[batch])


def test_modules_that_cannot_be_pruned():
    with pytest.raises(ConfigError, match="needs a batch"):
        prune(convolutional(), "magnitude", 0.5)
    with pytest.raises(ConfigError, match=r"compact\(\) takes what prune\(\) returned"):
        compact(convolutional())
    for nothing in (nn.ReLU(), 3):
        with pytest.raises(ConfigError, match="has no parameters"):
            prune(nothing, "magnitude", 0.5, data=[torch.zeros(2, 3)])
