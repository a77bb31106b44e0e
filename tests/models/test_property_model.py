"""From molecules to predictions: scales, members, per-node heads, forces, bad input."""

from __future__ import annotations

import copy

import pytest
import torch
from torch_geometric.data import Batch, Data

from egnn_prune.channels import dropout_masks, gates
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.models import MeanVarianceHead, PropertyModel, TargetScale, forces


def test_batch_equals_graphs_one_by_one(make_property_model, make_batch, assert_close):
    model, batch = make_property_model(members=2), make_batch(1, 5, 9)
    together = model(batch)
    alone = [model(graph) for graph in batch.to_data_list()]
    for key in ("mean", "aleatoric", "epistemic"):
        assert_close(getattr(together, key), torch.cat([getattr(p, key) for p in alone]))
    assert together.members.shape == (2, 3)
    assert together.mean.dtype == torch.float64


def test_node_head_has_an_output_per_node(make_property_model, make_batch, assert_close):
    model, batch = make_property_model(pool="node", members=2), make_batch(2, 5)
    prediction = model(batch)
    assert prediction.members.shape == (2, 7)
    assert prediction.aleatoric.min() > 0
    total = make_property_model(pool="sum", members=2)
    total.load_state_dict(model.state_dict())
    sums = torch.zeros(2, dtype=torch.float64).index_add(0, batch.batch, prediction.mean)
    assert_close(sums, total(batch).mean)


def test_node_targets_have_their_own_references(make_property_model, make_batch, assert_close):
    model, batch = make_property_model(pool="node"), make_batch(3, 4)
    elements = model.elements
    model.scale = TargetScale(per_element=tuple(float(z) for z in elements), scale=2.0)
    y = batch.z.double() + 2.0
    assert_close(model.normalise(batch, y).double(), torch.ones(len(y), dtype=torch.float64))
    means, _ = model.normalised(batch)
    assert_close(model(batch).mean, batch.z + 2 * means.double().mean(0))


def test_an_exact_fit_leaves_a_usable_scale():
    counts = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0]])
    scale = TargetScale.fit(counts, counts @ torch.tensor([-13.0, -1000.0]))
    assert scale.scale == 1.0


def test_pools(make_property_model, make_batch, assert_close):
    summed, batch = make_property_model(pool="sum"), make_batch(3, 6)
    averaged = make_property_model(pool="mean")
    averaged.load_state_dict(summed.state_dict())
    sizes = torch.tensor([3.0, 6.0], dtype=torch.float64)
    assert_close(averaged(batch).mean * sizes, summed(batch).mean)


def test_variance_does_not_grow_with_the_number_of_nodes(make_batch, assert_close, dtype):
    """By hand: softplus of the mean over the nodes of a graph."""
    head, batch = MeanVarianceHead(5, 8, members=2).to(dtype), make_batch(3, 6)
    raw = head.variance_out(torch.nn.functional.silu(head.lin_in(batch.x)))
    expected = torch.stack([raw[:3].mean(0), raw[3:].mean(0)], dim=1)
    _, variance = head(batch.x, batch.batch, 2)
    assert_close(variance, torch.nn.functional.softplus(expected) + 1e-6)


def test_scale_brings_back_units(make_property_model, make_batch, assert_close):
    model, batch = make_property_model(), make_batch(4, 7)
    plain = model(batch)
    model.scale = TargetScale((1.0, 10.0, 100.0), shift=3.0, scale=2.0)
    scaled, counts = model(batch), model.element_counts(batch).double()
    weights = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    assert_close(scaled.mean, 2.0 * plain.mean + counts @ weights + 3.0)
    assert_close(scaled.aleatoric, 4.0 * plain.aleatoric)
    back = model.normalise(batch, scaled.mean)
    assert_close(back, model.normalised(batch)[0][0], 1e-5)


