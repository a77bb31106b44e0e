"""Layers and uses of weights that Torch-Pruning cannot follow: left out, for a reason, in time."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

pytest.importorskip("torch_pruning", reason="needs the package torch-pruning")

from egnn_prune import compact, prune
from egnn_prune.adapters import propagation
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import TracedNetwork

SEQUENCES = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))


class Through(nn.Module):
    """``[B, T, 6]`` through two linear layers, something between, and two more."""

    def __init__(self, between, run):
        super().__init__()
        self.a, self.b, self.between = nn.Linear(6, 16), nn.Linear(16, 8), between
        self.c, self.d, self.run = nn.Linear(8, 12), nn.Linear(12, 3), run

    def forward(self, x):
        hidden = self.run(self.between, torch.relu(self.b(torch.relu(self.a(x)))))
        return self.d(torch.relu(self.c(hidden))).mean(1)


def plainly(layer, x):
    return layer(x)


def first(layer, x):
    return layer(x)[0]


def step(layer, x):
    state = None
    for k in range(x.shape[1]):
        state = layer(x[:, k], state)
    return (state[0] if isinstance(state, tuple) else state)[:, None]


def twice(layer, x):
    return layer(x, x)


def attend(layer, x):
    return layer(x, x, x)[0]


def channels_first(layer, x):
    return layer(x.transpose(1, 2)).transpose(1, 2)


#: Layer, how it is run, and what is said of ``b``; ``None`` where its channels can be removed.
LAYERS = {
    "LSTM": (lambda: nn.LSTM(8, 8, batch_first=True), first, "takes channels apart|no layer reads"),
    "RNN": (lambda: nn.RNN(8, 8, batch_first=True), first, r"between \(RNN\)"),
    "GRU": (lambda: nn.GRU(8, 8, batch_first=True), first, r"between \(GRU\)"),
    "GRU of 2": (lambda: nn.GRU(8, 8, 2, batch_first=True), first, r"between \(GRU\)"),
    "GRUCell": (lambda: nn.GRUCell(8, 8), step, r"between \(GRUCell\)"),
    "LSTMCell": (lambda: nn.LSTMCell(8, 8), step, r"between \(LSTMCell\)"),
    "RNNCell": (lambda: nn.RNNCell(8, 8), step, r"between \(RNNCell\)"),
    "Bilinear": (lambda: nn.Bilinear(8, 8, 8), twice, r"between \(Bilinear\)"),
    "attention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), attend, "Multihead"),
    "encoder": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True),
        plainly,
        "LayerNorm",
    ),
    "Conv1d": (lambda: nn.Conv1d(8, 8, 3, padding=1), channels_first, None),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(8, 8, 3), channels_first, None),
    "PReLU": (lambda: nn.PReLU(8), channels_first, None),
    "GroupNorm of 8": (lambda: nn.GroupNorm(8, 8), channels_first, None),
    "GroupNorm of 2": (lambda: nn.GroupNorm(2, 8), channels_first, "GroupNorm"),
    "LayerNorm": (lambda: nn.LayerNorm(8), plainly, "LayerNorm"),
    "RMSNorm": (lambda: nn.RMSNorm(8), plainly, "mixes"),
    "InstanceNorm": (lambda: nn.InstanceNorm1d(8, affine=True), channels_first, None),
}


def agree(network, x, dtype=torch.float64, sparsity=0.4):
    """Prune in ``dtype``; masked and compact agree, and something is gone."""
    network, x = network.eval().to(dtype), x.to(dtype) if x.is_floating_point() else x
    targets = torch.zeros(len(x), dtype=torch.long)
    pruned = prune(network, "random", sparsity, data=[(x, targets)], scope="group").eval()
    small = compact(pruned).eval()
    assert size(small) < size(network)
    with torch.no_grad():
        masked, tolerance = pruned(x), 1e-10 if dtype == torch.float64 else 1e-5
        assert (small(x) - masked).abs().max() <= tolerance * masked.abs().max()
    return pruned


def size(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_that_cannot_be_followed_leaves_out_its_own_channels_only(name, dtype):
    torch.manual_seed(0)
    make, run, reason = LAYERS[name]
    pruned = agree(Through(make(), run), SEQUENCES, dtype)
    names = {g.name for g in pruned.channel_groups()}
    assert {"a", "c"} <= names
    assert ("b" in names) == (reason is None)
    if reason is not None:
        with pytest.raises(ConfigError, match=reason):
            raise ConfigError(pruned.skipped["b"])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 16), nn.Linear(6, 20), nn.Linear(20, 3)

    def forward(self, x):
        x = F.linear(torch.relu(self.a(x)), self.a.weight.t())
        return self.out(torch.relu(self.b(torch.relu(x))))


class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Embedding(20, 8), nn.Linear(8, 24), nn.Linear(24, 8)
        self.head = nn.Linear(8, 20)
        self.head.weight = self.a.weight

    def forward(self, tokens):
        x = self.a(tokens)
        return self.head(x + self.c(torch.relu(self.b(x)))).mean(1)


class Functional(Tied):
    def forward(self, x):
        x = F.linear(torch.relu(self.a(x)), self.a.weight.t().view(6, 16))
        x = F.linear(x, self.b.weight, self.b.bias)
        return self.out(torch.relu(x))


class Repeated(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.a(x))
        return self.out(torch.relu(self.b(torch.relu(self.b(x)))))


class Scaled(nn.Module):
    """Weights of the network's own, one for each channel and for each place and channel."""

    def __init__(self):
        super().__init__()
        self.a, self.out = nn.Linear(6, 8), nn.Linear(8, 3)
        self.scale, self.place = nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(1, 5, 8))

    def forward(self, x):
        return self.out(torch.relu(self.a(x) * self.scale + self.place)).mean(1)


