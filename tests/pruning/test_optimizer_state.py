"""Between fits: the compact model takes the very step that the masked model would have taken."""

from __future__ import annotations

import copy

import pytest
import torch

from egnn_prune.errors import ConfigError
from egnn_prune.pruning import apply_masks, choose, compact, compact_with_optimizer
from egnn_prune.pruning.tensors import get_original
from egnn_prune.training import graph_losses

OPTIMISERS = {
    "adamw": lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.1),
    "amsgrad": lambda p: torch.optim.Adam(p, 1e-3, amsgrad=True),
    "momentum": lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9, weight_decay=0.1, nesterov=True),
    "plain": lambda p: torch.optim.SGD(p, 1e-3),
}


def step(model, optimiser, batch) -> None:
    model.zero_grad()
    graph_losses(model, batch).mean().backward()
    optimiser.step()


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("dtype", [torch.float64], indirect=True, ids=["float64"])
def test_the_next_steps_are_the_same(make_property_model, make_batch, assert_close, name):
    model, batch = make_property_model(), make_batch(5, 8)
    scores = {g.name: torch.rand(g.n) for g in model.channel_groups()}
    apply_masks(model, choose(scores, 0.5))
    optimiser = OPTIMISERS[name](model.parameters())
    for _ in range(3):
        step(model, optimiser, batch)
    before = copy.deepcopy(model.state_dict()), copy.deepcopy(optimiser.state_dict())
    small, twin = compact_with_optimizer(model, optimiser)
    # pure: neither changed
    after = model.state_dict(), optimiser.state_dict()
    assert all(torch.equal(before[0][k], after[0][k]) for k in before[0])
    assert str(before[1]) == str(after[1])
    assert type(twin) is type(optimiser)
    assert {id(p) for g in twin.param_groups for p in g["params"]} == {
        id(p) for p in small.parameters()
    }
    for _ in range(3):
        step(model, optimiser, batch)
        step(small, twin, batch)
    for (key, a), b in zip(compact(model).named_parameters(), small.parameters(), strict=True):
        assert_close(a, b, 1e-9), key
    assert_close(model(batch).mean, small(batch).mean, 1e-9)


def test_moments_are_sliced_not_lost(make_property_model, make_batch):
    model, batch = make_property_model(), make_batch(5, 8)
    optimiser = OPTIMISERS["adamw"](model.parameters())
    step(model, optimiser, batch)
    scores = {g.name: torch.arange(float(g.n)) for g in model.channel_groups()}
    apply_masks(model, choose(scores, 0.5, "group"))
    small, twin = compact_with_optimizer(model, optimiser)
    name = "trunk.layers.0.edge_out.weight"  # [message, edge]: the first half of both goes
    old = optimiser.state[get_original(model, name)]["exp_avg"]
    new = twin.state[get_original(small, name)]
    assert torch.equal(new["exp_avg"], old[8:, 8:])
    assert new["step"] == 1
    new["exp_avg"].zero_()
    assert old.abs().sum() > 0


def test_parameters_of_other_modules_stay(make_property_model, make_batch):
    model, batch, other = make_property_model(), make_batch(5, 8), torch.nn.Linear(2, 1)
    optimiser = OPTIMISERS["adamw"]([*model.parameters(), *other.parameters()])
    other(torch.ones(1, 2)).sum().backward()
    graph_losses(model, batch).mean().backward()
    optimiser.step()
    apply_masks(model, choose({g.name: torch.rand(g.n) for g in model.channel_groups()}, 0.5))
    small, twin = compact_with_optimizer(model, optimiser)
    owned = [p for g in twin.param_groups for p in g["params"]]
    assert {id(p) for p in owned} == {id(p) for m in (small, other) for p in m.parameters()}
    moments = [o.state[other.weight]["exp_avg"] for o in (optimiser, twin)]
    assert torch.equal(*moments) and moments[0] is not moments[1]


@pytest.mark.parametrize("kind", [torch.optim.LBFGS, torch.optim.Adafactor])
def test_state_that_cannot_be_cut(make_property_model, make_batch, kind):
    model, batch = make_property_model(), make_batch(5, 8)
    optimiser = kind(model.parameters())
    graph_losses(model, batch).mean().backward()
    if kind is torch.optim.Adafactor:
        optimiser.step()
    with pytest.raises(ConfigError, match=f"the state of {kind.__name__} cannot be cut"):
        compact_with_optimizer(model, optimiser)
