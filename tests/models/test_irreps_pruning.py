"""A pruned IrrepsNet: masked equals compact, whole orders go, the same networks are drawn."""

from __future__ import annotations

import copy

import pytest
import torch
from irreps_helpers import FEATURES, SPARSITIES, masked_at, numbers, seen, size
from torch_geometric.data import Data

from egnn_prune.channels import Prunable, gates
from egnn_prune.errors import ConfigError
from egnn_prune.graphs import with_edges
from egnn_prune.models import IrrepsNet
from egnn_prune.pruning import (
    Context,
    apply_masks,
    choose,
    compact,
    count_macs,
    keep_masks,
    score_channels,
)
from egnn_prune.testing import assert_equivariant
from egnn_prune.uncertainty import mc_dropout

orders = pytest.mark.parametrize("lmax", [0, 1, 2, 3])


@orders
def test_masked_equals_compact(make_net, make_batch, assert_close, lmax):
    net, batch = make_net(lmax=lmax), make_batch(1, 4, 7)
    before = size(net) + 1
    for sparsity in SPARSITIES:
        masked = masked_at(net, sparsity)
        small = compact(masked)
        assert_close(numbers(small, batch), numbers(masked, batch))
        assert size(small) < before, "every step must remove something"
        before = size(small)


@pytest.mark.parametrize("criterion", ["magnitude", "random", "taylor"])
def test_criteria(make_model, make_batch, assert_close, criterion):
    model, batch = make_model(), make_batch(3, 6)
    groups = model.channel_groups()
    context = Context(model, groups, [batch], lambda m, b: m(b).mean.square())
    scores = score_channels(criterion, context)
    for name, score in scores.items():
        assert score.isfinite().all() and score.max() > 0, name
    for scope in ("global", "kind"):
        masked = copy.deepcopy(model)
        apply_masks(masked, choose(scores, 0.5, scope, groups=groups))
        assert_close(compact(masked)(batch).members, masked(batch).members)


GONE = {
    "one order": ["layers.0.2e"],
    "all vectors of a layer": ["layers.1.1o", "layers.1.1e"],
    "everything but scalars": [f"layers.0.{ir}" for ir in ("1o", "2e")],
    "the scalars": ["layers.0.0e", "layers.1.0e"],
    "scalars and vectors": ["layers.0.0e", "layers.0.1o", "layers.1.0e", "layers.1.2e"],
    # what is left, axial vectors over axial vectors, cannot become polar ones: inputs run dry
    "all but axial vectors": [f"layers.1.{ir}" for ir in ("0e", "1o", "2e", "2o")],
}


@pytest.mark.parametrize("gone", GONE.values(), ids=GONE.keys())
def test_whole_orders_may_go(make_net, make_batch, tolerance, assert_close, gone):
    net, batch = make_net(), make_batch(1, 4, 7)
    masked = masked_at(net, 0.1, empty=gone)
    small = compact(masked)
    for i, layer in enumerate(small.layers):
        names = {g.rpartition(".")[2] for g in gone if g.startswith(f"layers.{i}.")}
        assert not names & set(layer.made)
        assert not any(p.target in names - {"0e"} for p in layer.paths), "nothing computes them"
    assert_close(numbers(small, batch), numbers(masked, batch))
    assert_equivariant(seen(small), batch, tolerance=tolerance, transforms=2)
    again = IrrepsNet.from_config(small.config()).to(batch.pos.dtype)
    again.load_state_dict(small.state_dict())
    assert_close(numbers(again, batch), numbers(small, batch))


def test_a_layer_keeps_a_channel(make_net):
    net = make_net()
    everything = [g.name for g in net.channel_groups() if g.family == "layers.0"]
    assert {g.rpartition(".")[2] for g in everything} == {"0e", "1o", "2e"}
    with pytest.raises(ConfigError, match=r"layers\.0 would lose all"):
        masked_at(net, 0.0, empty=everything)
    with pytest.raises(ConfigError, match=r"layers\.2\.0e would lose all"):
        masked_at(net, 0.0, empty=["layers.2.0e"])
    groups = net.channel_groups()
    scores = {g.name: torch.rand(g.n) + (g.kind == "radial") for g in groups}
    keep = choose(scores, 0.5, groups=groups)
    apply_masks(net, keep, groups)
    assert any(not mask.any() for mask in keep.values()), "whole orders went"


