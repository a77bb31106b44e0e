"""Monte Carlo dropout: a sample is one MC-dropout sample, the same whatever the batch or width."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from egnn_prune import compact, forces
from egnn_prune.channels import ChannelGate, dropout_masks, gates
from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.models import PropertyModel
from egnn_prune.pruning import apply_masks
from egnn_prune.testing import assert_equivariant
from egnn_prune.uncertainty import MCDropout, draw_networks, dropout_samples, mc_dropout


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def model(make_property_model) -> PropertyModel:
    return make_property_model(dropout=0.3, attention=True)


def readout_only(dtype: torch.dtype) -> PropertyModel:
    return PropertyModel.build((1, 6, 8), hidden=16, layers=2, readout_dropout=0.3).to(dtype)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 100])
def test_samples_do_not_depend_on_how_many_run_together(model, make_batch, assert_close, chunk):
    batch = make_batch(3, 7, 5)
    reference = mc_dropout(model, batch, 7, generator=seeded(), samples_per_call=1)
    together = mc_dropout(model, batch, 7, generator=seeded(), samples_per_call=chunk)
    assert together.members.shape == (7, 3)
    assert_close(together.members, reference.members)
    assert_close(together.member_variance, reference.member_variance)


def test_the_seed_decides(model, make_batch):
    batch = make_batch(4, 6)
    first, again, other = (mc_dropout(model, batch, 4, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first.members, again.members)
    assert (first.members - other.members).abs().min() > 0
    assert first.epistemic.min() > 0


def test_the_networks_do_not_depend_on_the_batch(model, make_batch, assert_close):
    batch = make_batch(4, 6, 5)
    whole = mc_dropout(model, batch, 5, generator=seeded())
    for k, graph in enumerate(batch.to_data_list()):
        alone = mc_dropout(model, graph, 5, generator=seeded())
        assert_close(alone.members[:, 0], whole.members[:, k])


@pytest.mark.parametrize("training", [True, False])
def test_only_dropout_is_active_and_the_mode_comes_back(model, make_batch, training):
    modes = []
    model.head.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    model.train(training)
    mc_dropout(model, make_batch(4), 3, samples_per_call=2)
    assert modes == [False, False]
    assert all(module.training == training for module in model.modules())
    assert all(gate.dropout_mask is None for _, gate in gates(model))


def test_the_mode_comes_back_after_an_error(model):
    model.train()
    with pytest.raises(DataError, match="not NoneType"):
        mc_dropout(model, None, 3)
    assert model.training
    assert all(gate.dropout_mask is None for _, gate in gates(model))


@pytest.mark.parametrize(("dropped", "graphs"), [("readout", 3), ("everything", 15)])
def test_a_trunk_without_dropout_runs_once(model, make_batch, dtype, dropped, graphs):
    model = readout_only(dtype) if dropped == "readout" else model
    passed = []
    model.trunk.register_forward_pre_hook(lambda _, inputs: passed.append(len(inputs[0].ptr) - 1))
    mc_dropout(model, make_batch(3, 5, 4), 5, samples_per_call=5)
    assert passed == [graphs]


def test_readout_samples_are_those_of_whole_networks(make_batch, dtype, assert_close):
    model, batch = readout_only(dtype), make_batch(3, 5)
    masks = draw_networks(model, 4, seeded())
    one_by_one = []
    for k in range(4):
        with dropout_samples(model, [m[k : k + 1] for m in masks]):
            one_by_one.append(model.eval()(batch).mean)
    together = mc_dropout(model, batch, 4, generator=seeded())
    assert_close(together.members, torch.stack(one_by_one))


def test_every_sample_is_equivariant(model, make_batch):
    def members(batch) -> Tensor:
        return mc_dropout(model, batch, 5, generator=seeded()).members.T

    batch = make_batch(3, 7, 12)
    assert_equivariant(members, batch)


def test_forces_of_every_sample_are_conservative():
    torch.manual_seed(0)
    model = PropertyModel.build((1, 6, 8), hidden=8, layers=2, readout_dropout=0.3).double().eval()
    for _, gate in gates(model):
        gate.p = 0.3
    generator = seeded(3)
    z = torch.tensor([6, 1, 8, 1])
    pos = torch.randn(4, 3, generator=generator, dtype=torch.float64)

    def energies(pos: Tensor) -> Tensor:
        prediction = mc_dropout(model, Data(z=z, pos=pos), 3, generator=seeded())
        return prediction.members[:, 0]

    masks, step = draw_networks(model, 3, seeded()), 1e-5
    for k in range(3):
        with dropout_samples(model, [m[k : k + 1] for m in masks]):
            exact = forces(model, Data(z=z, pos=pos))
        numeric = torch.zeros_like(pos)
        for i in range(4):
            for j in range(3):
                shift = torch.zeros_like(pos)
                shift[i, j] = step
                slope = energies(pos + shift)[k] - energies(pos - shift)[k]
                numeric[i, j] = -slope / (2 * step)
        assert exact.abs().max() > 1e-3
        assert (exact - numeric).abs().max() < 1e-7 * max(1.0, float(exact.abs().max()))


def test_masked_and_compact_models_draw_the_same_samples(model, make_batch):
    batch, generator = make_batch(3, 8, 5), seeded(9)
    keep = {g.name: torch.rand(g.n, generator=generator) > 0.5 for g in model.channel_groups()}
    apply_masks(model, keep)
    small = compact(model)
    assert sum(p.numel() for p in small.parameters()) < 0.5 * sum(
        p.numel() for p in readout_only(torch.float32).parameters()
    )
    masked = mc_dropout(model, batch, 6, generator=seeded()).members
    removed = mc_dropout(small, batch, 6, generator=seeded()).members
    assert masked.std(0).min() > 0
    assert (masked - removed).abs().max() <= 1e-5 * masked.abs().max()


def test_a_dropped_channel_is_dropped_everywhere_and_the_rest_scaled(model):
    for mask in draw_networks(model, 2000, seeded()):
        assert set(mask.unique().tolist()) == {0.0, float(torch.tensor(1 / 0.7))}
        assert float((mask == 0).float().mean()) == pytest.approx(0.3, abs=0.02)


@torch.no_grad()
def test_the_mean_converges_like_one_over_the_root_of_the_samples(make_batch, dtype):
    model, batch = readout_only(dtype), make_batch(5)
    members = mc_dropout(model, batch, 6400, generator=seeded(), samples_per_call=6400).members
    few = members.view(400, 16).mean(1).std()
    many = members.view(25, 256).mean(1).std()
    assert 2.5 < float(few / many) < 6.5  # 4 = sqrt(256 / 16), give or take 25 draws


def test_the_variance_converges_at_one_over_the_root_of_the_samples(dtype, make_batch):
    """The deviation of the estimated variance over repetitions, by the number of samples."""
    model, batch = readout_only(dtype), make_batch(5)
    members = mc_dropout(model, batch, 12800, generator=seeded()).members.detach().flatten()
    counts = torch.tensor([8, 32, 128])
    deviations = torch.stack([members.view(-1, int(n)).var(1).std() for n in counts])
    slopes = deviations.log().diff() / counts.double().log().diff()
    assert float(slopes.mean()) == pytest.approx(-0.5, abs=0.1)


def test_fewer_than_two_samples(model, make_batch):
    with pytest.raises(ConfigError, match="at least 2 samples, not 1"):
        mc_dropout(model, make_batch(3), 1)


def test_a_model_without_dropout(make_property_model, make_batch):
    with pytest.raises(ConfigError, match="no dropout to sample from"):
        mc_dropout(make_property_model(), make_batch(3), 4)


def test_the_estimator_draws_the_same_networks_for_every_batch(model, make_batch, assert_close):
    estimator, whole = MCDropout(model, samples=6, seed=4), make_batch(3, 5, 4)
    together = estimator.predict(whole)
    for i, graph in enumerate(whole.to_data_list()):
        assert_close(estimator.predict(graph).members[:, 0], together.members[:, i])
    reference = mc_dropout(model, whole, 6, generator=seeded(4))
    assert_close(together.members, reference.members)


def test_message_passing_runs_once_where_only_the_readout_is_thinned(dtype, make_batch):
    passes = []
    model, batch = readout_only(dtype), make_batch(3, 5)
    model.trunk.register_forward_hook(lambda *_: passes.append(1))
    MCDropout(model, samples=20).predict(batch)
    assert len(passes) == 1
    reference = mc_dropout(model, batch, 20, generator=seeded(), samples_per_call=3)
    torch.testing.assert_close(MCDropout(model, 20).predict(batch).members, reference.members)


def test_an_estimator_needs_dropout_and_samples(make_property_model, model):
    with pytest.raises(ConfigError, match="no dropout to sample from"):
        MCDropout(make_property_model())
    with pytest.raises(ConfigError, match="at least 2 samples, not 1"):
        MCDropout(model, samples=1)


def test_a_broken_network_does_not_predict_silently(model, make_batch):
    with torch.no_grad():
        model.head.mean_out.weight[0, 0] = torch.nan
    with pytest.raises(InputError, match="NaN or infinity"):
        MCDropout(model, 3).predict(make_batch(3, 4))


def test_gates_that_overwrite_their_input_change_no_number(model, make_batch, assert_close):
    batch = make_batch(4, 6)
    fast = mc_dropout(model, batch, 4, generator=seeded()).members
    with torch.no_grad():
        in_place = mc_dropout(model, batch, 4, generator=seeded()).members
        for _, gate in gates(model):
            gate.inplace = False
        apart = mc_dropout(model, batch, 4, generator=seeded()).members
    assert_close(in_place, apart)
    assert_close(in_place, fast.detach())


def test_a_gate_overwrites_only_when_asked():
    x, graph = torch.ones(3, 4), torch.zeros(3, dtype=torch.long)
    for inplace in (False, True):
        gate = ChannelGate(4, 0.5, inplace)
        with dropout_masks({gate: torch.zeros(1, 4)}):
            gate(x, graph)  # gradients are needed: never in place
            assert bool((x == 1).all())
            with torch.no_grad():
                gate(x, graph)
        assert bool((x == 0).all()) == inplace
