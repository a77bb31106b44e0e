"""Importances: against hand counts, finite differences, and channels planted for the purpose."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch

from egnn_prune.channels import ChannelGate, Member, gates
from egnn_prune.pruning import (
    CRITERIA,
    ChannelGroup,
    Context,
    apply_masks,
    compact,
    score_channels,
)
from egnn_prune.pruning.criteria import Movement
from egnn_prune.pruning.criteria.batches import sample_count


def loss_per_graph(model, batch):
    prediction = model(batch)
    return (prediction.mean - batch.y).square() / prediction.variance + prediction.variance.log()


def context(model, *batches, **options):
    return Context(model, model.channel_groups(), batches, loss_per_graph, **options)


@pytest.fixture
def model(make_property_model):
    return make_property_model(hidden=8, layers=2, attention=True, velocity=True)


SIGNED = ("grasp", "movement")
RELATIVE = (
    "activation_norm",
    "group_norm",
    "magnitude",
    "magnitude_l1",
    "uncertainty",
    "wanda",
)
OF_GATES = ("activation_norm", "fisher", "taylor", "uncertainty", "wanda")
OF_DATA = (*OF_GATES, "grasp", "snip", "synflow")


def assert_near(score, expected, dtype):
    """Equal to rounding (a Hessian's in float32 is coarse), relative to the largest entry."""
    scale = expected.abs().max()
    assert scale > 0
    assert (score - expected).abs().max() <= (5e-3 if dtype == torch.float32 else 1e-9) * scale


def predictive_variance(model, batch):
    return model(batch).variance


def recorded(model, *batches):
    """Movement over a few steps; the model stays as it was."""
    movement, trained = Movement(), copy.deepcopy(model)
    optimiser = torch.optim.SGD(trained.parameters(), lr=1e-4)
    for batch in batches:
        optimiser.zero_grad()
        loss_per_graph(trained, batch).mean().backward()
        movement.update(trained)
        optimiser.step()
    return movement


def complete(model, *batches):
    """A context that has what any criterion could ask for."""
    batches = [make.clone() for make in batches]
    return context(
        model, *batches, variance=predictive_variance, movement=recorded(model, *batches)
    )


def test_names_are_sorted():
    assert list(CRITERIA) == sorted(CRITERIA)


def test_every_criterion_says_where_it_is_from():
    for name, criterion in CRITERIA.items():
        assert name == criterion.__name__
        words = " ".join(criterion.__doc__.split())
        assert name == "random" or "Source: " in words, name
        assert "``[n]``" in words, name


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_scores_every_channel(model, make_batch, criterion):
    scores = score_channels(criterion, complete(model, make_batch(2, 4), make_batch(3)))
    assert {k: (v.shape, v.dtype) for k, v in scores.items()} == {
        g.name: ((g.n,), torch.float64) for g in model.channel_groups()
    }
    for name, score in scores.items():
        assert score.isfinite().all(), name
        assert criterion in SIGNED or (score >= 0).all(), name
        assert len(score.unique()) > 1, name


@pytest.mark.parametrize("criterion", [c for c in CRITERIA if c != "random"])
def test_pruned_channels_score_zero(model, make_batch, criterion):
    """They are the lowest, but where a score may be negative."""
    groups = model.channel_groups()
    apply_masks(model, {g.name: torch.arange(g.n) != 2 for g in groups})
    scores = score_channels(criterion, complete(model, make_batch(2, 4), make_batch(3)))
    for name, score in scores.items():
        others = score[torch.arange(len(score)) != 2]
        assert abs(score[2]) <= 1e-9 * score.abs().max(), name
        assert (others != 0).any() and (criterion in SIGNED or (others >= score[2]).all()), name


@pytest.mark.parametrize("criterion", [c for c in CRITERIA if c not in ("random", "movement")])
def test_a_masked_model_scores_as_its_compact_copy(model, make_batch, dtype, criterion):
    batch = make_batch(3, 5)
    groups = model.channel_groups()
    alive = {g.name: torch.arange(g.n) != i % g.n for i, g in enumerate(groups)}
    apply_masks(model, alive)
    small = compact(model)
    options = {"variance": predictive_variance}
    before = score_channels(criterion, context(model, batch, **options))
    after = score_channels(criterion, context(small, batch, **options))
    if criterion in RELATIVE:  # means over channels that are left, or over all of them
        factor = sum(s.sum() for s in after.values()) / sum(s.sum() for s in before.values())
        before = {name: score * factor for name, score in before.items()}
    for name, score in after.items():
        assert_near(before[name][alive[name]], score, dtype)


@pytest.mark.parametrize("criterion", [c for c in OF_DATA if c != "synflow"])
def test_scores_are_means_over_samples(model, make_batch, dtype, criterion):
    """However the graphs are dealt out to batches; a generator of batches will do, too."""
    batch = make_batch(3, 4, 5, 2)
    graphs = batch.to_data_list()
    parts = (Batch.from_data_list(graphs[a:b]) for a, b in ((0, 1), (1, 4)))
    together = context(model, batch, variance=predictive_variance)
    apart = Context(model, together.groups, parts, loss_per_graph, variance=predictive_variance)
    whole, dealt = (score_channels(criterion, c) for c in (together, apart))
    for name, score in whole.items():
        assert_near(dealt[name], score, dtype)


@pytest.mark.parametrize("criterion", OF_DATA)
def test_scores_do_not_turn_with_the_molecule(model, make_batch, dtype, criterion):
    batch, turned = make_batch(3, 5), make_batch(3, 5)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q.to(dtype)
    turned.pos, turned.vel = batch.pos @ rotation.T, batch.vel @ rotation.T
    options = {"variance": predictive_variance}
    a, b = (score_channels(criterion, context(model, x, **options)) for x in (batch, turned))
    for name, score in a.items():
        assert_near(b[name], score, dtype)


@pytest.mark.parametrize(("criterion", "passes"), [("uncertainty", 2), ("grasp", 2), ("snip", 1)])
def test_groups_share_their_passes(model, make_batch, criterion, passes):
    calls = []
    watch = model.register_forward_hook(lambda *_: calls.append(1))
    score_channels(criterion, context(model, make_batch(3), variance=predictive_variance))
    watch.remove()
    assert len(calls) == passes


def test_a_single_graph_is_one_sample(model, make_batch):
    """Its ``len`` is the number of its attributes."""
    batch = make_batch(4)
    (graph,) = batch.to_data_list()
    assert sample_count(graph) == 1 != len(graph)
    alone, batched = (score_channels("taylor", context(model, b)) for b in (graph, batch))
    assert all(torch.allclose(alone[k], batched[k], rtol=1e-5) for k in batched)


def test_sample_count(make_batch):
    images, labels = torch.zeros(3, 1, 8, 8), torch.zeros(3)
    for batch in (make_batch(2, 2, 5), (images, labels), [images, labels], images):
        assert sample_count(batch) == 3
    assert sample_count({"image": images, "label": labels}) == 3


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


def trace_of(model):
    """Everything that scoring could leave behind."""
    return {
        "modes": [module.training for module in model.modules()],
        "gates": [(gate.opened, gate.dropout_mask) for _, gate in gates(model)],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "wants": [p.requires_grad for p in model.parameters()],
        "where": [p.data_ptr() for p in model.parameters()],
    }


def assert_untouched(model, before, state):
    after = trace_of(model)
    grads = zip(before.pop("grads"), after.pop("grads"), strict=True)
    assert all(a is b is None or torch.equal(a, b) for a, b in grads)
    assert after == before
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.fixture
def worn(make_property_model, make_batch):
    """A model in the middle of things: masks, a frozen tensor, gradients, mixed modes."""
    model = make_property_model(hidden=8, dropout=0.4).train()
    model.trunk.layers[0].eval()
    groups = model.channel_groups()
    apply_masks(model, {g.name: torch.arange(g.n) != 1 for g in groups})
    model.head.mean_out.weight.requires_grad_(False)
    loss_per_graph(model, make_batch(2)).sum().backward()
    return model


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scoring_leaves_the_model_alone(worn, make_batch, criterion):
    state, before = copy.deepcopy(worn.state_dict()), trace_of(worn)
    data = complete(worn, make_batch(3, 5))
    first = score_channels(criterion, data)
    assert_untouched(worn, before, state)
    if criterion != "random":
        again = Context(
            worn,
            data.groups,
            data.batches,
            data.loss,
            variance=data.variance,
            movement=data.movement,
        )
        second = score_channels(criterion, again)
        assert all(torch.equal(first[k], second[k]) for k in first), "dropout is off while scoring"


@pytest.mark.parametrize("criterion", OF_DATA)
def test_a_failure_leaves_the_model_alone(worn, make_batch, criterion):
    state, before = copy.deepcopy(worn.state_dict()), trace_of(worn)
    stop = worn.head.register_forward_hook(broken)
    data = context(worn, make_batch(2), variance=predictive_variance)
    try:
        with pytest.raises(KeyError):
            score_channels(criterion, data)
    finally:
        stop.remove()
    assert_untouched(worn, before, state)


def broken(*_):
    raise KeyError("target")


class Components(nn.Module):
    """Channels with axes of their own: feature maps, or the components of an irrep."""

    def __init__(self):
        super().__init__()
        self.make, self.gate = nn.Conv2d(1, 3, 3, padding=1), ChannelGate(3)
        self.read = nn.Conv2d(3, 2, 3)

    def forward(self, x):
        h = self.gate(torch.tanh(self.make(x)), torch.arange(len(x)))
        return self.read(h).mean((2, 3))

    def channel_groups(self):
        members = (
            Member.span("make.weight", 0, 3),
            Member.span("make.bias", 0, 3),
            Member.span("read.weight", 1, 3, reads=True),
            Member.span("gate.kept", 0, 3),
        )
        return [ChannelGroup("maps", "conv", 3, members, "gate")]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_feature_maps(criterion, dtype):
    model = Components().to(dtype)
    batches = [(torch.randn(k, 1, 6, 6, dtype=dtype), torch.randint(2, (k,))) for k in (3, 2)]

    def loss(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    def spread(model, batch):
        return model(batch[0]).softmax(1).prod(1)

    movement = Movement()
    loss(model, batches[0]).mean().backward()
    movement.update(model)
    groups = model.channel_groups()
    data = Context(model, groups, batches, loss, variance=spread, movement=movement)
    score = score_channels(criterion, data)["maps"]
    assert score.shape == (3,) and score.isfinite().all() and len(score.unique()) == 3
    maps = torch.cat([torch.tanh(model.make(x)) for x, _ in batches]).detach().double()
    if criterion == "activation_norm":
        rms = maps.square().mean((0, 2, 3)).sqrt()
        assert torch.allclose(score, rms / rms.mean(), rtol=1e-5)
    if criterion == "taylor":  # one pass a channel and sample, by hand
        step, changes = 1e-6, []
        if dtype == torch.float32:
            return
        for channel in range(3):
            values = torch.ones(1, 3, dtype=dtype)
            values[0, channel] -= step
            change = []
            for images, labels in batches:
                dense = loss(model, (images, labels))
                model.gate.opened = values.expand(len(images), 3)
                change.append((dense - loss(model, (images, labels))) / step)
                model.gate.opened = None
            changes.append(torch.cat(change).abs().mean())
        assert torch.allclose(score, torch.stack(changes), rtol=1e-4)


def test_wanda_of_what_the_network_returns(model, make_batch):
    """Without a reader among the weights, a channel is read as it is."""
    group = next(g for g in model.channel_groups() if g.kind == "edge")
    makers = tuple(m for m in group.members if not m.reads)
    data = context(model, make_batch(2, 5))
    data.groups = [ChannelGroup(group.name, group.kind, group.n, makers, group.gate)]
    wanda, norm = (score_channels(c, data)[group.name] for c in ("wanda", "activation_norm"))
    assert torch.allclose(wanda, norm, rtol=1e-5)
