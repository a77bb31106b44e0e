"""Every network under the engine: what is prunable, masked equals compact, fused optimisers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

pytest.importorskip("torch_pruning", reason="needs the package torch-pruning")

from egnn_prune.pruning import (
    Context,
    TracedNetwork,
    apply_masks,
    choose,
    compact,
    compact_with_optimizer,
    count_macs,
    score_channels,
)
from egnn_prune.uncertainty import ModuleDropout
from egnn_prune.vision.networks import build_network

STREAM = "it passes a slice operation, which takes channels apart"
RETURNED = "its channels are what the network returns"


def slowly(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


#: Each with the number of its groups, and what is skipped beside the read-out.
CASES = [
    ("mlp", (2,), {}, 1, {}),
    ("mlp", (1, 8, 8), {"widths": (14, 13, 12, 11)}, 4, {}),
    ("lenet", (3, 16, 16), {}, 4, {}),
    ("lenet", (1, 20, 17), {}, 4, {}),
    ("cnn", (3, 8, 8), {}, 3, {}),
    ("small_cnn", (1, 9, 8), {"widths": (4, 6)}, 2, {}),
    ("resnet20", (3, 8, 8), {}, 9, {"conv1": STREAM}),
    ("resnet20", (3, 8, 8), {"shortcut": "B"}, 12, {}),
    slowly("resnet32", (1, 8, 8), {"shortcut": "B"}, 18, {}),
    slowly("resnet56", (3, 8, 8), {}, 27, {"conv1": STREAM}),
    slowly("resnet18", (1, 16, 16), {}, 12, {}),
    slowly("resnet18", (3, 8, 8), {"stem": "cifar"}, 12, {}),
    slowly("resnet50", (3, 16, 16), {}, 37, {}),
    slowly("resnet101", (3, 16, 16), {}, 71, {}),
]
every_case = pytest.mark.parametrize(("name", "shape", "options", "groups", "skipped"), CASES)


def traced(name, shape, options, dtype=torch.float32, **more):
    if name in ("resnet18", "resnet50", "resnet101"):
        pytest.importorskip("torchvision", reason="needs the extra [vision]")
    network = build_network(name, shape, 5, **options, **more).to(dtype)
    with torch.no_grad():  # fresh norms and biases hide mistakes
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.dim() == 1:
                tensor.uniform_(0.5, 1.5)
    return TracedNetwork(network, torch.randn(2, *shape, dtype=dtype))


def half(model):
    scores = score_channels("random", Context(model, model.channel_groups()))
    return choose(scores, 0.5, "group")


def losses(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


@every_case
def test_masked_equals_compact(dtype, name, shape, options, groups, skipped):
    model = traced(name, shape, options, dtype, dropout=0.3)
    assert len(model.channel_groups()) == groups, model.skipped
    reader = next(iter(model.skipped))
    assert model.skipped == {reader: RETURNED, **skipped}
    dense = sum(p.numel() for p in model.parameters())
    x = torch.randn(4, *shape, dtype=dtype)
    apply_masks(model, half(model))
    small = compact(model)
    assert (
        sum(p.numel() for p in small.parameters())
        < (0.7 if skipped or len(shape) == 1 else 0.5) * dense
    )
    networks = model.eval(), small.eval()
    a, b = (n(x) for n in networks)
    assert (a - b).abs().max() <= (1e-4 if dtype == torch.float32 else 1e-10) * a.abs().max()
    macs = [count_macs(n, lambda m: m(x))[""] for n in networks]
    assert macs[1] < macs[0]
    if dtype == torch.float64:  # batch statistics of few pixels amplify rounding
        outputs = []
        for network in networks:
            for module in network.modules():
                module.training = not isinstance(module, nn.Dropout)
            outputs.append(network(x))
        assert (outputs[0] - outputs[1]).abs().max() <= 1e-9 * outputs[0].abs().max()
    again = TracedNetwork(small.network, x)
    assert len(again.channel_groups()) == groups


@pytest.mark.parametrize("name", ["lenet", "resnet20"])
def test_a_compact_network_has_its_dropout(name):
    model = traced(name, (3, 16, 16), {}, dropout=0.3)
    apply_masks(model, half(model))
    prediction = ModuleDropout(compact(model), samples=5).predict(torch.randn(3, 3, 16, 16))
    assert (prediction.mutual_information > 0).all()


@pytest.mark.parametrize("criterion", ["magnitude_l1", "taylor", "activation_norm"])
@pytest.mark.parametrize(("name", "options"), [("lenet", {}), ("resnet20", {"shortcut": "B"})])
def test_criteria_see_every_channel(name, options, criterion):
    model = traced(name, (3, 16, 16), options)
    batch = (torch.randn(4, 3, 16, 16), torch.arange(4))
    scores = score_channels(criterion, Context(model, model.channel_groups(), [batch], losses))
    for group in model.channel_groups():
        assert scores[group.name].shape == (group.n,)
        assert scores[group.name].isfinite().all() and scores[group.name].any()


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_fused_optimisers_go_on_after_compaction(optimizer):
    """Fused steps go through memory: weights and moments must be laid out alike, always."""
    model = traced("small_cnn", (3, 8, 8), {}, torch.float64)
    batch = torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.arange(6) % 5
    more = {"momentum": 0.9} if optimizer is torch.optim.SGD else {"eps": 1e-3}

    def steps(network, own):
        for _ in range(3):
            own.zero_grad()
            losses(network, batch).mean().backward()
            own.step()

    results = []
    for fused in (True, False):
        network = copy.deepcopy(model)
        own = optimizer(network.parameters(), 1e-2, fused=fused, **more)
        steps(network, own)
        torch.manual_seed(1)
        apply_masks(network, half(model))
        small, own = compact_with_optimizer(network, own)
        steps(small, own)
        results.append(torch.cat([p.detach().flatten() for p in small.parameters()]))
    assert (results[0] - results[1]).abs().max() < 1e-9
