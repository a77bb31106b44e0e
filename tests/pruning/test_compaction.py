"""The compact model computes what the masked one does, and is really smaller."""

from __future__ import annotations

import copy

import pytest
import torch
from slow_cases import slow_but

from egnn_prune.channels import ChannelGroup, Member, Prunable, gates, linear_members
from egnn_prune.models import PropertyModel
from egnn_prune.pruning import Context, apply_masks, choose, compact, keep_masks, score_channels
from egnn_prune.pruning.freezing import freeze
from egnn_prune.pruning.masks import MaskParametrization
from egnn_prune.pruning.tensors import parameter_names
from egnn_prune.testing import assert_equivariant

EVERYTHING = {"attention": True, "velocity": True, "edge_features": 2, "radial": 4}
MODELS = {
    "property": ("property", {}),
    "property with everything": ("property", {**EVERYTHING, "dropout": 0.2}),
    "egnn": ("egnn", {}),
    "egnn with everything": ("egnn", EVERYTHING),
    "egnn cutoff mean": ("egnn", {"cutoff": 3.0, "aggregation": "mean"}),
    "egnn still": ("egnn", {"update_positions": False, "residual": False}),
}
every_model = pytest.mark.parametrize(("kind", "options"), MODELS.values(), ids=MODELS.keys())


@pytest.fixture
def make(make_egnn, make_property_model, make_batch):
    """``make(kind, options)``: a model and a batch for it."""

    def build(kind, options):
        builder = make_egnn if kind == "egnn" else make_property_model
        batch = make_batch(1, 3, 6, edge_features=options.get("edge_features", 0))
        return builder(hidden=9, layers=2, **options), batch

    return build


def loss_per_graph(model, batch):
    result = model(batch)
    if hasattr(result, "mean"):
        return (result.mean - 1.0).square() / result.variance
    per_node = result.x.square().sum(1) + (result.pos - batch.pos).square().sum(1)
    return per_node.new_zeros(len(batch.ptr) - 1).index_add(0, batch.batch, per_node)


def numbers(result):
    """All outputs of a model in a row, without the zeros of stream channels that were masked."""
    if hasattr(result, "members"):
        return torch.cat([result.members.flatten(), result.member_variance.flatten()])
    alive = result.x[:, (result.x != 0).any(0)]
    return torch.cat([alive.flatten(), result.pos.flatten(), result.vel.flatten()])


def scored(model, batch, criterion):
    context = Context(model, model.channel_groups(), [batch], loss_per_graph)
    return score_channels(criterion, context)


