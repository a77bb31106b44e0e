"""Networks of others: groups from their own graph, masked equals compact, nothing else changes."""

from __future__ import annotations

import copy
import math
import sys

import pytest
import torch
from networks import NETWORKS, Residual, conv, randomised, vgg
from slow_cases import slow_but
from torch import nn
from torch.nn import functional as F

pytest.importorskip("torch_pruning", reason="needs the package torch-pruning")

from egnn_prune.channels import Prunable
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import (
    Context,
    TracedNetwork,
    apply_masks,
    choose,
    compact,
    keep_masks,
    register_masks,
    score_channels,
)
from egnn_prune.pruning.masks import MaskParametrization, weight_names
from egnn_prune.pruning.tensors import get_tensor

SPARSITIES = (0.0, 0.2, 0.4, 0.5, 0.6)
every_network = pytest.mark.parametrize("name", NETWORKS)


def images(size=8, count=4, dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64).to(dtype)


def losses(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def random_keep(model, sparsity=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = {g.name: torch.rand(g.n, generator=generator) for g in model.channel_groups()}
    return choose(scores, sparsity)


def masked_copy(model, keep):
    masked = copy.deepcopy(model)
    apply_masks(masked, keep)
    return masked


def size(model):
    return sum(p.numel() for p in model.parameters())


@pytest.fixture
def make(dtype):
    """``make(name)``: a traced network of :data:`NETWORKS` with random norms, and images."""

    def build(name, **options):
        torch.manual_seed(1)
        network = randomised(NETWORKS[name][0]()).to(dtype)
        return TracedNetwork(network, images(dtype=dtype), **options), images(dtype=dtype)

    return build


# ------------------------------------------------------------------ masked equals compact


@every_network
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_masked_equals_compact(make, assert_close, name, training):
    model, x = make(name)
    for module in model.modules():  # batch statistics, but no dropout
        module.training = training and not isinstance(module, nn.Dropout)
    before = size(model) + 1
    for sparsity in SPARSITIES:
        masked = masked_copy(model, random_keep(model, sparsity))
        small = compact(masked)
        for module in small.modules():
            module.training = training and not isinstance(module, nn.Dropout)
        # the running statistics of both move on in training: compare them in a second pass too
        for _ in range(2):
            assert_close(small(x), masked(x))
        assert_close(small.eval()(x), masked.eval()(x))
        assert size(small) < before, "every step must remove something"
        before = size(small)
        assert not any(isinstance(m, MaskParametrization) for m in small.modules())


@every_network
def test_groups_are_complete(make, name):
    """Removing all but one channel everywhere leaves widths of one (a block, where grouped)."""
    model, x = make(name)
    groups = model.channel_groups()
    assert [g.n for g in groups] == NETWORKS[name][1]
    keep = {g.name: torch.arange(g.n) == g.n - 1 for g in groups}
    small = compact(masked_copy(model, keep))
    assert {g.n for g in small.channel_groups()} == {1}
    for member in (m for g in small.channel_groups() for m in g.members):
        assert get_tensor(small, member.name).shape[member.axis] <= 4 * 16
    assert torch.isfinite(small(x)).all()


@every_network
def test_prune_again(make, assert_close, name):
    """Groups are renumbered after surgery; nothing is traced a second time."""
    model, x = make(name)
    once = compact(masked_copy(model, random_keep(model, 0.3)))
    again = masked_copy(once, random_keep(once, 0.3, seed=1))
    twice = compact(again)
    assert_close(twice(x), again(x))
    assert size(twice) < size(once) < size(model)
    fresh = TracedNetwork(once.network, x)
    several = [g for g in once.channel_groups() if g.n > 1]
    for old, new in zip(several, fresh.channel_groups(), strict=True):
        assert (old.name, old.kind, old.n) == (new.name, new.kind, new.n)
        members = {(m.name, m.axis): m for m in new.members}
        for member in old.members:
            assert torch.equal(member.index, members[member.name, member.axis].index)


@pytest.mark.parametrize("name", ["residual", "dense", "vgg", "grouped"])
@pytest.mark.parametrize("criterion", slow_but(["magnitude", "random", "taylor"], "taylor"))
def test_criteria(make, assert_close, name, criterion):
    model, x = make(name)
    batch = (x, torch.arange(len(x)))
    scores = score_channels(criterion, Context(model, model.channel_groups(), [batch], losses))
    for scope in ("global", "group"):
        for sparsity in SPARSITIES:
            if name == "grouped" and sparsity > 0.5 and scope == "global":
                continue  # its groups of 2 must keep one each
            masked = masked_copy(model, choose(scores, sparsity, scope))
            assert_close(compact(masked)(x), masked(x))


# --------------------------------------------------------------------------- torchvision


@pytest.fixture(scope="module")
def traced():
    """``traced("resnet18")``: a torchvision network with random norms, traced once."""
    models = pytest.importorskip("torchvision", reason="needs the extra [vision]").models
    built = {}

    def build(name, **options):
        if name not in built:
            torch.manual_seed(0)
            network = randomised(getattr(models, name)(num_classes=10, **options))
            built[name] = TracedNetwork(network, images(64, 2))
        return built[name]

    return build


def agree(model, x, tolerance=1e-5, training=True):
    """In evaluation, and with batch statistics in float64: few values amplify rounding by tens."""
    small = compact(model)
    with torch.no_grad():
        a, b = model.eval()(x), small.eval()(x)
        assert (a - b).abs().max() <= tolerance * a.abs().max()
        if not training:
            return small
        results = []
        for network in (copy.deepcopy(model).double(), copy.deepcopy(small).double()):
            for module in network.modules():
                module.training = not isinstance(module, nn.Dropout)
            torch.manual_seed(0)  # stochastic depth
            results.append(network(x.double()))
        a, b = results
        assert (a - b).abs().max() <= 1e-10 * a.abs().max()
    return small


def slowly(name, *rest):
    return pytest.param(name, *rest, marks=pytest.mark.slow)


ALL = [(c, s) for c in ("magnitude", "random", "taylor") for s in ("global", "group")]


@pytest.mark.parametrize(
    ("name", "criterion", "scope"),
    [("resnet18", "taylor", "global")]
    + [slowly("resnet18", *rest) for rest in ALL if rest != ("taylor", "global")]
    + [slowly("resnet50", *rest) for rest in ALL],
)
def test_resnet(traced, name, criterion, scope):
    model, x = traced(name), images(64, 2)
    batch = (x, torch.tensor([1, 7]))
    context = Context(model, model.channel_groups(), [batch], losses)
    scores = score_channels(criterion, context)
    total = sum(len(s) for s in scores.values())
    for sparsity in (0.1, 0.3, 0.5, 0.7, 0.9):
        keep = choose(scores, sparsity, scope)
        small = agree(masked_copy(model, keep), x, training=sparsity == 0.5)
        removed = sum(int((~k).sum()) for k in keep.values())
        if scope == "global":
            assert removed == math.floor(sparsity * total + 1e-9)
        assert type(small.network) is type(model.network)
        assert sum(g.n for g in small.channel_groups()) == total - removed


@pytest.mark.parametrize(
    "name",
    ["mobilenet_v2", "squeezenet1_1"]
    + [
        slowly(n)
        for n in (
            "resnet50",
            "densenet121",
            "efficientnet_b0",
            "regnet_y_400mf",
            "resnext50_32x4d",
            "mnasnet0_5",
            "vgg11_bn",
        )
    ],
)
def test_other_torchvision_networks(traced, name):
    model, x = traced(name), images(64, 2)
    assert set(model.skipped.values()) == {"its channels are what the network returns"}
    agree(masked_copy(model, random_keep(model)), x)


@pytest.mark.parametrize("side", [1, 33])
def test_small_and_odd_images(traced, side):
    model, x = traced("resnet18"), images(side, 2)
    masked = masked_copy(model, random_keep(model))
    with torch.no_grad():
        torch.testing.assert_close(compact(masked)(x), masked(x), rtol=1e-4, atol=1e-4)


def test_resnet18_by_hand(traced):
    """A stream of 64 channels that three layers make, and the widths that follow from it."""
    model = traced("resnet18")
    groups = {g.name: g for g in model.channel_groups()}
    assert len(groups) == 12
    stream = groups["conv1"]
    assert (stream.n, stream.kind) == (64, "residual")
    made = {m.name for m in stream.members if not m.reads and m.name.endswith("weight")}
    read = {m.name for m in stream.members if m.reads}
    network = "network.layer"
    layers = ("1.0.conv2", "1.0.bn2", "1.1.conv2", "1.1.bn2")
    assert made == {"network.conv1.weight", "network.bn1.weight"} | {
        f"{network}{n}.weight" for n in layers
    }
    readers = ("1.0.conv1", "1.1.conv1", "2.0.conv1", "2.0.downsample.0")
    assert read == {f"{network}{n}.weight" for n in readers}
    keep = {g: torch.ones(groups[g].n, dtype=torch.bool) for g in groups}
    keep["conv1"][[3, 60]] = False
    keep["layer1.0.conv1"][:10] = False
    small = compact(masked_copy(model, keep)).network
    block = small.layer1[0]
    assert (small.conv1.out_channels, small.bn1.num_features) == (62, 62)
    assert (block.conv1.in_channels, block.conv1.out_channels) == (62, 54)
    assert (block.conv2.in_channels, block.conv2.out_channels) == (54, 62)
    assert (small.layer2[0].downsample[0].in_channels, small.fc.in_features) == (62, 512)
    old = model.network.layer1[0].conv1.weight[10:][:, keep["conv1"]]
    assert torch.equal(block.conv1.weight, old)
    assert torch.equal(small.bn1.running_mean, model.network.bn1.running_mean[keep["conv1"]])


def test_export_of_the_compact_network(traced):
    model, x = traced("resnet18"), images(64, 2)
    small = compact(masked_copy(model, random_keep(model))).network
    exported = torch.export.export(small, (x,)).module()
    torch.testing.assert_close(exported(x), small(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_compile_of_the_compact_network(traced):
    model, x = traced("resnet18"), images(64, 2)
    small = compact(masked_copy(model, random_keep(model))).network
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(small)(x), small(x), rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------- training


@pytest.mark.parametrize("name", ["residual", "vgg", "grouped"])
def test_zeros_stay_and_survivors_move(make, name):
    model, x = make(name)
    model.train()
    apply_masks(model, random_keep(model, 0.4))
    mask_of = {n: m for n, m in model.named_modules() if isinstance(m, MaskParametrization)}
    before = {n: get_tensor(model, n).clone() for n in weight_names(model, model.channel_groups())}
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    for _ in range(20):
        optimiser.zero_grad()
        losses(model, (x, torch.arange(len(x)))).sum().backward()
        optimiser.step()
    assert sum(int(h.pruned.sum()) for h in mask_of.values()) > 50
    for tensor, old in before.items():
        owner, _, leaf = tensor.rpartition(".")
        gone = mask_of[f"{owner}.parametrizations.{leaf}.0"].pruned
        now = get_tensor(model, tensor)
        assert (now[gone] == 0).all(), tensor
        assert ((now != old) | gone).all(), tensor
    small = compact(model)
    model.eval(), small.eval()
    torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-4)


def test_copies_and_state_keep_masks(make, assert_close):
    model, x = make("residual")
    keep = random_keep(model)
    masked = masked_copy(model, keep)
    twin = copy.deepcopy(model)
    register_masks(twin, weight_names(twin, twin.channel_groups()))
    twin.load_state_dict(masked.state_dict())
    for other in (twin, copy.deepcopy(masked)):
        assert all(torch.equal(v, keep[k]) for k, v in keep_masks(other).items())
        assert_close(other(x), masked(x))
        next(iter(other.parameters())).data.fill_(3.0)
    assert_close(compact(masked)(x), masked(x))


# ---------------------------------------------------------------------------------- gates


@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "folded"])
def test_a_closed_gate_is_a_removed_channel_for_that_sample(make, assert_close, name):
    """Whatever lies between: sigmoid(0) and a depthwise bias are not zero."""
    model, x = make(name)
    dense, groups = model(x), model.channel_groups()
    everything = {g.name: torch.ones(g.n, dtype=torch.bool) for g in groups}
    for group in groups:
        alive = torch.arange(group.n) % 2 == 0
        masked = masked_copy(model, {**everything, group.name: alive})(x)
        gate = model.get_submodule(group.gate)
        gate.opened = torch.ones(len(x), group.n).to(x)
        assert_close(model(x), dense)
        gate.opened[1] = alive.to(x)
        result, gate.opened = model(x), None
        assert_close(result[1], masked[1])
        assert_close(result[[0, 2, 3]], dense[[0, 2, 3]])
        assert (result[1] - dense[1]).abs().max() > 1e-4 * dense.abs().max()
    assert torch.equal(model(x), dense)
    assert not any(m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("name", ["residual", "dense", "squeeze", "vgg", "grouped", "tokens"])
def test_gate_gradient_is_a_finite_difference(name):
    torch.manual_seed(1)
    network, x = randomised(NETWORKS[name][0]()).double(), images(dtype=torch.float64)
    model, batch = TracedNetwork(network, x), (images(dtype=torch.float64), torch.arange(4))
    groups, step = model.channel_groups(), 1e-6
    gradients = Context(model, groups, [batch], losses).gate_gradients
    for group in groups:
        gate, found = model.get_submodule(group.gate), torch.zeros(len(x), group.n)
        for channel in range(group.n):
            ends = []
            for sign in (1, -1):
                gate.opened = torch.ones(len(x), group.n, dtype=torch.float64)
                gate.opened[:, channel] += sign * step
                with torch.no_grad():
                    ends.append(losses(model, batch))
            found[:, channel] = (ends[0] - ends[1]) / (2 * step)
        gate.opened = None
        expected = gradients[group.name]
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max(), group.name


def test_rows_that_are_not_samples_have_no_gate(make):
    model, x = make("folded")
    assert [g.gate for g in model.channel_groups()] == [None, "gates.0"]
    with pytest.raises(ConfigError, match="no gate"):
        batch = (x, torch.arange(len(x)))
        score_channels("taylor", Context(model, model.channel_groups(), [batch], losses))


def test_thinning_draws_the_same_networks(make, assert_close, draw_thinning):
    model, x = make("residual", dropout=0.3)
    masked = masked_copy(model, random_keep(model))
    small = compact(masked)
    for m in (masked, small):
        draw_thinning(m, 3, seed=5)
    many = x.repeat(3, 1, 1, 1)
    assert_close(small(many), masked(many))
    samples = small(many).unflatten(0, (3, -1))
    assert (samples[0] - samples[1]).abs().max() > 0
    assert (model.train()(x) != copy.deepcopy(model)(x)).any(), "in training the gates thin out"


def test_activations_can_be_read_at_the_gates(make):
    model, x = make("residual")
    group = next(g for g in model.channel_groups() if g.name == "inner.0")
    seen = []
    gate = model.get_submodule(group.gate)
    gate.register_forward_hook(lambda m, i, out: seen.append(out))
    model(x)
    stem = model.network.stem(x)
    (inside,) = seen
    torch.testing.assert_close(inside.flatten(1, 2), model.network.inner(stem))


# --------------------------------------------------------------- what is left as it was


def test_the_network_itself_is_not_touched():
    network = randomised(Residual()).train()
    network.inner.eval()
    network.stem[0].weight.requires_grad_(False)
    state = {k: v.clone() for k, v in network.state_dict().items()}
    modes = [m.training for m in network.modules()]
    random_state = torch.get_rng_state()
    model = TracedNetwork(network, images())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert model.network is network
    assert isinstance(model, Prunable)
    assert [m.training for m in network.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
    assert not network.stem[0].weight.requires_grad and network.head.weight.requires_grad
    assert all(p.grad is None for p in network.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_several_inputs_and_keywords():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 6), nn.Linear(2, 6), nn.Linear(6, 1)

        def forward(self, x, y, scale=1.0):
            return {"out": scale * self.c(torch.relu(self.a(x) + self.b(y)))}

    model = TracedNetwork(Two(), (torch.randn(4, 3), torch.randn(4, 2)))
    (group,) = model.channel_groups()
    assert (group.name, group.kind, group.n) == ("a", "residual", 6)
    masked = masked_copy(model, random_keep(model))
    inputs = (torch.randn(5, 3), torch.randn(5, 2))
    result = compact(masked)(*inputs, scale=2.0)["out"]
    torch.testing.assert_close(result, 2 * masked(*inputs)["out"])


def test_ignored_layers_keep_their_channels():
    model = TracedNetwork(randomised(vgg()), images(), ignored=("2", "5"))
    assert [g.name for g in model.channel_groups()] == ["0.0"]
    assert model.skipped["2.0"] == "2.0 is to be left as it is"
    assert set(model.skipped) == {"2.0", "5", "8"}


# ------------------------------------------------------------------------ what is left out


class Between(nn.Module):
    """Two layers with something between them, beside two that can be pruned."""

    def __init__(self, between):
        super().__init__()
        self.fine, self.a = conv(3, 6), nn.Conv2d(6, 8, 3)
        self.between, self.b = between, nn.Conv2d(8, 5, 1)

    def forward(self, x):
        return self.b(self.between(self.a(self.fine(x)))).mean((2, 3))


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (nn.GroupNorm(2, 8), "it passes between (GroupNorm), which mixes channels"),
        (nn.LayerNorm(6), "which mixes channels"),
        (nn.BatchNorm2d(8, affine=False), "between normalises without weights"),
        (nn.InstanceNorm2d(8), "between normalises without weights"),
        (nn.Softmax(1), "an operation mixes its channels"),
        (nn.LocalResponseNorm(2), "an operation mixes its channels"),
        (nn.ChannelShuffle(2), "an operation mixes its channels"),
        (Function(lambda x: x - x.mean(1, keepdim=True)), "an operation mixes its channels"),
        (Function(lambda x: x * torch.arange(8.0).to(x)[:, None, None]), "counts on their number"),
        (Function(lambda x: x.flip(1)), "an operation mixes its channels"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_mixed_channels_are_not_offered(between, reason):
    model = TracedNetwork(randomised(Between(between)), images())
    assert [g.name for g in model.channel_groups()] == ["fine.0"]
    assert reason in model.skipped["a"]
    agree(masked_copy(model, random_keep(model)), images())


def test_shared_weights_are_not_offered():
    network = Between(nn.Conv2d(8, 8, 1))
    network.between.bias = network.a.bias
    model = TracedNetwork(network, images())
    assert "is shared with another layer" in model.skipped["a"]


def test_channels_that_are_returned_are_not_offered():
    class Features(Between):
        def forward(self, x):
            x = self.a(self.fine(x))
            return x, self.b(self.between(x))

    model = TracedNetwork(Features(nn.ReLU()), images())
    assert model.skipped["a"] == "its channels are what the network returns"
    assert [g.name for g in model.channel_groups()] == ["fine.0"]


# ------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("network", "inputs", "complaint"),
    [
        (nn.Sequential(nn.ReLU()), images(), "has no convolution and no linear layer"),
        (nn.Linear(3, 2), torch.randn(2, 3), "Linear has no channels that can be removed"),
        (nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 2)), torch.randn(2, 3), "a single channel"),
        (Residual(), torch.randn(2, 4, 8, 8), "Residual cannot be run on the example inputs: "),
        (Residual(), (images(), images()), "Residual cannot be run on the example inputs: "),
    ],
)
def test_what_cannot_be_pruned_is_one_sentence(network, inputs, complaint):
    with pytest.raises(ConfigError) as caught:
        TracedNetwork(network, inputs)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_e3nn_is_named():
    """For it the way out of other layers is none."""
    o3 = pytest.importorskip("e3nn.o3", reason="needs the package e3nn")
    with pytest.raises(ConfigError, match=r"no linear layer .*; e3nn's layers .*own-network\.md"):
        TracedNetwork(nn.Sequential(o3.Linear("4x0e", "4x0e")), torch.randn(2, 4))


def test_a_network_that_cannot_be_followed():
    models = pytest.importorskip("torchvision", reason="needs the extra [vision]").models
    with pytest.raises(ConfigError, match=r"cannot follow .* ShuffleNetV2 .*; declare") as caught:
        TracedNetwork(models.shufflenet_v2_x0_5(), images(64))
    assert "\n" not in str(caught.value)


def test_unknown_layer_to_ignore():
    with pytest.raises(ConfigError, match="Residual has no module 'layer9' to ignore"):
        TracedNetwork(Residual(), images(), ignored=("layer9",))


def test_without_torch_pruning(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ConfigError, match="run `pip install torch-pruning`"):
        TracedNetwork(Residual(), images())
