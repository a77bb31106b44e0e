"""Dropout wherever torch has it: the spread is that of training mode, or there is a refusal."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_threads import Held
from torch import Tensor, nn
from torch.nn import functional as F

from egnn_prune.errors import ConfigError
from egnn_prune.uncertainty import ModuleDropout, dropout_modules

SIZE = 8


class Network(nn.Module):
    """A layer of sequences ``[B, T, 8]``, called somehow, and a linear read-out of classes."""

    def __init__(self, layer: nn.Module, call: Callable[..., Tensor] = nn.Module.__call__) -> None:
        super().__init__()
        self.layer, self.call, self.out = layer, call, nn.Linear(SIZE, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.call(self.layer, x).mean(1))


class ProductAttention(nn.Module):
    """Keeps its dropout in a float that no function of torch sees in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.dropout_p = nn.Linear(SIZE, SIZE), 0.5

    def forward(self, x: Tensor) -> Tensor:
        p = self.dropout_p if self.training else 0.0
        return F.scaled_dot_product_attention(self.query(x), x, x, dropout_p=p)


class FusedAttention(nn.Module):
    """As timm has it: the dropout is never called, its probability is handed over."""

    def __init__(self, listed: bool = False) -> None:
        super().__init__()
        self.query, drop = nn.Linear(SIZE, SIZE), nn.Dropout(0.5)
        self.attn_drop = nn.ModuleList([drop]) if listed else drop

    def forward(self, x: Tensor) -> Tensor:
        drop = self.attn_drop if isinstance(self.attn_drop, nn.Dropout) else self.attn_drop[0]
        p = drop.p if self.training else 0.0
        return F.scaled_dot_product_attention(self.query(x), x, x, dropout_p=p)


class Outer(nn.Module):
    """Keeps the rate of its part, and does in training alone what is no dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.drop_rate, self.part, self.out = 0.2, nn.Dropout(0.2), nn.Linear(SIZE, 3)

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        return self.out(self.part(x).mean(1))


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dropout = 0.5

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class DropPath(nn.Module):
    """As timm has it."""

    def __init__(self, drop_prob: float = 0.5) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x + x * x.new_empty(len(x), 1, 1).bernoulli_(1 - self.drop_prob)


class Custom(nn.Dropout):
    """A dropout of somebody's own that asks its mode itself."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand_like(x) > self.p) if self.training else x


def recurrent(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x)[0]


def packed(layer: nn.Module, x: Tensor) -> Tensor:
    sequence = nn.utils.rnn.pack_padded_sequence(x, [6, 5, 4, 3], batch_first=True)
    return nn.utils.rnn.pad_packed_sequence(layer(sequence)[0], batch_first=True)[0]


def attention(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x, x, x, need_weights=False)[0]


def encoder(**keywords: Any) -> nn.Module:
    return nn.TransformerEncoderLayer(SIZE, 2, 16, 0.5, batch_first=True, **keywords)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "fused encoder layer": lambda: Network(encoder()),
    "norm first": lambda: Network(encoder(norm_first=True)),
    "gelu": lambda: Network(encoder(activation="gelu")),
    "not batch first": lambda: Network(nn.TransformerEncoderLayer(SIZE, 2, 16, 0.5)),
    "fused encoder": lambda: Network(nn.TransformerEncoder(encoder(), 2)),
    "decoder layer": lambda: Network(
        nn.TransformerDecoderLayer(SIZE, 2, 16, 0.5, batch_first=True), lambda net, x: net(x, x)
    ),
    "attention": lambda: Network(nn.MultiheadAttention(SIZE, 2, 0.5, batch_first=True), attention),
    "LSTM": lambda: Network(nn.LSTM(SIZE, SIZE, 2, batch_first=True, dropout=0.5), recurrent),
    "packed LSTM": lambda: Network(nn.LSTM(SIZE, SIZE, 2, batch_first=True, dropout=0.5), packed),
    "GRU": lambda: Network(nn.GRU(SIZE, SIZE, 2, batch_first=True, dropout=0.5), recurrent),
    "RNN": lambda: Network(nn.RNN(SIZE, SIZE, 2, batch_first=True, dropout=0.5), recurrent),
    "product attention": lambda: Network(ProductAttention()),
    "fused attention": lambda: Network(FusedAttention()),
    "fused attention, listed": lambda: Network(FusedAttention(listed=True)),
    "fused attention and a dropout": lambda: Network(
        nn.Sequential(FusedAttention(), nn.Dropout(0.02))
    ),
    "functional": lambda: Network(Functional()),
    "drop path": lambda: Network(DropPath()),
    "of somebody's own": lambda: Network(Custom()),
    "alpha": lambda: Network(nn.AlphaDropout(0.5)),
    "feature alpha": lambda: Network(nn.FeatureAlphaDropout(0.5)),
    "in place": lambda: Network(nn.Sequential(nn.Linear(SIZE, SIZE), nn.Dropout(0.5, True))),
}