def test_coefficients_are_carried_over(make_net):
    """e3nn would divide by the square root of the fan-in that is left."""
    net = make_net()
    small = compact(masked_at(net, 0.5))
    for i, layer in enumerate(small.layers):
        for ir, mix in layer.mix.items():
            dense = set(net.layers[i].mix[ir].coefficient.tolist())
            assert set(mix.coefficient.tolist()) <= dense
            assert len(mix.coefficient) < len(net.layers[i].mix[ir].coefficient)


def test_removing_one_channel_zeroes_it_and_its_gate_scalar(make_net, make_batch):
    net, batch = make_net(), make_batch(5)
    groups = {g.name: g for g in net.channel_groups()}
    keep = {name: torch.ones(g.n, dtype=torch.bool) for name, g in groups.items()}
    keep["layers.0.1o"][2] = False
    caught = []
    net.layers[0].register_forward_hook(lambda _, __, out: caught.append(out["1o"]))
    apply_masks(net, keep)
    net(batch)
    assert (caught[0][:, :, 2] == 0).all() and (caught[0][:, :, [0, 1, 3]] != 0).all()
    assert (net.layers[0].mix_gate["1o"].weight[2] == 0).all()
    # two paths lead from 1o to 1o (over Y0 and Y2), and the copy's own column
    assert (net.layers[1].mix["1o"].weight == 0).all(0).sum() == 3


def test_gradients_of_survivors_agree(make_model, make_batch, assert_close, tolerance):
    """The compact model does not only predict the same: it learns the same."""
    model, batch = make_model(), make_batch(3, 6)
    masked = masked_at(model, 0.4)
    found = []
    for m in (masked, compact(masked)):
        m(batch).mean.square().sum().backward()
        names = (n.replace("parametrizations.", "") for n, _ in m.named_parameters())
        pairs = zip(names, m.parameters(), strict=True)
        found.append(
            {
                n.removesuffix(".original"): p.grad[p.grad != 0]
                for n, p in pairs
                if p.grad is not None
            }
        )
    for name, gradient in found[1].items():
        assert_close(gradient, found[0][name], 100 * tolerance)


def test_prune_again_and_groups_count(make_net, make_batch, assert_close):
    net, batch = make_net(), make_batch(3, 6)
    once = compact(masked_at(net, 0.3))
    again = masked_at(once, 0.4, seed=1)
    twice = compact(again)
    assert_close(numbers(twice, batch), numbers(again, batch))
    kept = {name: int(mask.sum()) for name, mask in keep_masks(again).items()}
    assert {g.name: g.n for g in twice.channel_groups()} == {k: n for k, n in kept.items() if n}
    assert isinstance(net, Prunable)


def test_half_is_at_most_two_fifths_of_the_work():
    torch.manual_seed(0)
    net = IrrepsNet(FEATURES, 32, 3, lmax=2)
    keep = {g.name: torch.arange(g.n) % 2 == 0 for g in net.channel_groups()}
    batch = with_edges(Data(x=torch.randn(18, FEATURES), pos=2 * torch.randn(18, 3)), 5.0)
    masked = copy.deepcopy(net)
    apply_masks(masked, keep)
    dense, half = (count_macs(m, lambda m: m(batch))[""] for m in (net, compact(masked)))
    assert half <= 0.4 * dense


# dropout ------------------------------------------------------------------------------------------


def test_masked_and_compact_draw_the_same_networks(make_model, make_batch, assert_close, tolerance):
    model, batch = make_model(dropout=0.3), make_batch(3, 6)
    masked = masked_at(model, 0.4)
    small = compact(masked)
    drawn = [
        mc_dropout(m, batch, 5, generator=torch.Generator().manual_seed(3)) for m in (masked, small)
    ]
    assert_close(drawn[1].members, drawn[0].members)
    assert drawn[0].epistemic.min() > 0
    one = mc_dropout(
        small, batch, 5, generator=torch.Generator().manual_seed(3), samples_per_call=1
    )
    assert_close(one.members, drawn[1].members)

    def thin(b):
        return mc_dropout(small, b, 4, generator=torch.Generator().manual_seed(0))

    assert_equivariant(thin, batch, tolerance=10 * tolerance, transforms=2)


def test_every_gate_is_in_a_group(make_model):
    model = make_model(dropout=0.2)
    groups = model.channel_groups()
    trunk = [name for name, _ in gates(model) if name.startswith("trunk.")]
    assert sorted(g.gate for g in groups) == sorted(trunk)
    assert {g.kind for g in groups} == {"l=0", "l=1", "l=2", "radial"}
    assert groups[0].name == "trunk.layers.2.0e"
