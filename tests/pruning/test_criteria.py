"""Importances: against hand counts, finite differences, and channels planted for the purpose."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch

from egnn_prune.channels import gates
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import CRITERIA, ChannelGroup, Context, score_channels


def loss_per_graph(model, batch):
    prediction = model(batch)
    return (prediction.mean - batch.y).square() / prediction.variance + prediction.variance.log()


def context(model, *batches, **options):
    return Context(model, model.channel_groups(), batches, loss_per_graph, **options)


@pytest.fixture
def model(make_property_model):
    return make_property_model(hidden=8, layers=2, attention=True, velocity=True)


def test_every_criterion_scores_every_channel(model, make_batch):
    for criterion in CRITERIA:
        scores = score_channels(criterion, context(model, make_batch(2, 4)))
        assert {k: v.shape for k, v in scores.items()} == {
            g.name: (g.n,) for g in model.channel_groups()
        }
        assert all(s.isfinite().all() and (s >= 0).all() for s in scores.values())


def test_own_criterion(model):
    scores = score_channels(lambda group, _: torch.arange(float(group.n)), context(model))
    assert scores["trunk.layers.0.edge"].tolist() == list(range(8))


def test_magnitude_by_hand(model):
    """A message channel: its row and bias, and its columns in four readers."""
    layer, channels = model.trunk.layers[0], range(8)
    parts = [
        torch.cat(
            [
                layer.edge_out.weight[c],
                layer.edge_out.bias[c : c + 1],
                layer.node_in.weight[:, 8 + c],
                layer.attention.weight[:, c],
                layer.position_in.weight[:, c],
            ]
        )
        for c in channels
    ]
    norms = torch.stack([p.detach().double().norm() for p in parts])
    scores = score_channels("magnitude", context(model))["trunk.layers.0.message"]
    assert torch.allclose(scores, norms / norms.mean(), rtol=1e-6)


def test_magnitude_of_the_stream_by_hand(model):
    total = torch.zeros(8, dtype=torch.float64)
    rows = [model.trunk.embedding.weight, model.trunk.embedding.bias[:, None]]
    columns = [model.head.lin_in.weight]
    for layer in model.trunk.layers:
        rows += [layer.node_out.weight, layer.node_out.bias[:, None]]
        columns += [layer.edge_in.weight[:, :8], layer.edge_in.weight[:, 8:16]]
        columns += [layer.node_in.weight[:, :8]]
        columns += [layer.velocity_in.weight] if layer.moves else []
    for row in rows:
        total += row.detach().double().square().sum(1)
    for column in columns:
        total += column.detach().double().square().sum(0)
    scores = score_channels("magnitude", context(model))["trunk.stream"]
    assert torch.allclose(scores, total.sqrt() / total.sqrt().mean(), rtol=1e-6)


def test_random_is_seeded(model):
    draws = [
        score_channels("random", context(model, generator=torch.Generator().manual_seed(seed)))
        for seed in (1, 1, 2)
    ]
    assert all(torch.equal(draws[0][k], draws[1][k]) for k in draws[0])
    assert not any(torch.equal(draws[0][k], draws[2][k]) for k in draws[0])


def test_gates_of_a_batch_equal_graphs_one_at_a_time(model, make_batch, assert_close):
    batch = make_batch(1, 4, 6, 3)
    graphs = [Batch.from_data_list([g]) for g in batch.to_data_list()]
    together = context(model, batch).gate_gradients
    alone = context(model, *graphs).gate_gradients
    split = context(model, graphs[0], Batch.from_data_list(batch.to_data_list()[1:]))
    for name, gradient in together.items():
        assert gradient.shape == (4, 8)
        assert_close(gradient, alone[name])
        assert_close(gradient, split.gate_gradients[name])


def test_gate_gradients_are_central_differences(model, make_batch, dtype):
    if dtype == torch.float32:
        pytest.skip("central differences need float64")
    batch, step = make_batch(3, 5), 1e-6
    gradients = context(model, batch).gate_gradients
    by_name = dict(gates(model))
    for group in model.channel_groups():
        gate = by_name[group.gate]
        losses = []
        for sign in (1, -1):
            gate.opened = torch.ones(2, 8, dtype=dtype)
            gate.opened[:, 3] += sign * step
            losses.append(loss_per_graph(model, batch).detach())
        gate.opened = None
        slope = (losses[0] - losses[1]) / (2 * step)
        assert torch.allclose(gradients[group.name][:, 3], slope, rtol=1e-5, atol=1e-8), group.name


def test_taylor_is_the_mean_absolute_gradient(model, make_batch):
    data = context(model, make_batch(3, 5), make_batch(4, seed=1))
    for name, score in score_channels("taylor", data).items():
        assert torch.equal(score, data.gate_gradients[name].double().abs().mean(0))


@pytest.mark.parametrize(
    ("group", "reader"),
    [("edge", "edge_out"), ("node", "node_out"), ("position", "position_out")],
)
def test_a_channel_without_effect_scores_zero(model, make_batch, group, reader):
    with torch.no_grad():
        model.trunk.layers[0].get_submodule(reader).weight[:, 2] = 0.0
    score = score_channels("taylor", context(model, make_batch(3, 5)))[f"trunk.layers.0.{group}"]
    assert score[2] == 0
    assert (score[torch.arange(8) != 2] > 0).all()


@pytest.mark.parametrize(
    ("group", "reader"),
    [("edge", "edge_out"), ("node", "node_out"), ("position", "position_out")],
)
def test_an_important_channel_ranks_first(model, make_batch, group, reader):
    with torch.no_grad():
        model.trunk.layers[0].get_submodule(reader).weight[:, 6] *= 100.0
    data = context(model, make_batch(3, 5))
    for criterion in ("taylor", "magnitude"):
        assert score_channels(criterion, data)[f"trunk.layers.0.{group}"].argmax() == 6


def test_an_important_stream_channel_ranks_first(model, make_batch):
    with torch.no_grad():
        model.head.lin_in.weight[:, 1] *= 30.0
    score = score_channels("taylor", context(model, make_batch(3, 5)))["trunk.stream"]
    assert score.argmax() == 1


def test_opposite_signs_do_not_cancel(model, make_batch):
    """Two graphs whose losses pull a channel either way: the sum is small, the score is not."""
    batch = make_batch(4, 4)
    for key in ("z", "pos", "vel"):
        batch[key][4:] = batch[key][:4]

    def tug(model, batch):
        return model(batch).mean * torch.tensor([1.0, -1.0], dtype=torch.float64)

    data = Context(model, model.channel_groups(), [batch], tug)
    gradient = data.gate_gradients["trunk.stream"]
    assert gradient.sum(0).abs().max() < 1e-4 * gradient.abs().max()
    assert (score_channels("taylor", data)["trunk.stream"] > 0).all()


def test_scoring_leaves_the_model_alone(make_property_model, make_batch):
    model, batch = make_property_model(hidden=8, dropout=0.4).train(), make_batch(3, 5)
    first = score_channels("taylor", context(model, batch))
    second = score_channels("taylor", context(model, batch))
    assert all(torch.equal(first[k], second[k]) for k in first), "dropout is off while scoring"
    assert model.training
    assert all(gate.opened is None for _, gate in gates(model))
    assert all(p.grad is None for p in model.parameters())


def test_a_failing_loss_closes_the_gates(model, make_batch):
    def broken(model, batch):
        raise KeyError("target")

    with pytest.raises(KeyError):
        score_channels("taylor", Context(model, model.channel_groups(), [make_batch(2)], broken))
    assert all(gate.opened is None for _, gate in gates(model))


def test_bad_input(model, make_batch):
    groups, batch = model.channel_groups(), make_batch(2, 3)
    with pytest.raises(ConfigError, match="criterion must be one of magnitude, random, taylor"):
        score_channels("hessian", Context(model, groups))
    with pytest.raises(ConfigError, match="needs data and a loss"):
        score_channels("taylor", Context(model, groups))
    with pytest.raises(ConfigError, match="not a single batch"):
        score_channels("taylor", context(model))
    with pytest.raises(ConfigError, match=r"one number per sample, shape \(2,\), not \(\)"):
        mean = Context(model, groups, [batch], lambda m, b: loss_per_graph(m, b).mean())
        score_channels("taylor", mean)
    with pytest.raises(ConfigError, match="has no gate"):
        bare = [ChannelGroup(g.name, g.kind, g.n, g.members) for g in groups]
        score_channels("taylor", Context(model, bare, [batch], loss_per_graph))
