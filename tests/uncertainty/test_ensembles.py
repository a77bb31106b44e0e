"""Deep ensembles act as one prunable network; shallow ones share their trunk."""

from __future__ import annotations

import copy

import pytest
import torch

from egnn_prune import compact, load, save
from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.graphs import cutoff_edges
from egnn_prune.models import (
    EGNNOptions,
    IrrepsOptions,
    PropertyModel,
    TargetScale,
    property_model,
)
from egnn_prune.prediction import members_of
from egnn_prune.pruning import apply_masks, choose
from egnn_prune.testing import assert_equivariant
from egnn_prune.uncertainty import DeepEnsemble, SinglePass


@pytest.fixture
def ensemble(dtype) -> DeepEnsemble:
    torch.manual_seed(0)
    members = [PropertyModel.build((1, 6, 8), hidden=8, layers=2) for _ in range(3)]
    return DeepEnsemble(members).to(dtype).eval()


def pruned(ensemble: DeepEnsemble) -> DeepEnsemble:
    generator = torch.Generator().manual_seed(0)
    groups = ensemble.channel_groups()
    scores = {g.name: torch.rand(g.n, generator=generator) for g in groups}
    apply_masks(ensemble, choose(scores, 0.4, "global"))
    return ensemble


def test_members_are_pooled(ensemble, make_batch):
    batch = make_batch(3, 6)
    alone = [member(batch) for member in ensemble.members]
    prediction = ensemble(batch)
    assert torch.equal(prediction.members, torch.cat([p.members for p in alone]))
    assert torch.equal(prediction.mean, torch.cat([p.members for p in alone]).mean(0))
    assert torch.equal(prediction.aleatoric, torch.stack([p.aleatoric for p in alone]).mean(0))
    assert prediction.epistemic.min() > 0


def test_networks_that_share_no_weights(ensemble, make_batch):
    """A shallow ensemble is one network, whatever its read-out counts."""
    first = ensemble.members[0]
    assert members_of(ensemble) == list(ensemble.members)
    assert members_of(first) == [first] and members_of(first.head) == [first.head]
    batch = make_batch(3, 6)
    assert torch.equal(ensemble.reference(batch), first.reference(batch))


def test_channel_groups_carry_the_place_of_their_member(ensemble):
    names = [g.name for g in ensemble.channel_groups()]
    own = [g.name for g in ensemble.members[0].channel_groups()]
    assert names == [f"members.{i}.{name}" for i in range(3) for name in own]
    tensors = dict(ensemble.named_parameters()) | dict(ensemble.named_buffers())
    assert all(m.name in tensors for g in ensemble.channel_groups() for m in g.members)
    assert ensemble.message_passing_modules() == [f"members.{i}.trunk" for i in range(3)]


def test_compact_equals_masked(ensemble, make_batch, assert_close):
    batch = make_batch(3, 8)
    before = ensemble(batch).members
    small = compact(pruned(ensemble))
    assert_close(small(batch).members, ensemble(batch).members)
    assert (before - small(batch).members).abs().max() > 1e-3
    sizes = [sum(p.numel() for p in m.parameters()) for m in small.members]
    assert len(set(sizes)) > 1  # a global ranking cuts members unevenly
    assert max(sizes) < 0.7 * sum(
        p.numel() for p in PropertyModel.build((1, 6, 8), hidden=8, layers=2).parameters()
    )


@pytest.mark.parametrize("form", ["dense", "masked", "compact"])
def test_saved_and_loaded_bit_for_bit(ensemble, make_batch, tmp_path, form):
    model = {"dense": lambda e: e, "masked": pruned, "compact": lambda e: compact(pruned(e))}[form](
        ensemble
    )
    save(model, tmp_path / "ensemble.safetensors")
    again = load(tmp_path / "ensemble.safetensors")
    batch = make_batch(3, 8)
    assert isinstance(again, DeepEnsemble)
    assert torch.equal(again(batch).members, model(batch).members)
    assert torch.equal(again(batch).member_variance, model(batch).member_variance)


def test_equivariant(ensemble, make_batch):
    assert_equivariant(ensemble, make_batch(2, 9))


def test_a_single_member_is_no_ensemble():
    with pytest.raises(ConfigError, match="at least 2 members, not 1"):
        DeepEnsemble([PropertyModel.build((1,), hidden=4, layers=1)])


def test_shallow_members_share_the_trunk(make_property_model, make_batch, assert_close):
    model, batch = make_property_model(members=4), make_batch(3, 6)
    calls = []
    model.trunk.register_forward_hook(lambda *_: calls.append(1))
    prediction = model(batch)
    assert len(calls) == 1
    assert prediction.members.shape == (4, 2)
    assert prediction.epistemic.min() > 0
    single = make_property_model(members=1)
    state = model.state_dict()
    for k in range(4):
        rows = {
            n: v[k : k + 1] if "head.mean_out" in n or "head.variance_out" in n else v
            for n, v in state.items()
        }
        single.load_state_dict(rows)
        assert_close(single(batch).mean, prediction.members[k])


