"""Every member's forces are exact; their disagreement turns, moves and is renumbered with them."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from egnn_prune.channels import gates
from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.graphs import with_edges
from egnn_prune.models import EGNNOptions, PropertyModel, TargetScale, force_prediction, forces
from egnn_prune.prediction import Prediction
from egnn_prune.testing import random_transform
from egnn_prune.uncertainty import (
    DeepEnsemble,
    MCDropout,
    SinglePass,
    draw_networks,
    dropout_samples,
)

CUTOFF = 4.0


class Thinned(nn.Module):
    """A model whose dropout is always the same few MC-dropout samples."""

    def __init__(self, model: nn.Module, samples: int = 4) -> None:
        super().__init__()
        self.model = model
        generator = torch.Generator().manual_seed(0)
        self.masks = draw_networks(model, samples, generator)

    def forward(self, batch: Batch) -> Prediction:
        with dropout_samples(self.model, self.masks):
            return self.model(batch, samples=len(self.masks[0]))


KINDS = ["shallow", "deep", "dropout", "read-out", "shallow dropout"]


@pytest.fixture(params=KINDS)
def model(request, dtype) -> nn.Module:
    return build(request.param, dtype)


def build(kind: str, dtype: torch.dtype) -> nn.Module:
    """A network with several members; positions move, and by visible lengths."""

    def one(members: int = 1, dropout: float = 0.0, readout: float = 0.0) -> PropertyModel:
        options = EGNNOptions(radial=6, attention=True, cutoff=CUTOFF, dropout=dropout)
        model = PropertyModel.build(
            (1, 6, 8),
            hidden=8,
            layers=2,
            members=members,
            readout_dropout=readout,
            options=options,
            scale=TargetScale(scale=20.0),
        )
        with torch.no_grad():
            model.trunk.layers[0].position_out.weight.mul_(100.0)
        return model.to(dtype).eval()

    torch.manual_seed(0)
    return {
        "shallow": partial(one, members=3),
        "deep": lambda: DeepEnsemble([one() for _ in range(3)]),
        "dropout": lambda: Thinned(one(dropout=0.3, readout=0.3)),
        "read-out": lambda: Thinned(one(readout=0.3)),
        "shallow dropout": lambda: Thinned(one(members=2, dropout=0.3)),
    }[kind]()


def forces_of(model: nn.Module, batch: Batch) -> Prediction:
    """``force_prediction``, of MC-dropout samples within their context."""
    if not isinstance(model, Thinned):
        return force_prediction(model, batch)
    with dropout_samples(model.model, model.masks):
        return force_prediction(model.model, batch)


def moved(batch: Batch, pos: Tensor) -> Batch:
    out = copy.copy(batch)
    out.pos = pos
    return out


def test_the_mean_is_the_force_of_the_mean_energy(model, make_batch, assert_close):
    batch = make_batch(3, 6)
    found = forces_of(model, batch)
    members = model(batch).members.shape[0]
    assert found.members.shape == (members, 9, 3) and members >= 3
    assert_close(found.mean, forces(model, batch))
    assert_close(found.epistemic, found.members.var(0))
    assert found.epistemic.sum(-1).median() > 0
    assert (found.aleatoric == 0).all() and (found.member_variance == 0).all()
    assert not found.mean.requires_grad


def test_forces_within_the_context_of_thinned_networks(make_batch, dtype, assert_close):
    model, batch = build("dropout", dtype), make_batch(3, 6)
    with dropout_samples(model.model, model.masks):
        found = forces(model.model, batch)
        assert_close(force_prediction(model.model, batch).mean, found)
    assert_close(found, forces(model, batch))


def test_every_member_is_the_slope_of_its_own_energy(model, make_batch, dtype):
    """Central differences of every member's energy, in float64; float32 agrees with it."""
    batch = make_batch(2, 4)
    found = forces_of(model, batch)
    if dtype == torch.float32:
        model.double()
        exact = forces_of(model, moved(batch, batch.pos.double()))
        scale = float(exact.members.abs().max())
        assert (found.members.double() - exact.members).abs().max() < 1e-4 * scale
        return
    step, slopes = 1e-5, torch.zeros_like(found.members)
    for node in range(6):
        for axis in range(3):
            shift = torch.zeros_like(batch.pos)
            shift[node, axis] = step
            with torch.no_grad():
                up = model(moved(batch, batch.pos + shift)).members.sum(1)
                down = model(moved(batch, batch.pos - shift)).members.sum(1)
            slopes[:, node, axis] = (up - down) / (2 * step)
    assert found.members.abs().amax((1, 2)).min() > 1e-3
    assert (found.members + slopes).abs().max() < 1e-7