def test_weights_that_are_used_more_than_once():
    torch.manual_seed(0)
    rows = SEQUENCES[:, 0]
    assert "layer's weight itself" in agree(Tied(), rows).skipped["a"]
    tokens = torch.randint(0, 20, (4, 5))
    assert agree(Language(), tokens).skipped["c"] == "a.weight is shared with another layer"
    with pytest.raises(ConfigError, match="Functional has no channels that can be removed"):
        prune(Functional(), "random", 0.5, data=[(rows, torch.zeros(4).long())])
    assert [g.n for g in agree(Repeated(), rows).channel_groups()] == [8]
    assert [g.n for g in agree(Scaled(), SEQUENCES).channel_groups()] == [8]


@pytest.mark.parametrize("name", ["weight_norm", "orthogonal", "spectral_norm"])
def test_weights_that_are_computed_from_others(name):
    network = nn.Sequential(
        getattr(parametrizations, name)(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 8)
    )
    network = nn.Sequential(network, nn.ReLU(), nn.Linear(8, 3))
    assert "computed from other parameters" in agree(network, SEQUENCES[:, 0]).skipped["0.0"]


def test_old_weight_norm_and_lazy_and_scripted_networks_are_refused():
    data = [(SEQUENCES[:, 0], torch.zeros(4).long())]
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    lazy = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(ConfigError, match="run it once on a batch"):
        prune(lazy, "random", 0.5, data=data)
    with pytest.raises(ConfigError, match="compiled TorchScript"):
        TracedNetwork(torch.jit.trace(network, data[0][0]), data[0][0])
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(network[0])
    with pytest.raises(ConfigError, match="has to be made plain first"):
        prune(network, "random", 0.5, data=data)


def convolutions(*between):
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    return nn.Sequential(nn.Conv2d(1, 16, 3), *between, nn.Conv2d(16, 8, 3), nn.ReLU(), *head)


def test_norms_of_single_channels_and_depth_multipliers():
    x = torch.randn(4, 1, 9, 9)
    normed = agree(convolutions(nn.GroupNorm(16, 16), nn.ReLU()), x)
    assert [g.n for g in normed.channel_groups()] == [16, 8]
    assert compact(normed)[1].num_groups == compact(normed)[1].num_channels < 16
    wide = [nn.ReLU(), nn.Conv2d(16, 32, 3, groups=16), nn.ReLU(), nn.Conv2d(32, 16, 1)]
    assert "depthwise convolution with a multiplier" in agree(convolutions(*wide), x).skipped["0"]


def test_a_compiled_network_is_pruned_as_it_was_before():
    network, x = convolutions(nn.ReLU()), torch.randn(4, 1, 9, 9)
    pruned = prune(
        torch.compile(network, backend="eager"), "random", 0.5, data=[(x, torch.zeros(4).long())]
    )
    assert type(pruned.network) is nn.Sequential


