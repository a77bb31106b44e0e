"""``assert_prunable`` passes for what can be pruned, and says what is wrong with what cannot."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data

from egnn_prune.channels import ChannelGate, ChannelGroup, Member, gate_members, linear_members
from egnn_prune.graphs import complete_edges
from egnn_prune.pruning import TracedNetwork, apply_masks
from egnn_prune.pruning.masks import remove_masks
from egnn_prune.testing import assert_prunable

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))


class Toy(nn.Module):
    """``c(tanh(b([x, tanh(a(x))])))``: the second layer reads the first's channels at offset 4."""

    def __init__(self, first=6, second=5):
        super().__init__()
        self.widths = (first, second)
        self.a, self.b = nn.Linear(4, first), nn.Linear(4 + first, second)
        self.c = nn.Linear(second, 3)
        self.first_gate, self.second_gate = ChannelGate(first), ChannelGate(second)

    def forward(self, x):
        graph = torch.arange(len(x))
        h = self.first_gate(self.activation(self.a(x)), graph)
        h = self.second_gate(self.activation(self.b(torch.cat([x, h], 1))), graph)
        return self.c(h)

    activation = staticmethod(torch.tanh)

    def first_members(self):
        n = self.widths[0]
        return [
            *linear_members("a", n, rows=True),
            *linear_members("b", n, columns=[4]),
            *gate_members("first_gate", n),
        ]

    def second_members(self):
        n = self.widths[1]
        return [
            *linear_members("b", n, rows=True),
            *linear_members("c", n),
            *gate_members("second_gate", n),
        ]

    def channel_groups(self):
        first, second = self.widths
        return [
            ChannelGroup("first", "hidden", first, tuple(self.first_members()), "first_gate"),
            ChannelGroup("second", "hidden", second, tuple(self.second_members()), "second_gate"),
        ]

    def resized(self, keep):
        return type(self)(len(keep["first"]), len(keep["second"]))


X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def complaint(model, batch=X, **options):
    with pytest.raises(AssertionError) as caught:
        assert_prunable(model, batch, **options)
    return str(caught.value)


# --------------------------------------------------------------------------- what passes


def test_toy(dtype):
    assert_prunable(Toy().to(dtype), X.to(dtype))


@pytest.mark.parametrize("kind", ["property", "egnn"])
@pytest.mark.parametrize("sizes", [(1, 3, 6), (4,)])
def test_our_models(make_property_model, make_egnn, make_batch, kind, sizes):
    make = make_property_model if kind == "property" else make_egnn
    assert_prunable(make(attention=True, velocity=True), make_batch(*sizes), equivariance=True)


def test_resnet18():
    models = pytest.importorskip("torchvision", reason="needs the extra [vision]").models
    pytest.importorskip("torch_pruning", reason="needs the package torch-pruning")
    x = torch.randn(2, 3, 64, 64)
    assert_prunable(TracedNetwork(models.resnet18(), x), x)


def test_traced_mlp_in_float64():
    pytest.importorskip("torch_pruning", reason="needs the package torch-pruning")
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Sigmoid(), nn.Linear(8, 3))
    x = X.double()
    assert_prunable(TracedNetwork(network.double(), x), x)


def test_the_example_network(make_batch, dtype):
    from prune_your_own_gnn import FilterNet

    batch = make_batch(1, 4, 6)
    batch.edge_index = complete_edges(batch.ptr)
    assert_prunable(FilterNet(12, [(8, 6), (5, 9)]).to(dtype), batch, equivariance=True)


def test_nothing_is_left_behind():
    model = Toy().train()
    keep = {g.name: torch.arange(g.n) > 1 for g in model.channel_groups()}
    apply_masks(model, keep)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    assert_prunable(model, X)
    assert model.training and model.first_gate.opened is None
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    remove_masks(model)


# ----------------------------------------------------------------- members that are wrong


class Members(Toy):
    """Change the members of the first group: ``change(list of members) -> list``."""

    def __init__(self, change, first=6, second=5):
        super().__init__(first, second)
        self.change = change

    def first_members(self):
        return self.change(super().first_members())

    def resized(self, keep):
        return Members(self.change, len(keep["first"]), len(keep["second"]))


def named(name, change):
    """Replace the member of a tensor by ``change(member)``, or drop it for ``None``."""

    def apply(members):
        changed = [change(m) if m.name == name else m for m in members]
        return [m for m in changed if m is not None]

    return apply