@pytest.fixture
def x(dtype) -> Tensor:
    return torch.randn(4, 6, SIZE, dtype=dtype)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_spread_is_that_of_training_mode(kind, x):
    network, before = NETWORKS[kind]().to(x.dtype).eval(), torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ModuleDropout(network, samples=100).predict(x).members.std(0)
    assert not any(module.training for module in network.modules())
    assert torch.equal(torch.get_rng_state(), before)
    network.train()  # without batch norm, only dropout knows the difference
    with torch.no_grad():
        expected = torch.stack([network(x).softmax(-1) for _ in range(100)]).std(0)
    assert expected.min() > 1e-4
    assert float(found.norm() / expected.norm()) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("inner", [True, False], ids=["a part", "the whole"])
def test_a_compiled_network(x, inner):
    layer = nn.Sequential(nn.Linear(SIZE, SIZE), nn.Dropout(0.5)).to(x.dtype)
    layer = torch.compile(layer, backend="eager") if inner else layer
    network = Network(layer).to(x.dtype).eval()
    network = network if inner else torch.compile(network, backend="eager")
    whole = network(x)  # compiled without dropout
    assert ModuleDropout(network).predict(x).members.std(0).min() > 1e-3
    assert torch.equal(network(x), whole)


class Unused(nn.Module):
    """Has a dropout that nothing passes through."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.dropout = nn.Linear(SIZE, 3), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x.mean(1))


def test_a_dropout_that_never_acts_is_refused(dtype, x):
    network = Unused().to(dtype).eval()
    with pytest.raises(
        ConfigError, match="give the same numbers: its dropout never acts"
    ) as caught:
        ModuleDropout(network, 3).predict(x)
    assert "\n" not in str(caught.value)
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("kind", [nn.Dropout, Custom])
def test_rare_drops_are_no_reason_to_refuse(dtype, kind):
    """Of 4 numbers that are dropped once in fifty, two passes mostly drop none."""
    network = nn.Sequential(kind(0.02), nn.Linear(4, 2)).to(dtype).eval()
    x = torch.ones(1, 4, dtype=dtype)
    spreads = [ModuleDropout(network, 2, seed).predict(x).logits.std(0) for seed in range(5)]
    assert any(not spread.any() for spread in spreads)


def test_zero_is_true_where_dropout_acts_and_changes_nothing(dtype):
    """A network that pruning left dead, or an input of zeros."""
    network = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2)).to(dtype).eval()
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].bias.zero_()
    prediction = ModuleDropout(network, 5).predict(torch.randn(3, 4, dtype=dtype))
    assert float(prediction.mutual_information.max()) < 1e-6


def test_a_module_that_only_keeps_a_rate_stays_in_evaluation_mode(dtype, x):
    assert ModuleDropout(Outer().to(dtype).eval(), 5).predict(x).mutual_information.min() > 0


def test_which_modules_drop():
    parts = nn.ModuleList(
        [nn.Dropout(0.1), nn.LSTM(2, 2, 2, dropout=0.1), nn.MultiheadAttention(2, 1, 0.1)]
        + [DropPath(), Functional(), Custom(), ProductAttention()]
    )
    idle = [nn.Dropout(0.0), nn.GRU(2, 2, 2), nn.MultiheadAttention(2, 1), DropPath(0.0)]
    assert dropout_modules(nn.ModuleList([parts, *idle, nn.Linear(2, 2)])) == list(parts)


def test_threads_beside_each_other(x):
    network = Network(encoder()).to(x.dtype).eval()
    expected = [ModuleDropout(network, 3, seed).predict(x).logits for seed in (1, 2)]
    whole = network(x)
    other = Held(network.out, lambda: ModuleDropout(network, 3, 1).predict(x).logits)
    assert torch.equal(network(x), whole)  # a plain pass beside it has no dropout
    second = Held(network.out, lambda: ModuleDropout(network, 3, 2).predict(x).logits, wait=False)
    assert not second.reached.wait(0.2)  # torch's dropout has one generator: samples take turns
    assert torch.equal(other.released(), expected[0])
    assert torch.equal(second.released(), expected[1])
