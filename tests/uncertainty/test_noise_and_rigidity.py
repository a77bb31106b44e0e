"""What a network states and the rigidity of its features, equally large in training."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.loader import DataLoader

from egnn_prune import compact
from egnn_prune.errors import ConfigError
from egnn_prune.models import force_prediction
from egnn_prune.pruning import apply_masks
from egnn_prune.testing import assert_equivariant
from egnn_prune.uncertainty import NoiseAndRigidity, PredictionRigidity, SinglePass, calibrate

#: Few graphs leave most features unseen: without a prior, rounding would be inverted.
PRIOR = 1.0


@pytest.fixture(params=[1, 3])
def model(make_property_model, request):
    return make_property_model(members=request.param)


@pytest.fixture
def graphs(make_batch):
    return make_batch(*[4, 5, 6] * 6).to_data_list()


def fitted(model, graphs, batch_size=4):
    return NoiseAndRigidity(model, PRIOR).fit(DataLoader(graphs, batch_size))


def test_both_parts_are_equally_large_on_the_training_graphs(model, graphs, make_batch):
    whole = next(iter(DataLoader(graphs, len(graphs))))
    found, own = fitted(model, graphs).predict(whole), SinglePass(model).predict(whole)
    added = found.epistemic - own.epistemic
    torch.testing.assert_close(added.sum(), own.variance.sum(), rtol=1e-5, atol=0)
    rigidity = PredictionRigidity(model, PRIOR).fit(DataLoader(graphs, 4)).predict(whole).epistemic
    torch.testing.assert_close(added / added.sum(), rigidity / rigidity.sum(), rtol=1e-4, atol=0)


def test_mean_members_and_noise_are_the_networks_own(model, graphs, make_batch):
    batch = make_batch(4, 6, 3)
    found, own = fitted(model, graphs).predict(batch), SinglePass(model).predict(batch)
    for name in ("mean", "aleatoric", "members", "member_variance"):
        assert torch.equal(getattr(found, name), getattr(own, name)), name


def test_the_unit_changes_nothing_but_the_unit(model, graphs, make_batch):
    batch = make_batch(4, 6, 3)
    before = NoiseAndRigidity(model).fit(DataLoader(graphs, 4)).predict(batch).epistemic
    model.scale = type(model.scale)(scale=1e3 * model.scale.scale)
    after = NoiseAndRigidity(model).fit(DataLoader(graphs, 4)).predict(batch).epistemic
    torch.testing.assert_close(after, 1e6 * before, rtol=1e-4, atol=0)


def test_batches_do_not_matter(model, graphs, make_batch):
    batch = make_batch(4, 6, 3)
    few, many = (fitted(model, graphs, size).predict(batch).epistemic for size in (2, 9))
    torch.testing.assert_close(few, many, rtol=1e-4, atol=0)


def test_the_error_bar_is_invariant(model, graphs, make_batch):
    estimator = fitted(model, graphs)
    assert_equivariant(lambda b: estimator.predict(b).variance, make_batch(4, 6, 3))


def test_masked_and_compact_networks_have_the_same_error_bars(model, graphs, make_batch):
    apply_masks(model, {g.name: torch.arange(g.n) % 2 == 0 for g in model.channel_groups()})
    batch = make_batch(4, 6, 3)
    masked, small = (fitted(m, graphs).predict(batch).epistemic for m in (model, compact(model)))
    torch.testing.assert_close(masked, small, rtol=1e-3, atol=0)


def test_forces_are_the_members(make_property_model, graphs, make_batch):
    model = make_property_model(members=3)
    batch = make_batch(4, 6)
    found, own = (force_prediction(m, batch) for m in (fitted(model, graphs), model.eval()))
    torch.testing.assert_close(found.mean, own.mean)
    torch.testing.assert_close(found.epistemic, own.epistemic)


def test_calibration_keeps_the_shares(model, graphs, make_batch):
    for graph in graphs:
        graph.y = torch.randn(1, dtype=torch.float64)
    estimator, batch = fitted(model, graphs), make_batch(4, 6, 3)
    before = estimator.predict(batch)
    after = calibrate(estimator, DataLoader(graphs, 6), "robust").predict(batch)
    torch.testing.assert_close(after.epistemic / after.variance, before.epistemic / before.variance)


def test_a_network_without_noise_is_refused(make_property_model, graphs, monkeypatch):
    model = make_property_model()
    monkeypatch.setattr(type(model), "_sized", lambda _, variances, __: torch.zeros_like(variances))
    with pytest.raises(ConfigError, match="states no variance"):
        fitted(model, graphs)