# --------------------------------------------------------------- bounded in time and memory


def test_a_bound_on_what_depends_on_one_another(monkeypatch):
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    for bound, words in (("MOST_ENTRIES", "entries depend"), ("MOST_OPERATIONS", "operations")):
        with monkeypatch.context() as patch:
            patch.setattr(propagation, bound, 2)
            with pytest.raises(ConfigError, match=words + r".*declare channel_groups\(\)"):
                TracedNetwork(network, SEQUENCES[:, 0])


def test_swin():
    vision = pytest.importorskip("torchvision", reason="needs the extra [vision]").models
    torch.manual_seed(0)
    swin = vision.SwinTransformer([4, 4], 8, [1, 1], [1, 1], [4, 4], num_classes=3)
    pruned = agree(swin, torch.randn(2, 3, 32, 32))
    names = [g.name for g in pruned.channel_groups()]
    assert names == ["features.1.0.mlp.0", "features.3.0.mlp.0"]


@pytest.mark.parametrize("width", [2, 16])
def test_a_hand_written_tensor_product(width):
    o3 = pytest.importorskip("e3nn.o3", reason="needs the package e3nn")

    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.harmonics = o3.Irreps.spherical_harmonics(1)
            scalars, both = f"{width}x0e", f"{width}x0e+{width}x1o"
            self.up = o3.FullyConnectedTensorProduct(scalars, self.harmonics, both)
            self.down = o3.FullyConnectedTensorProduct(both, self.harmonics, scalars)
            self.embed, self.mlp = nn.Linear(3, width), nn.Linear(width, 8)
            self.out = nn.Linear(8, 1)

        def forward(self, x):
            sphere = o3.spherical_harmonics(self.harmonics, x, True)
            hidden = self.down(self.up(self.embed(x), sphere), sphere)
            return self.out(torch.relu(self.mlp(hidden)))

    pruned = agree(Product(), torch.randn(6, 3))
    assert [g.name for g in pruned.channel_groups()] == ["mlp"]


# ---------------------------------------------------------------------------------- a fuzz


def random_network(seed):
    """A random convolutional network: residual, grouped, joined, normed, activated."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*choices):
        return choices[int(torch.randint(len(choices), (), generator=generator))]

    class Random(nn.Module):
        def __init__(self):
            super().__init__()
            width, self.layers = 6, nn.ModuleList([nn.Conv2d(2, 6, 3, padding=1)])
            self.plan = []
            for _ in range(5):
                way = draw("plain", "residual", "cat", "gate", "depthwise", "chunk")
                after = draw(4, 6, 8) if way in ("plain", "cat") else width
                if way == "chunk":
                    after = 2 * width
                groups = width if way == "depthwise" else draw(1, 2) if after % 2 == 0 else 1
                layer = [nn.Conv2d(width, after, 3, padding=1, groups=groups)]
                layer += draw(
                    [],
                    [nn.BatchNorm2d(after)],
                    [nn.GroupNorm(after, after)],
                    [nn.GroupNorm(2, after)],
                    [nn.PReLU(after)],
                )
                layer += [draw(nn.ReLU(), nn.SiLU(), nn.Sigmoid())]
                self.layers.append(nn.Sequential(*layer))
                self.plan.append(way)
                width = after + width if way == "cat" else width if way == "chunk" else after
            self.head = nn.Sequential(nn.Linear(width * draw(1, 4), 7), nn.ReLU(), nn.Linear(7, 3))
            self.flat = self.head[0].in_features != width

        def forward(self, x):
            x = self.layers[0](x)
            for way, layer in zip(self.plan, list(self.layers)[1:], strict=True):
                y = layer(x)
                if way == "residual":
                    y = x + y
                elif way == "cat":
                    y = torch.cat([y, x], 1)
                elif way == "gate":
                    y = x * y.mean((2, 3), keepdim=True).sigmoid()
                elif way == "chunk":
                    a, b = y.chunk(2, 1)
                    y = a * b.sigmoid()
                x = y
            x = F.adaptive_avg_pool2d(x, 2).flatten(1) if self.flat else x.mean((2, 3))
            return self.head(x)

    torch.manual_seed(seed)
    return Random()


@pytest.mark.parametrize("seed", range(12))
def test_masked_equals_compact_on_random_networks(seed):
    x = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(seed))
    agree(random_network(seed), x, sparsity=0.5)
