"""Every network: logits of the right shape, the sizes that the papers state, gradients, dropout."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from egnn_prune.pruning import count_macs
from egnn_prune.uncertainty import ModuleDropout
from egnn_prune.vision.networks import NETWORKS, build_network

CIFAR, SMALL = (3, 32, 32), (3, 16, 16)


def slowly(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


CASES = [
    ("mlp", (2,), {}),
    ("mlp", (1, 8, 8), {"widths": (14, 13, 12, 11)}),
    ("lenet", SMALL, {}),
    ("lenet", (1, 20, 17), {}),
    ("cnn", (3, 8, 8), {}),
    ("small_cnn", (1, 9, 8), {"widths": [4, 6, 8]}),
    ("resnet20", (3, 8, 8), {}),
    ("resnet20", (1, 9, 8), {"shortcut": "B"}),
    slowly("resnet32", (3, 8, 8), {}),
    slowly("resnet56", (3, 8, 8), {"shortcut": "B"}),
    ("resnet18", (1, 16, 16), {}),
    slowly("resnet18", (3, 8, 8), {"stem": "cifar"}),
    slowly("resnet50", (1, 16, 16), {}),
    slowly("resnet101", (3, 16, 16), {}),
]
every_case = pytest.mark.parametrize(("name", "shape", "options"), CASES)


def size(network):
    return sum(p.numel() for p in network.parameters())


def build(name, shape, options, dtype=torch.float32, **more):
    if name in ("resnet18", "resnet50", "resnet101"):
        pytest.importorskip("torchvision", reason="needs the extra [vision]")
    return build_network(name, shape, 5, **options, **more).to(dtype)


def test_every_network_has_a_case():
    named = {getattr(case, "values", case)[0] for case in CASES}
    assert named == set(NETWORKS)


@every_case
def test_logits_and_gradients(dtype, name, shape, options):
    network = build(name, shape, options, dtype, dropout=0.2).train()
    x = torch.randn(4, *shape, dtype=dtype)
    logits = network(x)
    assert logits.shape == (4, 5) and logits.dtype == dtype
    F.cross_entropy(logits, torch.arange(4)).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    assert all(p.grad.isfinite().all() for p in network.parameters())


@every_case
def test_dropout_is_there_when_asked_for(name, shape, options):
    plain, dropped = (build(name, shape, options, dropout=p) for p in (0.0, 0.3))
    assert not any(isinstance(m, nn.Dropout) for m in plain.modules())
    dropouts = [m for m in dropped.modules() if isinstance(m, nn.Dropout)]
    hidden = len(options.get("widths", (30,)))
    assert len(dropouts) == {"mlp": hidden, "lenet": 2}.get(name, 1)
    assert {m.p for m in dropouts} == {0.3}
    x = torch.randn(3, *shape)
    dropped.load_state_dict(plain.state_dict())  # dropout renames nothing
    assert torch.equal(plain.eval()(x), dropped.eval()(x))
    prediction = ModuleDropout(dropped, samples=8).predict(x)
    assert prediction.probabilities.shape == (3, 5)
    assert (prediction.mutual_information > 0).all()


@pytest.mark.parametrize(("name", "shape", "options"), [CASES[0], CASES[2], CASES[7]])
def test_state_travels_and_the_seed_decides(dtype, name, shape, options):
    torch.manual_seed(4)
    network = build(name, shape, options, dtype)
    torch.manual_seed(4)
    same = build(name, shape, options, dtype)
    other = build(name, shape, options, dtype)
    x = torch.randn(3, *shape, dtype=dtype)
    for n in (network, same, other):  # one step moves the running statistics
        n.train()(torch.randn(4, *shape, dtype=dtype, generator=torch.Generator().manual_seed(1)))
        n.eval()
    assert torch.equal(network(x), same(x))
    assert not torch.equal(network(x), other(x))
    other.load_state_dict(copy.deepcopy(network.state_dict()))
    assert torch.equal(network(x), other(x))


@pytest.mark.parametrize(
    ("name", "shape", "classes", "options", "parameters"),
    [
        ("mlp", (2,), 2, {}, 2 * 30 + 30 + 30 * 2 + 2),
        ("mlp", (1, 28, 28), 10, {"widths": (140, 130, 120, 110)}, 158_370),
        ("mlp", (1, 28, 28), 10, {"widths": (300, 100)}, 266_610),
        ("lenet", CIFAR, 10, {}, 62_006),
        ("lenet", (1, 28, 28), 10, {}, 44_426),
        ("cnn", CIFAR, 10, {}, 896 + 18_496 + 4_096 * 128 + 128 + 1_290),
        ("small_cnn", CIFAR, 10, {}, 448 + 4_640 + 2_048 * 10 + 10),
        ("small_cnn", CIFAR, 10, {"widths": (8,)}, 224 + 8 * 256 * 10 + 10),
        ("resnet20", CIFAR, 10, {}, 269_722),
        ("resnet20", CIFAR, 10, {"shortcut": "B"}, 272_474),
        ("resnet32", CIFAR, 10, {}, 464_154),
        ("resnet56", CIFAR, 10, {}, 853_018),
        ("resnet56", CIFAR, 10, {"shortcut": "B"}, 855_770),
        ("resnet18", CIFAR, 10, {"stem": "cifar"}, 11_173_962),
        slowly("resnet50", CIFAR, 1000, {}, 25_557_032),
        slowly("resnet101", CIFAR, 1000, {}, 44_549_160),
    ],
)
def test_number_of_parameters(name, shape, classes, options, parameters):
    if name in ("resnet18", "resnet50", "resnet101"):
        pytest.importorskip("torchvision", reason="needs the extra [vision]")
    assert size(build_network(name, shape, classes, **options)) == parameters


@pytest.mark.parametrize(
    ("name", "millions"), [("resnet20", 41), ("resnet32", 69), ("resnet56", 126)]
)
def test_multiply_accumulates(name, millions):
    network = build_network(name, CIFAR, 10)
    macs = count_macs(network, lambda m: m(torch.zeros(1, *CIFAR)))[""]
    assert macs / 1e6 == pytest.approx(millions, abs=0.7)


def test_layers_of_lenet():
    network = build_network("lenet", CIFAR, 10)
    layers = [n for n, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert layers == ["conv1", "conv2", "fc1", "fc2", "fc3"]
    assert (network.fc1.in_features, network.fc1.out_features) == (400, 120)


def test_he_initialisation():
    network = build_network("resnet20", CIFAR, 10)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan = module.out_channels * 9  # outputs that an input reaches
            assert module.weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.15)


def test_the_shortcut_of_option_a_thins_out_and_pads(dtype):
    network = build_network("resnet20", CIFAR, 10).to(dtype)
    x = torch.randn(2, 16, 7, 6, dtype=dtype)
    y = network.layer2[0].shortcut(x)
    assert y.shape == (2, 32, 4, 3)
    assert torch.equal(y[:, :16], x[:, :, ::2, ::2]) and not y[:, 16:].any()


def test_channels_lie_together_in_memory(dtype):
    """The layout changes the speed, never the result nor the weights."""
    network = build_network("small_cnn", (3, 8, 8), 4).to(dtype)
    seen = []
    network.conv2.register_forward_pre_hook(lambda _, a: seen.append(a[0]))
    x = torch.randn(2, 3, 8, 8, dtype=dtype)
    logits = network(x)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert all(p.is_contiguous() for p in network.parameters())
    network.layout = nn.Identity()
    assert torch.allclose(
        network(x), logits, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12
    )