def rows_for_columns(member):
    return replace(member, axis=0, index=torch.arange(6)[:, None])


@pytest.mark.parametrize(
    ("change", "first", "second", "sentence"),
    [
        (
            named("b.weight", lambda m: None),
            *(6, 5),
            "b.weight should shrink with group first but is not among its members",
        ),
        (
            named("a.bias", lambda m: None),
            *(6, 5),
            "a.bias should shrink with group first but is not among its members",
        ),
        (
            named("b.weight", lambda m: replace(m, index=m.index - 4)),
            *(6, 5),
            "an axis or an offset in its members (a.weight, a.bias, b.weight",
        ),
        (
            named("b.weight", lambda m: replace(m, index=m.index + 1)),
            *(6, 5),
            "member b.weight: axis 1 of (5, 10) has the entries 0 to 9, but the index goes from "
            "5 to 10; check axis and offset",
        ),
        (
            named("b.weight", lambda m: replace(m, axis=0)),
            *(6, 5),
            "member b.weight: axis 0 of (5, 10) has the entries 0 to 4, but the index goes from 4",
        ),
        (
            named("a.weight", lambda m: replace(m, axis=1, index=m.index[:4])),
            *(6, 5),
            "the index must be integers [n, block] with n = 6, not torch.int64 (4, 1)",
        ),
        (
            named("a.weight", lambda m: replace(m, axis=1)),
            *(4, 5),
            "group first: a.weight shrinks along axis 0, but its member says axis 1",
        ),
        (
            named("b.weight", lambda m: replace(m, index=m.index * 0 + 4)),
            *(6, 5),
            "entry 4 on axis 1 belongs to two channels",
        ),
        (
            named("a.bias", lambda m: replace(m, axis=1)),
            *(6, 5),
            "shape (6,) has no axis 1; count from 0",
        ),
        (
            named("a.bias", lambda m: replace(m, name="a.biases")),
            *(6, 5),
            "group first, member a.biases: the model has no such parameter or buffer",
        ),
        (
            named("a.bias", lambda m: replace(m, name="d.bias")),
            *(6, 5),
            "group first, member d.bias: the model has no such parameter or buffer",
        ),
        (
            named("a.weight", lambda m: replace(m, view=(5, 5))),
            *(6, 5),
            "(6, 4) cannot be viewed as (5, 5)",
        ),
        (
            named("a.bias", lambda m: replace(m, name="b.bias")),
            *(5, 5),
            "entry 0 on axis 0 of b.bias belongs to the groups first and second",
        ),
        (
            lambda members: [*members, Member.span("c.bias", 0, 3)],
            *(3, 5),
            "group first: resized() leaves c.bias as wide as it was, although it is a member",
        ),
        (
            named("first_gate.kept", lambda m: None),
            *(6, 5),
            "first_gate.kept should shrink with the group; add *gate_members(gate, n)",
        ),
    ],
)
def test_wrong_members(change, first, second, sentence):
    assert sentence in complaint(Members(change, first, second))


# ------------------------------------------------------------- modules that do not work out


class Normed(Toy):
    """A layer norm over channels: their number matters to it."""

    def __init__(self, first=6, second=5):
        super().__init__(first, second)
        self.norm = nn.LayerNorm(first)

    def activation(self, h):
        return torch.tanh(self.norm(h) if h.shape[1] == self.norm.bias.numel() else h)

    def first_members(self):
        n = self.widths[0]
        norm = [Member.span("norm.weight", 0, n), Member.span("norm.bias", 0, n)]
        return [*super().first_members(), *norm]


class Doubled(Toy):
    """``resized`` makes all layers, but one of them always at its old width."""

    def resized(self, keep):
        return Toy(len(keep["first"]), self.widths[1])


class Dropping(Toy):
    def resized(self, keep):
        small = super().resized(keep)
        small.c = nn.Linear(len(keep["second"]), 3, bias=False)
        return small


class Adding(Toy):
    def resized(self, keep):
        small = super().resized(keep)
        small.extra = nn.Linear(2, 2)
        return small


class Swapped(Toy):
    def resized(self, keep):
        return Toy(len(keep["second"]), len(keep["first"]))


class Failing(Toy):
    def resized(self, keep):
        return Toy(keep["third"], 5)


class Ungated(Toy):
    def forward(self, x):
        h = self.activation(self.a(x))
        h = self.activation(self.b(torch.cat([x, h], 1)))
        return self.c(self.second_gate(h, torch.arange(len(x))))


