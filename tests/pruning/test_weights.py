"""Weights after pruning: kept, rewound, drawn again; and layers that thaw."""

from __future__ import annotations

import pytest
import torch

from egnn_prune.adapters.traced import TracedNetwork
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import apply_masks, choose, compact, reinitialise, rewind, snapshot, thaw
from egnn_prune.pruning.masks import freeze_entries, mask_of
from egnn_prune.pruning.tensors import get_original, get_tensor


@pytest.fixture
def masked(make_property_model):
    model = make_property_model()
    start = snapshot(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    scores = {g.name: torch.rand(g.n) for g in model.channel_groups()}
    apply_masks(model, choose(scores, 0.5))
    return model, start


def test_rewinding_sets_survivors_and_leaves_zeros(masked):
    model, start = masked
    rewind(model, start)
    for name, value in start.items():
        now, state = get_tensor(model, name), mask_of(model, name)
        pruned = torch.zeros_like(now, dtype=torch.bool) if state is None else state.pruned
        assert torch.equal(now[~pruned], value[~pruned])
        assert (now[pruned] == 0).all()


def test_a_snapshot_is_a_copy(masked):
    model, start = masked
    before = {k: v.clone() for k, v in start.items()}
    rewind(model, start)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(v, start[k]) for k, v in before.items())


def test_frozen_entries_are_not_rewound(masked):
    model, start = masked
    name = "head.lin_in.weight"
    freeze_entries(model, name)
    value = get_tensor(model, name).clone()
    rewind(model, start)
    assert torch.equal(get_tensor(model, name), value)


def test_a_snapshot_of_another_model(masked):
    model, start = masked
    with pytest.raises(ConfigError, match="before it is made compact"):
        rewind(compact(model), start)


def test_random_reinitialisation(masked, make_batch):
    model, start = masked
    state = torch.get_rng_state()
    reinitialise(model, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    first = snapshot(model)
    name = "trunk.layers.0.edge_out.weight"
    assert not torch.equal(first[name], start[name])
    pruned = mask_of(model, name).pruned
    assert pruned.any() and (get_tensor(model, name)[pruned] == 0).all()
    reinitialise(model, seed=3)
    assert all(torch.equal(v, first[k]) for k, v in snapshot(model).items())
    reinitialise(model, seed=4)
    assert not torch.equal(snapshot(model)[name], first[name])
    batch = make_batch(6)
    assert torch.allclose(model(batch).mean, compact(model)(batch).mean)


def test_thawed_weights_start_from_where_they_were_frozen(masked):
    model, _ = masked
    names = ["trunk.layers.1.node_in.weight", "head.mean_out.weight"]
    values = {}
    for name in names:
        freeze_entries(model, name)
        values[name] = get_tensor(model, name).clone()
    with torch.no_grad():  # what weight decay does behind the mask
        for name in names:
            get_original(model, name).mul_(0.5)
    thaw(model, names[:1])
    for name in names:
        assert torch.equal(get_tensor(model, name), values[name])
    (model_sum := sum(get_tensor(model, n).sum() for n in names)).backward()
    assert model_sum.isfinite()
    learning, frozen = (get_original(model, n).grad for n in names)
    pruned = mask_of(model, names[0]).pruned
    assert (learning[~pruned] == 1).all() and (learning[pruned] == 0).all()
    assert (frozen == 0).all()
    thaw(model)
    assert not any(mask_of(model, n).frozen.any() for n in names)


def test_random_reinitialisation_of_a_third_party_network():
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    model = TracedNetwork(network, torch.randn(2, 4))
    before = snapshot(model)
    (group,) = model.channel_groups()
    apply_masks(model, choose({group.name: torch.rand(8)}, 0.5))
    reinitialise(model, seed=7)
    weight = get_tensor(model, "network.0.weight")
    alive = weight != 0
    assert int(alive.any(1).sum()) == 4
    assert (weight[alive] != before["network.0.weight"][alive]).all()


def test_a_snapshot_has_the_values_of_frozen_weights(masked):
    model, _ = masked
    name = "head.lin_in.weight"
    freeze_entries(model, name)
    value = mask_of(model, name).value.clone()
    with torch.no_grad():
        get_original(model, name).mul_(0.5)
    assert torch.equal(snapshot(model)[name], value)


def test_reinitialised_networks_forget_their_running_statistics():
    layers = [torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2)]
    network = torch.nn.Sequential(*layers)
    for _ in range(5):
        network(3 + torch.randn(20, 4))
    model = TracedNetwork(network, torch.randn(2, 4))
    reinitialise(model, seed=7)
    assert (network[1].running_mean == 0).all() and (network[1].running_var == 1).all()