def test_scale_fits_elements():
    counts = torch.randint(0, 9, (50, 3), generator=torch.Generator().manual_seed(0))
    energies = torch.tensor([-13.6, -1027.0, -2041.0], dtype=torch.float64)
    y = counts.double() @ energies
    scale = TargetScale.fit(counts, y)
    assert torch.allclose(scale.reference(counts), y, rtol=0, atol=1e-6)
    plain = TargetScale.fit(torch.zeros(50, 0), y)
    assert plain.scale == pytest.approx(float(y.std()))
    assert plain.reference(torch.zeros(2, 0)).tolist() == pytest.approx([float(y.mean())] * 2)


def test_features_instead_of_elements(make_batch, dtype):
    model = PropertyModel.build((), in_features=5, hidden=8, layers=1).to(dtype)
    assert model(make_batch(2, 3)).mean.shape == (2,)


def test_single_data_needs_no_batch_vector(make_property_model, make_batch, assert_close):
    model, batch = make_property_model(members=2), make_batch(6)
    single = Data(z=batch.z, pos=batch.pos)
    assert_close(model(single).members, model(batch).members)
    assert_close(forces(model, single), forces(model, batch))


def test_samples_become_members(make_property_model, make_batch, draw_thinning, assert_close):
    model, batch = make_property_model(members=2, dropout=0.3), make_batch(3, 5)
    draw_thinning(model, 3)
    masks = {gate: gate.dropout_mask for _, gate in gates(model)}
    together = model(batch, samples=3)
    assert together.members.shape == (6, 2)
    for sample in range(3):
        with dropout_masks({gate: mask[sample : sample + 1] for gate, mask in masks.items()}):
            assert_close(model(batch).members, together.members[2 * sample : 2 * sample + 2])


def test_thinning_only_the_read_out(make_property_model, make_batch, draw_thinning, assert_close):
    model, batch = make_property_model(), make_batch(3, 5)
    model.head.gate.p = 0.5
    draw_thinning(model, 4)
    slow = model(batch, samples=4).members
    with dropout_masks({gate: None for _, gate in gates(model.trunk)}):
        assert_close(model(batch, samples=4).members, slow)
    assert slow.std(0).min() > 0


def slopes(
    model: PropertyModel, batch: Batch, samples: int = 1, step: float = 1e-5
) -> torch.Tensor:
    """Central differences of the energy."""
    out = torch.zeros_like(batch.pos)
    for node in range(len(batch.pos)):
        for axis in range(batch.pos.shape[1]):
            energies = []
            for sign in (1, -1):
                moved = copy.copy(batch)
                moved.pos = batch.pos.clone()
                moved.pos[node, axis] += sign * step
                with torch.no_grad():
                    energies.append(model(moved, samples=samples).mean.sum())
            out[node, axis] = (energies[0] - energies[1]) / (2 * step)
    return out


FIELDS = {
    "paper": {},
    "attention": {"attention": True, "radial": 6},
    "cutoff": {"cutoff": 2.5},
    "cutoff mean": {"cutoff": 2.5, "aggregation": "mean", "radial": 4},
}