@pytest.mark.parametrize("mirror", [False, True], ids=["rotation", "reflection"])
def test_the_mean_turns_and_the_total_variance_stays(model, make_batch, assert_close, mirror):
    batch = make_batch(3, 6)
    generator = torch.Generator().manual_seed(4)
    q, _ = random_transform(3, generator, determinant=-1 if mirror else 1)
    q = q.to(batch.pos.dtype)
    before, after = forces_of(model, batch), forces_of(model, moved(batch, batch.pos @ q.T))
    assert_close(after.mean, before.mean @ q.T.to(before.mean.dtype))
    assert_close(after.variance.sum(-1), before.variance.sum(-1))
    # single components do depend on the axes: only then is the sum worth a test
    assert (after.variance - before.variance).abs().max() > 1e-2 * before.variance.max()


def test_translation_and_permutation(model, make_batch, assert_close):
    batch = make_batch(7)
    before = forces_of(model, batch)
    after = forces_of(model, moved(batch, batch.pos + torch.tensor([3.0, -5.0, 8.0])))
    # float32 positions are rounded by the shift itself
    coarse = {"tolerance": 3e-4} if batch.pos.dtype == torch.float32 else {}
    assert_close(after.mean, before.mean, **coarse)
    assert_close(after.variance, before.variance, **coarse)
    order = torch.randperm(7)
    renumbered = moved(batch, batch.pos[order])
    renumbered.z = batch.z[order]
    after = forces_of(model, renumbered)
    assert_close(after.members, before.members[:, order])
    assert_close(after.variance, before.variance[order])
    # forces between the atoms of a molecule cancel, in every member
    assert before.members.sum(1).abs().max() < 1e-5 * before.members.abs().max()


def test_graphs_one_by_one(model, make_batch, assert_close):
    batch = make_batch(3, 1, 5)
    together = forces_of(model, batch)
    alone = [forces_of(model, graph) for graph in batch.to_data_list()]
    assert_close(together.members, torch.cat([p.members for p in alone], dim=1))


def test_stored_edges_give_the_same(model, make_batch, assert_close):
    batch = make_batch(3, 6)
    stored = with_edges(batch, CUTOFF)
    assert stored.edge_index.shape[1] < 3 * 2 + 6 * 5  # the cutoff does cut
    assert_close(forces_of(model, stored).members, forces_of(model, batch).members)


def test_nothing_is_left_behind(model, make_batch):
    batch = make_batch(3)
    model.train()
    forces_of(model, batch)
    assert not batch.pos.requires_grad and "prepared_for" not in batch
    assert all(p.grad is None for p in model.parameters())
    assert all(module.training for module in model.modules())
    assert all(gate.dropout_mask is None for _, gate in gates(model))


def test_thinned_networks_come_back_after_an_error(dtype):
    model = build("dropout", dtype)
    with dropout_samples(model.model, model.masks):
        with pytest.raises(DataError):
            force_prediction(model.model, Data(pos=torch.zeros(2, 3)))
        assert all(len(g.dropout_mask) == 4 for _, g in gates(model) if g.dropout_mask is not None)
        assert any(g.dropout_mask is not None for _, g in gates(model))


@pytest.mark.parametrize("kind", ["dropout", "read-out"])
def test_an_estimator_is_a_model(make_batch, dtype, assert_close, kind):
    model, batch = build(kind, dtype).model, make_batch(3, 5)
    whole = force_prediction(MCDropout(model, samples=4, seed=0), batch)
    assert_close(whole.members, forces_of(Thinned(model), batch).members)
    shallow = build("shallow", dtype)
    single = force_prediction(SinglePass(shallow), batch)
    assert torch.equal(single.members, force_prediction(shallow, batch).members)


def test_a_deep_ensemble_walks_back_through_one_member_at_a_time(make_batch, dtype):
    """Pooled first, the gradient of every member would pass through all of the networks."""
    model, seen = build("deep", dtype), []
    for i, member in enumerate(model.members):
        member.head.register_full_backward_hook(lambda *_, i=i: seen.append(i))
    force_prediction(model, make_batch(3))
    assert seen == [0, 1, 2]


def test_members_that_agree_are_sure(make_batch, dtype):
    member = build("deep", dtype).members[0]
    twins = DeepEnsemble([member, copy.deepcopy(member)])
    assert (force_prediction(twins, make_batch(4)).epistemic == 0).all()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_one_member_says_nothing(make_property_model, make_batch, dropout):
    model = make_property_model(dropout=dropout)
    with pytest.raises(ConfigError, match="needs at least two members") as caught:
        force_prediction(model, make_batch(3))
    assert "\n" not in str(caught.value)
    with (
        dropout_samples(model, draw_networks(model, 1)),
        pytest.raises(ConfigError, match="needs at least two members"),
    ):
        force_prediction(model, make_batch(3))


def test_a_broken_member_is_refused(make_property_model, make_batch):
    model = make_property_model(members=3)
    with torch.no_grad():
        model.head.mean_out.weight[1] = torch.nan
    with pytest.raises(InputError, match="forces are NaN or infinite"):
        force_prediction(model, make_batch(3, 4))
