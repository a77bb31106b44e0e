"""What is frozen does not move by a bit, what is neither pruned nor frozen moves."""

from __future__ import annotations

import pytest
import torch

from egnn_prune.errors import ConfigError
from egnn_prune.pruning import apply_masks, choose
from egnn_prune.pruning.freezing import MODES, freeze
from egnn_prune.pruning.masks import MaskParametrization
from egnn_prune.pruning.tensors import get_tensor, parameter_names


def random_scores(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {g.name: torch.rand(g.n, generator=generator) for g in model.channel_groups()}


def held_entries(model, kind):
    return {
        name.removesuffix(".0").replace("parametrizations.", ""): getattr(module, kind).clone()
        for name, module in model.named_modules()
        if isinstance(module, MaskParametrization)
    }


def train(model, batch, steps):
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01, eps=1e-30)
    for _ in range(steps):
        optimiser.zero_grad()
        prediction = model(batch)
        error = prediction.mean - torch.arange(len(batch.ptr) - 1.0, dtype=torch.float64)
        (error.square() / prediction.variance + prediction.variance.log()).mean().backward()
        optimiser.step()


@pytest.fixture
def model(make_property_model):
    return make_property_model(hidden=8, layers=3, attention=True)


@pytest.fixture
def batch(make_batch):
    return make_batch(3, 5)


def prepared(model, mode):
    """A masked model, frozen; returns its frozen entries for every parameter."""
    scores = random_scores(model)
    keep = choose(scores, 0.3)
    apply_masks(model, keep)
    freeze(model, mode, scores=scores, keep=keep, fraction=0.4)
    return held_entries(model, "pruned"), held_entries(model, "frozen")


@pytest.mark.parametrize("mode", ["pruned", "message_passing", "important"])
def test_only_the_rest_moves_in_100_steps(model, batch, mode):
    pruned, frozen = prepared(model, mode)
    names = parameter_names(model)
    before = {n: get_tensor(model, n).detach().clone() for n in names}
    train(model, batch, 100)
    nothing = torch.zeros(())
    for name in names:
        after, still = get_tensor(model, name), frozen.get(name, nothing) > 0
        still = still.expand(after.shape)
        dead = (pruned.get(name, nothing) > 0).expand(after.shape)
        assert torch.equal(after[still], before[name][still]), f"{name}: frozen entries moved"
        assert (after[dead] == 0).all()
        assert (after != before[name])[~still & ~dead].all(), f"{name}: a free entry did not move"
    assert any(f.any() for f in frozen.values()) == (mode != "pruned")


def test_message_passing_freezes_the_trunk_and_nothing_else(model):
    _, frozen = prepared(model, "message_passing")
    trunk = [n for n in parameter_names(model) if n.startswith("trunk.")]
    assert trunk
    assert all(frozen[name].all() for name in trunk)
    assert not any(f.any() for n, f in frozen.items() if n.startswith("head."))


def test_important_freezes_the_highest_scored_share(model):
    """By hand: the entries of a node-hidden channel are its row, its bias and its column."""
    scores = {name: s * 0.1 for name, s in random_scores(model).items()}
    name = "trunk.layers.1.node"
    scores[name][5] = 1.0
    keep = choose(scores, 0.0)
    apply_masks(model, keep)
    total = sum(len(s) for s in scores.values())
    freeze(model, "important", scores=scores, keep=keep, fraction=1.5 / total)
    frozen = {n: f for n, f in held_entries(model, "frozen").items() if f.any()}
    layer = "trunk.layers.1"
    assert set(frozen) == {
        f"{layer}.{n}" for n in ("node_in.weight", "node_in.bias", "node_out.weight")
    }
    assert frozen[f"{layer}.node_in.weight"].nonzero()[:, 0].unique().tolist() == [5]
    assert frozen[f"{layer}.node_out.weight"].nonzero()[:, 1].unique().tolist() == [5]


def test_a_pruned_channel_is_never_important(model):
    scores = random_scores(model)
    keep = choose(scores, 0.3)
    apply_masks(model, keep)
    freeze(model, "important", scores={k: -s for k, s in scores.items()}, keep=keep, fraction=1.0)
    for name, frozen in held_entries(model, "frozen").items():
        pruned = held_entries(model, "pruned")[name]
        assert (frozen | pruned).all() or frozen.sum() > 0
        assert (get_tensor(model, name)[pruned] == 0).all()


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_important_nothing_and_everything(model, fraction):
    scores = random_scores(model)
    keep = choose(scores, 0.3)
    apply_masks(model, keep)
    freeze(model, "important", scores=scores, keep=keep, fraction=fraction)
    pruned, frozen = held_entries(model, "pruned"), held_entries(model, "frozen")
    for name in pruned:
        assert not frozen[name].any() if fraction == 0 else (frozen[name] | pruned[name]).all()


def test_none_prunes_and_freezes_nothing(model):
    pruned, frozen = prepared(model, "none")
    assert not any(m.any() for m in [*pruned.values(), *frozen.values()])


def test_freezing_does_not_change_the_function(model, batch):
    keep = choose(random_scores(model), 0.3)
    apply_masks(model, keep)
    before = model(batch).mean
    freeze(model, "message_passing")
    assert torch.equal(model(batch).mean, before)


def test_bad_mode(model):
    assert "pruned" in MODES
    with pytest.raises(ConfigError, match="freezing must be one of pruned"):
        freeze(model, "everything")
    with pytest.raises(ConfigError, match="scores and masks"):
        freeze(model, "important")
    keep = {g.name: torch.ones(g.n, dtype=torch.bool) for g in model.channel_groups()}
    with pytest.raises(ConfigError, match=r"in \[0, 1\]"):
        freeze(model, "important", scores=random_scores(model), keep=keep, fraction=1.5)


def test_a_model_or_scores_that_lack_something(model):
    with pytest.raises(ConfigError, match="Linear has no message_passing_modules"):
        freeze(torch.nn.Linear(2, 2), "message_passing")
    with pytest.raises(ConfigError, match="needs scores and a mask of"):
        freeze(model, "important", scores={}, keep={})
