"""Importance that knows about error bars: its sign, its estimate, and exact removal."""

from __future__ import annotations

import statistics

import pytest
import torch
from torch import nn

from egnn_prune.channels import ChannelGate, ChannelGroup, Member, gates
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import Context, apply_masks, score_channels
from egnn_prune.pruning.criteria.leave_one_out import leave_one_out
from egnn_prune.pruning.criteria.uncertainty import combined, log_variance_changes, uncertainty
from egnn_prune.uncertainty import mc_dropout


class Additive(nn.Module):
    """Mean and variance are sums over channels: ``x [B, 5]`` times what each channel adds."""

    def __init__(self, mean, variance):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean))
        self.variance = nn.Parameter(torch.tensor(variance))
        self.gate = ChannelGate(len(mean))

    def forward(self, x):
        h = self.gate(x, torch.arange(len(x)))
        return (h * self.mean).sum(1), 10 + (h * self.variance).sum(1)

    def channel_groups(self):
        n = len(self.mean)
        members = (Member.span("mean", 0, n), Member.span("variance", 0, n, reads=True))
        return [ChannelGroup("channels", "any", n, members, "gate")]


def additive(mean, variance, **options):
    model = Additive(mean, variance)
    return Context(
        model,
        model.channel_groups(),
        [torch.ones(4, len(mean))],
        loss=lambda m, x: m(x)[0],
        variance=lambda m, x: m(x)[1],
        **options,
    )


def test_a_channel_that_adds_variance_is_kept_and_one_that_lowers_it_earns_nothing():
    score = score_channels(
        "uncertainty", additive([1.0, 1.0, 1.0, 1.0, 1.0], [3.0, 1.0, 0.0, -1.0, -3.0])
    )["channels"]
    assert score[0] > score[1] > score[2]
    assert torch.equal(score[2:], score[2].expand(3))


def test_the_loss_counts_in_either_direction():
    score = score_channels("uncertainty", additive([2.0, -2.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]))[
        "channels"
    ]
    assert score[0] == score[1] > score[2] > score[3] > 0


def test_weight_of_the_variance():
    data = additive([1.0, 2.0, 3.0], [3.0, 2.0, 1.0])
    (group,) = data.groups
    assert uncertainty(group, data, weight=0.0).argsort().tolist() == [0, 1, 2]
    assert uncertainty(group, data, weight=9.0).argsort().tolist() == [2, 1, 0]
    with pytest.raises(ConfigError, match=r"weight of the variance is at least 0, not -1"):
        uncertainty(group, data, weight=-1.0)


def test_without_weight_it_is_taylor(make_property_model, make_batch):
    model = make_property_model(hidden=8, members=3)
    data = context(model, make_batch(3, 4))
    taylor = score_channels("taylor", data)
    mean = torch.cat(list(taylor.values())).mean()
    for group in data.groups:
        score = uncertainty(group, data, weight=0.0)
        assert torch.allclose(score, taylor[group.name] / mean)


def test_samples_do_not_cancel():
    """A channel that adds variance to one half of the samples and takes it from the other."""
    changes = torch.tensor([[-0.5, -0.1], [0.5, -0.1]])
    score = combined({"g": torch.zeros(2, 2)}, {"g": changes})["g"]
    assert torch.allclose(score, torch.tensor([0.25, 0.1]) / 0.175)


def test_scores_of_a_network_without_effect_are_zero():
    nothing = {"g": torch.zeros(3, 4)}
    assert combined(nothing, nothing)["g"].tolist() == [0.0] * 4


def loss_per_graph(model, batch):
    prediction = model(batch)
    return (prediction.mean - batch.y).square() / prediction.variance + prediction.variance.log()


def log_variance(model, batch):
    return model(batch).variance.log()


def context(model, *batches, **options):
    options = {"variance": lambda m, b: m(b).variance, **options}
    return Context(model, model.channel_groups(), batches, loss_per_graph, **options)


def test_the_estimate_is_a_derivative(make_property_model, make_batch, dtype):
    if dtype == torch.float32:
        pytest.skip("central differences need float64")
    model, batch, step = make_property_model(hidden=6, members=3), make_batch(3, 5), 1e-6
    found = log_variance_changes(context(model, batch))
    for group in model.channel_groups():
        gate = dict(gates(model))[group.gate]
        values = []
        for sign in (1, -1):
            gate.opened = torch.ones(2, 6, dtype=dtype)
            gate.opened[:, 2] -= sign * step  # towards removal
            values.append(log_variance(model, batch).detach())
        gate.opened = None
        slope = (values[0] - values[1]) / (2 * step)
        assert torch.allclose(found[group.name][:, 2], slope, rtol=1e-5, atol=1e-7), group.name


def test_closing_a_gate_is_removing_the_channel(make_property_model, make_batch, assert_close):
    model, batch = make_property_model(hidden=6, members=3, attention=True), make_batch(3, 5)
    groups = model.channel_groups()
    exact = leave_one_out(context(model, batch), loss_per_graph)
    dense = loss_per_graph(model, batch).detach()
    for group in groups:
        keep = {g.name: torch.ones(g.n, dtype=torch.bool) for g in groups}
        keep[group.name][4] = False
        apply_masks(model, keep)
        change = loss_per_graph(model, batch).detach() - dense
        assert_close(exact[group.name][:, 4], change.double(), 2e-4)


def test_leave_one_out_leaves_the_model_alone(make_property_model, make_batch):
    model = make_property_model(hidden=4).train()
    leave_one_out(context(model, make_batch(2)), loss_per_graph)
    assert model.training and all(gate.opened is None for _, gate in gates(model))


def test_variance_of_thinned_networks(make_property_model, make_batch):
    """Monte Carlo dropout with fixed masks is a variance like any other."""
    model, batch = make_property_model(hidden=8, dropout=0.2), make_batch(3, 5)

    def variance(model, batch):
        return mc_dropout(model, batch, 16, generator=torch.Generator().manual_seed(0)).variance

    first, second = (
        score_channels("uncertainty", context(model, batch, variance=variance)) for _ in range(2)
    )
    taylor = score_channels("taylor", context(model, batch))
    for name, score in first.items():
        assert torch.equal(score, second[name])
        assert not torch.allclose(score / score.mean(), taylor[name] / taylor[name].mean())


def test_the_estimate_ranks_like_exact_removal(load_script):
    """One network, trained for a moment; the slow test below has the five."""
    script = load_script("check_importance")
    model = script.trained(seed=0, steps=60)
    here, there = script.held_out(32)
    truth = script.exact_scores(model, there)
    score = script.estimated_scores(model, here, "uncertainty")
    assert script.correlation(score, truth) >= 0.75
    assert script.correlation_in_groups(score, truth) >= 0.75
    assert script.correlation(script.estimated_scores(model, here, "random"), truth) < 0.4


@pytest.mark.slow
@pytest.mark.parametrize("steps", [400, 1500])
def test_median_rank_correlation_over_five_networks(steps, load_script):
    script = load_script("check_importance")
    here, there = script.held_out(96)
    found = []
    for seed in range(5):
        model = script.trained(seed, steps)
        truth = script.exact_scores(model, there)
        score = script.estimated_scores(model, here, "uncertainty")
        found.append(script.correlation(score, truth))
    assert statistics.median(found) >= 0.75, found