class OneForAll(Toy):
    """Every row is said to belong to the first sample."""

    def forward(self, x):
        h = self.first_gate(self.activation(self.a(x)), torch.zeros(len(x)).long())
        h = self.activation(self.b(torch.cat([x, h], 1)))
        return self.c(self.second_gate(h, torch.arange(len(x))))


class NoNumbers(Toy):
    def forward(self, x):
        h = self.first_gate(self.activation(self.a(x)), x[:, 0])
        h = self.activation(self.b(torch.cat([x, h], 1)))
        return self.c(self.second_gate(h, torch.arange(len(x))))


class GatedTooEarly(Toy):
    """sigmoid(0) is not zero: what reads the channels sees more than nothing."""

    def forward(self, x):
        graph = torch.arange(len(x))
        h = torch.sigmoid(self.first_gate(self.a(x), graph))
        h = self.second_gate(self.activation(self.b(torch.cat([x, h], 1))), graph)
        return self.c(h)


class Returning(Toy):
    """Masked channels come out as tanh(0) = 0 in one and not at all in the other, plus one."""

    def forward(self, x):
        return torch.tanh(self.a(x)) + 1.0


class Forgetful(Toy):
    def __deepcopy__(self, memo):
        twin = Toy(*self.widths)
        plain = {k: v for k, v in self.state_dict().items() if "parametrizations" not in k}
        twin.load_state_dict(plain, strict=False)
        twin.__class__ = type(self)
        return twin


class NarrowGate(Toy):
    def __init__(self, first=6, second=5):
        super().__init__(first, second)
        self.first_gate = ChannelGate(first - 1)


class NoGate(Toy):
    def channel_groups(self):
        return [replace(g, gate="third_gate") for g in super().channel_groups()]


class NotAGate(Toy):
    def channel_groups(self):
        return [replace(g, gate="a") for g in super().channel_groups()]


class Twice(Toy):
    def channel_groups(self):
        return [replace(g, name="same") for g in super().channel_groups()]


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (Normed(), "suspects: norm (LayerNorm)"),
        (Doubled(), "group second: resized() leaves b.weight as wide as it was"),
        (Dropping(), "resized() drops c.bias; it must build the same layers, only narrower"),
        (Adding(), "resized() adds extra.bias"),
        (Swapped(), "resized() with all channels: "),
        (Failing(), "resized() fails: KeyError: 'third'"),
        (Ungated(), "group first, gate first_gate: closing it changes nothing"),
        (OneForAll(), "give the gate the number of each row's sample as its graph"),
        (NoNumbers(), "group first, gate first_gate: the model cannot be run with its gates"),
        (GatedTooEarly(), "group first, gate first_gate: output of removed channels and gates at"),
        (Returning(), "leave channels that are returned out of the groups"),
        (NarrowGate(), "group first, member first_gate.kept: axis 0 of (5,) has the entries 0 to"),
        (NoGate(), "gate third_gate: it must be a ChannelGate of the model, but is no such module"),
        (NotAGate(), "gate a: it must be a ChannelGate of the model, but is Linear"),
        (Twice(), "two groups named same"),
        (nn.Linear(4, 3), "Linear has no channel_groups() and resized()"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_broken_modules(model, sentence):
    assert sentence in complaint(model)


def test_gate_one_that_shifts():
    class Shifting(ChannelGate):
        def forward(self, x, graph):
            return super().forward(x, graph) + (self.opened is not None)

    model = Toy()
    model.second_gate = Shifting(5)
    assert "group second, gate second_gate: output of gates at one and no gates" in complaint(model)


def test_copies_that_lose_the_masks():
    model = Forgetful()
    assert copy.deepcopy(model) is not model
    assert "deepcopy" in complaint(model)


# ------------------------------------------------------------------------------- symmetry


class Origin(Toy):
    """Sees positions themselves, and so the origin."""

    def forward(self, batch):
        return super().forward(torch.cat([batch.pos, batch.pos[:, :1]], 1))


def test_symmetry_is_wanted_only_where_it_was():
    batch = Batch.from_data_list([Data(pos=X[:, :3].clone())])
    model = Origin()
    for group in (g.gate for g in model.channel_groups()):
        model.get_submodule(group).forward = lambda x, graph: x
    model.channel_groups = lambda: [replace(g, gate=None) for g in Toy.channel_groups(model)]
    assert_prunable(model, batch, equivariance=False)
    assert_prunable(model, batch)
    assert "Origin is not equivariant" in complaint(model, batch, equivariance=True)