@pytest.mark.parametrize("dropout_samples", [False, True], ids=["whole", "thinned"])
@pytest.mark.parametrize("options", FIELDS.values(), ids=FIELDS.keys())
def test_forces_are_the_negative_gradient(
    make_property_model, make_batch, draw_thinning, dtype, options, dropout_samples
):
    model, batch = make_property_model(dropout=0.3, **options), make_batch(2, 5)
    if dropout_samples:
        draw_thinning(model, 1)
    found = forces(model, batch)
    if dtype == torch.float32:  # too coarse for differences; must agree with float64
        model.double()
        batch.pos = batch.pos.double()
        exact = forces(model, batch)
        assert torch.allclose(found.double(), exact, rtol=0, atol=1e-4 * float(exact.abs().max()))
        return
    assert found.abs().max() > 3e-4
    assert torch.allclose(found, -slopes(model, batch), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("aggregation", ["sum", "mean"])
def test_forces_of_a_pair_at_the_cutoff(make_property_model, dtype, aggregation):
    """A neighbour enters or leaves without a jump in the energy or its slope."""
    if dtype == torch.float32:
        pytest.skip("central differences need float64")
    model = make_property_model(cutoff=2.0, aggregation=aggregation)
    pos = torch.tensor([[0.0, 0, 0], [2.0, 0, 0], [0.9, 1.1, 0]], dtype=dtype)
    batch = Batch.from_data_list([Data(pos=pos, z=torch.tensor([1, 6, 8]))])
    assert torch.allclose(forces(model, batch), -slopes(model, batch), rtol=1e-5, atol=1e-7)


def test_forces_of_samples_are_the_gradient_of_their_mean(
    make_property_model, make_batch, draw_thinning, dtype
):
    model, batch = make_property_model(dropout=0.3), make_batch(4)
    draw_thinning(model, 3)
    batch.pos.requires_grad_()
    energy = model(batch, samples=3).mean.sum()
    (gradient,) = torch.autograd.grad(energy, batch.pos)
    batch.pos = batch.pos.detach()
    assert gradient.isfinite().all()
    if dtype == torch.float64:
        assert torch.allclose(gradient, slopes(model, batch, samples=3), rtol=1e-5, atol=1e-7)


def test_forces_can_be_trained(make_property_model, make_batch):
    model, batch = make_property_model().train(), make_batch(2, 5)
    forces(model, batch).square().sum().backward()
    touched = [p for p in model.trunk.parameters() if p.grad is not None and p.grad.any()]
    assert len(touched) > 10
    assert all(p.grad.isfinite().all() for p in touched)


def test_forces_do_not_touch_the_batch_or_the_weights(make_property_model, make_batch):
    model, batch = make_property_model(), make_batch(3)
    result = forces(model, batch)
    assert not result.requires_grad and not batch.pos.requires_grad
    assert all(p.grad is None for p in model.parameters())


def spoiled(batch: Batch, **entries: object) -> Batch:
    out = copy.copy(batch)
    for key, value in entries.items():
        out[key] = value
    return out


BAD_BATCHES = {
    "unknown element": (lambda b: spoiled(b, z=b.z * 0 + 17), "element Cl .* H, C, O"),
    "not an element": (lambda b: spoiled(b, z=b.z * 0 + 999), r"element \? \(atomic number 999"),
    "no elements": (lambda b: spoiled(b, z=None), r"batch\.z"),
    "too few elements": (lambda b: spoiled(b, z=b.z[:2]), r"batch\.z"),
    "no positions": (lambda b: spoiled(b, pos=None), "positions must be"),
    "nan": (lambda b: spoiled(b, pos=b.pos * float("nan")), "NaN or infinite"),
    "flat": (lambda b: spoiled(b, pos=b.pos[:, 0]), "positions must be"),
    "empty graph": (lambda b: spoiled(b, ptr=torch.tensor([0, 3, 3, 7])), "graph 1 is empty"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD_BATCHES.values(), ids=BAD_BATCHES.keys())
def test_bad_batch(make_property_model, make_batch, spoil, message):
    with pytest.raises(DataError, match=message) as caught:
        make_property_model()(spoil(make_batch(3, 4)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "max"}, "pool must be"),
        ({"members": 0}, "at least one member"),
        ({"hidden": 0}, "at least one"),
        ({"dropout": -0.1}, "dropout must lie in"),
    ],
)
def test_bad_head(options, message):
    with pytest.raises(ConfigError, match=message):
        MeanVarianceHead(8, **{"hidden": 8, **options})


def test_architecture_builds_the_same_model(make_property_model, make_batch, assert_close, dtype):
    model, batch = make_property_model(members=2, attention=True), make_batch(3, 4)
    model.scale = TargetScale((1.0, 2.0, 3.0), 4.0, 5.0)
    again = PropertyModel.from_config(model.config()).to(dtype)
    again.load_state_dict(model.state_dict())
    assert_close(again.eval()(batch).members, model(batch).members)
