"""Criteria that lack what they need, or are given nonsense: one clear sentence each."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from egnn_prune.channels import ChannelGate, Member
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import ChannelGroup, Context, score_channels

OF_GATES = ("activation_norm", "fisher", "taylor", "uncertainty", "wanda")
OF_DATA = (*OF_GATES, "grasp", "snip", "synflow")


def loss_per_graph(model, batch):
    prediction = model(batch)
    return (prediction.mean - batch.y).square() / prediction.variance + prediction.variance.log()


def predictive_variance(model, batch):
    return model(batch).variance


def context(model, *batches, **options):
    return Context(model, model.channel_groups(), batches, loss_per_graph, **options)


@pytest.fixture
def model(make_property_model):
    return make_property_model(hidden=8, layers=2, attention=True, velocity=True)


def test_bad_input(model, make_batch):
    groups, batch = model.channel_groups(), make_batch(2, 3)
    with pytest.raises(ConfigError, match="criterion must be one of activation_norm, fisher, "):
        score_channels("hessian", Context(model, groups))
    with pytest.raises(ConfigError, match=r"one number per sample, shape \(2,\), not \(\)"):
        mean = Context(model, groups, [batch], lambda m, b: loss_per_graph(m, b).mean())
        score_channels("taylor", mean)
    with pytest.raises(ConfigError, match=r"the variance must give one number per sample"):
        data = context(model, batch, variance=lambda m, b: m(b).variance.mean())
        score_channels("uncertainty", data)
    with pytest.raises(ConfigError, match="variance is not positive"):
        score_channels("uncertainty", context(model, batch, variance=lambda m, b: 0 * m(b).mean))
    with pytest.raises(ConfigError, match=r"needs the predictive variance; pass variance="):
        score_channels("uncertainty", context(model, batch))


@pytest.mark.parametrize("criterion", OF_DATA)
def test_without_data(model, criterion):
    groups, options = model.channel_groups(), {"variance": predictive_variance}
    with pytest.raises(ConfigError, match=r"needs data( and a loss)?; pass batches="):
        score_channels(criterion, Context(model, groups, **options))
    with pytest.raises(ConfigError, match="not a single batch"):
        score_channels(criterion, context(model, **options))


@pytest.mark.parametrize("criterion", ["fisher", "grasp", "snip", "taylor", "uncertainty"])
def test_without_a_loss(model, make_batch, criterion):
    data = Context(model, model.channel_groups(), [make_batch(2)], variance=predictive_variance)
    with pytest.raises(ConfigError, match=r"needs data and a loss; pass batches="):
        score_channels(criterion, data)


@pytest.mark.parametrize("criterion", OF_GATES)
def test_without_a_gate(model, make_batch, criterion):
    bare = [ChannelGroup(g.name, g.kind, g.n, g.members) for g in model.channel_groups()]
    data = context(model, make_batch(2, 3), variance=predictive_variance)
    data.groups = bare
    with pytest.raises(ConfigError, match=r"group trunk.stream has no gate"):
        score_channels(criterion, data)


def test_a_gate_that_is_none(model, make_batch):
    first, *_ = model.channel_groups()
    group = ChannelGroup("wrong", "stream", first.n, first.members, "trunk.embedding")
    data = Context(model, [group], [make_batch(2)], loss_per_graph)
    with pytest.raises(ConfigError, match=r"is a Linear; make trunk\.embedding a ChannelGate"):
        score_channels("taylor", data)


def test_a_gate_that_nothing_flows_through(model, make_batch):
    model.spare = ChannelGate(4)
    model.spare_weight = nn.Parameter(torch.ones(4))
    group = ChannelGroup("spare", "x", 4, (Member.span("spare_weight", 0, 4),), "spare")
    with pytest.raises(ConfigError, match="nothing flowed through the gate of group spare"):
        score_channels("activation_norm", Context(model, [group], [make_batch(2)]))


def test_synflow_of_something_without_outputs(model, make_batch):
    class Silent(nn.Module):
        def forward(self, batch):
            return "nothing"

    with pytest.raises(ConfigError, match="a str holds no tensors"):
        silent = Silent()
        group = ChannelGroup("any", "x", 8, (Member.span("w", 0, 8),))
        silent.w = nn.Parameter(torch.ones(8))
        score_channels("synflow", Context(silent, [group], [torch.ones(1, 1)]))
