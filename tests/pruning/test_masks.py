"""Masks: zeros stay zero whatever the optimiser does, survivors learn, copies keep them."""

from __future__ import annotations

import copy

import pytest
import torch

from egnn_prune.errors import ConfigError
from egnn_prune.pruning import (
    apply_masks,
    choose,
    keep_masks,
    lift_masks,
    register_masks,
    remove_masks,
    thaw,
)
from egnn_prune.pruning.masks import MaskParametrization, freeze_entries, mask_of, weight_names
from egnn_prune.pruning.tensors import get_original, get_tensor

OPTIMISERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, weight_decay=0.1),
}


def loss_of(model, batch):
    """Reaches every weight: means and variances of the nodes, with targets that nothing fits."""
    prediction = model(batch)
    target = torch.arange(prediction.mean.numel(), dtype=torch.float64)
    return (
        (prediction.mean - target) ** 2 / prediction.variance + prediction.variance.log()
    ).mean()


def train(model, batch, optimiser, steps):
    for _ in range(steps):
        optimiser.zero_grad()
        loss_of(model, batch).backward()
        optimiser.step()


def random_keep(model, sparsity=0.4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = {g.name: torch.rand(g.n, generator=generator) for g in model.channel_groups()}
    return choose(scores, sparsity, "global")


def pruned_entries(model):
    """``{tensor name: boolean}`` for every tensor that can be held."""
    return {
        name.removesuffix(".0").replace("parametrizations.", ""): module.pruned
        for name, module in model.named_modules()
        if isinstance(module, MaskParametrization)
    }


@pytest.fixture
def model(make_property_model):
    """With everything that can have channels, three layers so that each one matters."""
    return make_property_model(hidden=8, layers=3, attention=True, velocity=True, radial=3)


@pytest.fixture
def batch(make_batch):
    return make_batch(3, 5)


@pytest.mark.parametrize(
    "warm",
    [
        pytest.param(False, id="fresh", marks=pytest.mark.slow),
        pytest.param(True, id="with momentum"),
    ],
)
@pytest.mark.parametrize("name", OPTIMISERS)
def test_zeros_stay_zero_for_100_steps(model, batch, name, warm):
    register_masks(model, weight_names(model, model.channel_groups()))
    optimiser = OPTIMISERS[name](model.parameters())
    if warm:
        train(model, batch, optimiser, 5)
    keep = random_keep(model)
    apply_masks(model, keep)
    train(model, batch, optimiser, 100)
    gone = pruned_entries(model)
    assert sum(int(g.sum()) for g in gone.values()) > 100
    for tensor, entries in gone.items():
        assert (get_tensor(model, tensor)[entries] == 0).all(), tensor
    assert all(torch.equal(v, keep[k]) for k, v in keep_masks(model).items())


def test_holding_keeps_the_parameters_that_the_optimiser_knows(model):
    before = {id(p) for p in model.parameters()}
    apply_masks(model, random_keep(model))
    assert {id(p) for p in model.parameters()} == before


@pytest.mark.parametrize("masked", [False, True], ids=["dense", "masked"])
def test_every_survivor_changes_in_the_next_step(model, batch, masked):
    """Through the real gradients: a wrong mask or a dead branch would leave an entry behind."""
    keep = random_keep(model, 0.4 if masked else 0.0)
    apply_masks(model, keep)
    names = [
        n.replace("parametrizations.", "").removesuffix(".original")
        for n, _ in model.named_parameters()
    ]
    before = {n: get_tensor(model, n).detach().clone() for n in names}
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0, eps=1e-30)
    train(model, batch, optimiser, 1)
    gone = pruned_entries(model)
    for name in names:
        moved = get_tensor(model, name) != before[name]
        dead = gone.get(name, torch.zeros_like(moved))
        assert torch.equal(moved, ~dead), f"{name}: {int((moved == dead).sum())} entries"


def test_pruned_entries_belong_to_pruned_channels_only(model):
    """By hand for one group: message channel 2 of layer 0 is one row and four columns."""
    keep = {g.name: torch.ones(g.n, dtype=torch.bool) for g in model.channel_groups()}
    keep["trunk.layers.0.message"][2] = False
    apply_masks(model, keep)
    gone = {name: g for name, g in pruned_entries(model).items() if g.any()}
    layer = "trunk.layers.0"
    assert set(gone) == {
        f"{layer}.{n}"
        for n in (
            "edge_out.weight",
            "edge_out.bias",
            "attention.weight",
            "position_in.weight",
            "node_in.weight",
        )
    }
    assert gone[f"{layer}.edge_out.weight"].nonzero()[:, 0].unique().tolist() == [2]
    assert gone[f"{layer}.node_in.weight"].nonzero()[:, 1].unique().tolist() == [8 + 2]
    assert gone[f"{layer}.position_in.weight"].nonzero()[:, 1].unique().tolist() == [2]
    assert gone[f"{layer}.edge_out.bias"].sum() == 1