def random_masked(model, sparsity=0.4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = {g.name: torch.rand(g.n, generator=generator) for g in model.channel_groups()}
    masked = copy.deepcopy(model)
    apply_masks(masked, choose(scores, sparsity))
    return masked


def size(model):
    return sum(p.numel() for p in model.parameters())


@every_model
@pytest.mark.parametrize("criterion", slow_but(["magnitude", "random", "taylor"], "taylor"))
def test_masked_equals_compact(make, assert_close, kind, options, criterion):
    model, batch = make(kind, options)
    scores = scored(model, batch, criterion)
    for scope in ("global", "group"):
        before = size(model) + 1
        for sparsity in (0.0, 0.2, 0.4, 0.6, 0.8):
            masked = copy.deepcopy(model)
            apply_masks(masked, choose(scores, sparsity, scope))
            small = compact(masked)
            assert_close(numbers(small(batch)), numbers(masked(batch)))
            assert size(small) < before, "every step must remove something"
            before = size(small)
            assert not any(isinstance(m, MaskParametrization) for m in small.modules())


@every_model
def test_gradients_of_survivors_agree(make, assert_close, kind, options, tolerance):
    """The compact model does not only predict the same: it learns the same."""
    model, batch = make(kind, options)
    masked = random_masked(model)
    small = compact(masked)
    found = []
    for m in (masked, small):
        loss_per_graph(m, batch).sum().backward()
        names = zip(parameter_names(m), m.parameters(), strict=True)
        found.append({k: p.grad[p.grad != 0] for k, p in names if p.grad is not None})
    large, little = found
    assert large.keys() == little.keys()
    for name, gradient in large.items():
        assert_close(little[name], gradient, 100 * tolerance)


@pytest.mark.parametrize("kind", ["property", "egnn"])
def test_the_residual_stream_can_be_pruned(make, assert_close, kind):
    model, batch = make(kind, {})
    keep = {g.name: torch.ones(g.n, dtype=torch.bool) for g in model.channel_groups()}
    stream = "trunk.stream" if kind == "property" else "stream"
    keep[stream][[0, 4, 5]] = False
    apply_masks(model, keep)
    small = compact(model)
    out = small(batch)
    if kind == "property":
        assert_close(numbers(out), numbers(model(batch)))
        assert (small.trunk.hidden, small.head.features) == (6, 6)
    else:
        whole = model(batch).x
        assert (whole[:, [0, 4, 5]] == 0).all()
        assert_close(out.x, whole[:, keep[stream]])


@every_model
def test_widths_are_the_channels_kept(make, kind, options):
    model, _ = make(kind, options)
    masked = random_masked(model)
    kept = {name: int(mask.sum()) for name, mask in keep_masks(masked).items()}
    assert {g.name: g.n for g in compact(masked).channel_groups()} == kept


def test_dense_model_is_unchanged(make):
    model, _ = make("property", EVERYTHING)
    masked = random_masked(model)
    state = {k: v.clone() for k, v in masked.state_dict().items()}
    small = compact(masked)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.fill_(7.0)
    assert all(torch.equal(v, state[k]) for k, v in masked.state_dict().items())
    assert size(small) < size(masked)


@pytest.mark.parametrize("training", [True, False])
def test_precision_mode_and_freedom(make, dtype, training):
    model, _ = make("property", {})
    masked = random_masked(model)
    freeze(masked, "message_passing")
    masked.train(training)
    small = compact(masked)
    assert {p.dtype for p in small.parameters()} == {dtype}
    assert all(m.training is training for m in small.modules())
    assert all(p.requires_grad for p in small.parameters())


def test_device_is_kept(make):
    model, _ = make("property", {})
    masked = random_masked(model)
    small = compact(masked.to("cuda" if torch.cuda.is_available() else "cpu"))
    assert {p.device.type for p in small.parameters()} == {
        p.device.type for p in masked.parameters()
    }


@every_model
def test_prune_again(make, assert_close, kind, options):
    """The compact model is an ordinary model: mask and compact it once more."""
    model, batch = make(kind, options)
    once = compact(random_masked(model, 0.3))
    again = random_masked(once, 0.4, seed=1)
    twice = compact(again)
    assert_close(numbers(twice(batch)), numbers(again(batch)))
    assert size(twice) < size(once) < size(model)
    for (_, gate), (_, dense) in zip(gates(twice), gates(model), strict=True):
        assert int(gate.dense_width) == int(dense.dense_width)
        assert len(gate.kept) == len(gate.kept.unique()) <= len(dense.kept)


def test_masked_and_compact_draw_the_same_networks(make, draw_thinning, assert_close):
    model, batch = make("property", {**EVERYTHING, "dropout": 0.3})
    masked = random_masked(model)
    small = compact(masked)
    twice = compact(random_masked(small, 0.3, seed=1))
    for m in (masked, small, twice):
        draw_thinning(m, 5, seed=3)
    assert_close(numbers(small(batch, samples=5)), numbers(masked(batch, samples=5)))
    assert small(batch, samples=5).epistemic.min() > 0
    wide = dict(gates(masked))
    for m in (small, twice):
        for name, gate in gates(m):
            assert torch.equal(gate.dropout_mask, wide[name].dropout_mask[:, gate.kept])


@every_model
def test_equivariant_after_masking_and_after_surgery(make, tolerance, kind, options):
    model, batch = make(kind, options)
    masked = random_masked(model)
    assert_equivariant(masked, batch, tolerance=tolerance, transforms=2)
    assert_equivariant(compact(masked), batch, tolerance=tolerance, transforms=2)


def test_compact_can_be_built_from_its_architecture(make, dtype, assert_close):
    model, batch = make("property", EVERYTHING)
    small = compact(random_masked(model))
    again = PropertyModel.from_config(small.config()).to(dtype).eval()
    again.load_state_dict(small.state_dict())
    assert_close(again(batch).members, small(batch).members)


def test_models_are_prunable(make):
    assert isinstance(make("property", {})[0], Prunable)
    assert isinstance(make("egnn", {})[0], Prunable)


def test_missing_members_are_reported(make):
    model, _ = make("egnn", {})
    masked = random_masked(model)
    groups = masked.channel_groups()
    forgetful = [
        type(g)(g.name, g.kind, g.n, g.members[:-2] + g.members[-1:], g.gate) for g in groups
    ]
    masked.channel_groups = lambda: forgetful
    with pytest.raises(RuntimeError, match="incomplete"):
        compact(masked)


class Tied(torch.nn.Module):
    """Two layers with one weight; ``norm`` is kept in evaluation mode, ``first`` never learns."""

    def __init__(self, width=6):
        super().__init__()
        self.first, self.norm = torch.nn.Linear(4, width), torch.nn.BatchNorm1d(width)
        self.b, self.c = torch.nn.Linear(width, width), torch.nn.Linear(width, width)
        self.c.weight = self.b.weight

    def forward(self, x):
        return self.c(self.b(self.norm(self.first(x)))).sum(1)

    def channel_groups(self):
        linear = [m for n in ("first", "b", "c") for m in linear_members(n, self.width, rows=True)]
        reads = [m for n in ("b", "c") for m in linear_members(n, self.width)]
        names = ("weight", "bias", "running_mean", "running_var")
        norm = [Member.span(f"norm.{name}", 0, self.width) for name in names]
        return [ChannelGroup("all", "stream", self.width, (*linear, *reads, *norm))]

    @property
    def width(self):
        return len(self.b.weight)

    def resized(self, keep):
        return Tied(len(keep["all"]))


def test_ties_modes_and_flags_carry_over(assert_close):
    model, x = Tied().double().train(), torch.randn(5, 4, dtype=torch.float64)
    model.norm.eval()
    model.first.weight.requires_grad_(False)
    apply_masks(model, {"all": torch.arange(6) % 3 > 0})
    small = compact(model)
    assert small.c.weight is small.b.weight and small.b.weight.shape == (4, 4)
    assert small.training and small.c.training and not small.norm.training
    assert not small.first.weight.requires_grad and small.first.bias.requires_grad
    assert_close(small(x), model(x))