def test_a_compact_shallow_ensemble_keeps_its_members(
    make_property_model, make_batch, assert_close
):
    model, batch = make_property_model(members=4), make_batch(3, 6)
    apply_masks(model, {g.name: torch.arange(g.n) % 2 == 0 for g in model.channel_groups()})
    small = compact(model)
    assert small(batch).members.shape == (4, 2)
    assert_close(small(batch).members, model(batch).members)


# sharing ----------------------------------------------------------------------------------------


def with_cutoff(cutoff: float, elements: tuple[int, ...] = (1, 6, 8)) -> PropertyModel:
    options = EGNNOptions(cutoff=cutoff, radial=4)
    return PropertyModel.build(elements, hidden=8, layers=2, options=options).eval()


def irreps(cutoff: float) -> PropertyModel:
    options = IrrepsOptions(cutoff=cutoff, lmax=1)
    return PropertyModel.build_irreps((1, 6, 8), copies=4, layers=2, options=options).eval()


@pytest.fixture
def counted(monkeypatch) -> dict[str, int]:
    """How often edges were searched for, and batches checked for a PropertyModel."""
    calls = {"with_edges": 0, "check_graphs": 0}

    def count(name: str) -> None:
        plain = getattr(property_model, name)

        def counting(batch, *rest):
            calls[name] += 1
            return plain(batch, *rest)

        monkeypatch.setattr(property_model, name, counting)

    for name in calls:
        count(name)
    return calls


@pytest.mark.parametrize("build", [with_cutoff, irreps])
def test_members_share_edges_and_checks(build, make_batch, dtype, counted):
    torch.manual_seed(0)
    ensemble, batch = (
        DeepEnsemble([build(3.0) for _ in range(4)]).to(dtype).eval(),
        make_batch(3, 6),
    )
    alone = [member(batch).members for member in ensemble.members]
    assert counted == {"with_edges": 4, "check_graphs": 4}
    together = ensemble(batch).members
    assert counted == {"with_edges": 5, "check_graphs": 5}
    assert torch.equal(together, torch.cat(alone))
    means, _ = ensemble.normalised(batch)
    assert counted == {"with_edges": 6, "check_graphs": 6}
    assert torch.equal(means, torch.cat([m.normalised(batch)[0] for m in ensemble.members]))
    assert "edge_index" not in batch and "x" in batch and batch.x.shape[1] == 5  # as they were


@pytest.mark.parametrize(
    "other",
    [
        with_cutoff(2.0),
        with_cutoff(5.0),
        with_cutoff(3.0, (1, 6, 7, 8)),
        with_cutoff(3.0).double(),
    ],
    ids=["shorter cutoff", "longer cutoff", "elements", "precision"],
)
def test_a_member_that_needs_another_batch_prepares_its_own(other, make_batch):
    """Shared blindly, the first member's elements or edges would silently be wrong for another."""
    torch.manual_seed(0)
    batch, first = make_batch(3, 8), with_cutoff(3.0)
    expected = torch.cat([m(batch).members for m in (first, other, first)])
    assert torch.equal(DeepEnsemble([first, other, first])(batch).members, expected)


def test_stored_edges_are_kept(make_batch, dtype):
    model, batch = with_cutoff(3.0).to(dtype), make_batch(6)
    batch.edge_index = cutoff_edges(batch.pos, 8.0)
    assert torch.equal(model.prepared(batch).edge_index, batch.edge_index)


def test_prepared_batches_still_train_and_differentiate(ensemble, make_batch):
    """Parameters and positions get the gradients that unshared preparation gives."""
    batch = make_batch(3, 5)
    batch.pos.requires_grad_()
    ensemble(batch).mean.sum().backward()
    together = batch.pos.grad.clone()
    batch.pos.grad = None
    (sum(member(batch).mean.sum() for member in ensemble.members) / 3).backward()
    torch.testing.assert_close(together, batch.pos.grad)


def test_bad_batches_are_refused_as_by_one_member(ensemble, make_batch):
    batch = make_batch(3, 5)
    batch.z = batch.z * 0 + 17
    with pytest.raises(DataError, match="element Cl"):
        ensemble(batch)


# mistakes ---------------------------------------------------------------------------------------


def test_a_broken_member_is_named(ensemble, make_batch):
    with torch.no_grad():
        ensemble.members[1].head.mean_out.bias.fill_(float("nan"))
    with pytest.raises(InputError, match="member 1 of 3 predicts NaN"):
        SinglePass(ensemble).predict(make_batch(3))


def test_members_of_different_targets_are_refused(ensemble, make_batch):
    per_node = copy.deepcopy(ensemble.members[0])
    per_node.head.pool = "node"
    with pytest.raises(ConfigError, match=r"same thing, not \(2,\) and \(9,\)") as caught:
        DeepEnsemble([*ensemble.members, per_node])(make_batch(3, 6))
    assert "\n" not in str(caught.value)


def test_members_are_networks_that_share_a_scale(make_property_model):
    model, other = make_property_model(), make_property_model()
    with pytest.raises(ConfigError, match="members of a deep ensemble are networks"):
        DeepEnsemble([SinglePass(model), SinglePass(other)])
    other.scale = TargetScale(shift=1.0, scale=2.0)
    with pytest.raises(ConfigError, match="must share the scale of their target"):
        DeepEnsemble([model, other])