def test_a_masked_channel_carries_nothing(model, batch, assert_close):
    """Zeroing every entry of the channel by hand gives the same function."""
    keep = random_keep(model)
    masked, by_hand = copy.deepcopy(model), copy.deepcopy(model)
    apply_masks(masked, keep)
    with torch.no_grad():
        for name, entries in pruned_entries(masked).items():
            get_tensor(by_hand, name)[entries] = 0.0
    assert_close(masked(batch).mean, by_hand(batch).mean)
    assert (masked(batch).mean - model(batch).mean).abs().max() > 1e-3


def test_lifting_lets_zeros_regrow(model, batch):
    """From exact zeros on both sides of a channel the gradients would vanish for ever."""
    apply_masks(model, random_keep(model))
    gone = {k: v.clone() for k, v in pruned_entries(model).items()}
    zeroed = model(batch).mean
    lift_masks(model)
    start = (model(batch).mean - zeroed).abs().max() / zeroed.abs().max()
    assert 0 < start < 1e-2, "pruned channels come back almost from nothing"
    before = {n: get_tensor(model, n).detach().clone() for n in gone}
    train(model, batch, torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0), 40)
    grown = sum(
        int((get_tensor(model, n) - before[n])[g].abs().gt(0.03).sum()) for n, g in gone.items()
    )
    assert grown > 0.5 * sum(int(g.sum()) for g in gone.values())
    assert all(mask.all() for mask in keep_masks(model).values())


def test_later_masks_replace_earlier_ones(model):
    first, second = random_keep(model, 0.3, seed=1), random_keep(model, 0.3, seed=2)
    apply_masks(model, first)
    apply_masks(model, second)
    assert all(torch.equal(keep_masks(model)[k], second[k]) for k in second)


def test_release_leaves_plain_tensors(model, batch):
    apply_masks(model, random_keep(model))
    before = model(batch).mean
    remove_masks(model)
    assert not pruned_entries(model)
    assert torch.equal(model(batch).mean, before)
    assert all(mask.all() for mask in keep_masks(model).values())


def test_deepcopy_keeps_masks_and_is_independent(model, batch):
    keep = random_keep(model)
    apply_masks(model, keep)
    twin = copy.deepcopy(model)
    before = model(batch).mean
    train(twin, batch, torch.optim.AdamW(twin.parameters(), lr=1e-2), 3)
    assert all(torch.equal(keep_masks(twin)[k], keep[k]) for k in keep)
    assert torch.equal(model(batch).mean, before)


def test_state_dict_round_trip_keeps_masks(model, make_property_model, batch):
    keep = random_keep(model)
    apply_masks(model, keep)
    again = make_property_model(hidden=8, layers=3, attention=True, velocity=True, radial=3)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    register_masks(again, weight_names(again, again.channel_groups()))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(batch).mean, model(batch).mean)
    assert all(torch.equal(keep_masks(again)[k], keep[k]) for k in keep)


def test_masks_follow_a_change_of_precision(model):
    keep = random_keep(model)
    apply_masks(model, keep)
    model.half()
    assert get_tensor(model, "trunk.embedding.weight").dtype == torch.float16
    assert all(torch.equal(keep_masks(model)[k], keep[k]) for k in keep)


BAD = {
    "missing": (lambda k: k.pop("trunk.stream"), "needs a boolean mask"),
    "wrong length": (lambda k: k.update({"trunk.stream": torch.ones(3).bool()}), "of 8 channels"),
    "numbers": (lambda k: k.update({"trunk.stream": torch.ones(8)}), "needs a boolean mask"),
    "empty": (lambda k: k.update({"trunk.stream": torch.zeros(8).bool()}), "lose all"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD.keys())
def test_bad_masks(model, spoil, message):
    keep = random_keep(model)
    spoil(keep)
    with pytest.raises(ConfigError, match=message):
        apply_masks(model, keep)
    assert not pruned_entries(model), "a refused mask changes nothing"


def test_a_copy_and_its_original_do_not_share_their_masks():
    """Torch lets deep copies share the class that holds their parametrised attributes."""
    model = torch.nn.Linear(3, 2)
    register_masks(model, ["weight"])
    twin, other = copy.deepcopy(model), copy.deepcopy(model)
    register_masks(twin, ["bias"])
    remove_masks(other)
    x = torch.ones(1, 3)
    for module in (model, twin, other):
        assert torch.equal(module(x), model(x))
    assert mask_of(model, "bias") is None and mask_of(twin, "bias") is not None
    assert mask_of(other, "weight") is None and mask_of(model, "weight") is not None


def test_frozen_channels_come_back_at_their_value(model):
    name = "trunk.layers.0.edge_out.weight"
    keep = {g.name: torch.ones(g.n, dtype=torch.bool) for g in model.channel_groups()}
    fewer = random_keep(model)
    apply_masks(model, keep)
    freeze_entries(model, name)
    frozen = get_tensor(model, name).clone()
    with torch.no_grad():  # what weight decay does behind the mask
        get_original(model, name).mul_(0.5)
    apply_masks(model, fewer)
    freeze_entries(model, name)  # again: what is pruned now must not be frozen at zero
    assert (get_tensor(model, name) == 0).any()
    apply_masks(model, keep)
    assert torch.equal(get_tensor(model, name), frozen)
    apply_masks(model, fewer)
    thaw(model)
    apply_masks(model, keep)
    assert torch.equal(get_tensor(model, name), frozen)
