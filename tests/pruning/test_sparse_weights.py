"""Single weights: scores by hand, exact counts, N:M patterns, zeros that last."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from egnn_prune.errors import ConfigError
from egnn_prune.pruning import Context, apply_masks, lift_masks
from egnn_prune.pruning.criteria import Movement
from egnn_prune.pruning.masks import freeze_entries, mask_of
from egnn_prune.pruning.sparse_weights import (
    WEIGHT_CRITERIA,
    apply_weight_masks,
    choose_weights,
    n_m_mask,
    score_weights,
)
from egnn_prune.pruning.tensors import get_tensor

NAMES = ["0.weight", "2.weight"]


def squared_error(model, batch):
    return (model(batch[0])[:, 0] - batch[1]).square()


@pytest.fixture
def model(dtype):
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 1)).to(dtype)


@pytest.fixture
def batches(dtype):
    return [(torch.randn(k, 8, dtype=dtype), torch.randn(k, dtype=dtype)) for k in (4, 3)]


def context(model, batches=None, **options):
    return Context(model, [], batches, squared_error, **options)


def complete(model, batches):
    movement = Movement()
    trained = copy.deepcopy(model)
    squared_error(trained, batches[0]).mean().backward()
    movement.update(trained)
    return context(model, batches, movement=movement)


def gradients_of_samples(model, batches):
    """For each name ``[samples, *shape]``."""
    rows = []
    for x, y in batches:
        for i in range(len(x)):
            loss = squared_error(model, (x[i : i + 1], y[i : i + 1]))[0]
            rows.append(torch.autograd.grad(loss, [model[0].weight, model[2].weight]))
    return {name: torch.stack(g) for name, g in zip(NAMES, zip(*rows, strict=True), strict=True)}


def by_hand(criterion, model, batches):
    weight = {name: model.get_parameter(name).detach() for name in NAMES}
    gradient = gradients_of_samples(model, batches)
    x = torch.cat([x for x, _ in batches])
    inputs = {"0.weight": x, "2.weight": torch.tanh(model[0](x)).detach()}
    first = gradients_of_samples(model, batches[:1])
    formula = {
        "magnitude": lambda k: weight[k].abs(),
        "lamp": lambda k: torch.stack(
            [v**2 / (weight[k][weight[k].abs() >= v.abs()] ** 2).sum() for v in weight[k].flatten()]
        ).view_as(weight[k]),
        "taylor": lambda k: (weight[k] * gradient[k]).abs().mean(0),
        "snip": lambda k: (weight[k] * gradient[k].mean(0)).abs(),
        "fisher": lambda k: 0.5 * (weight[k] * gradient[k]).square().mean(0),
        "movement": lambda k: -weight[k] * first[k].mean(0),
        "wanda": lambda k: weight[k].abs() * inputs[k].norm(dim=0),
    }
    return {name: formula[criterion](name) for name in NAMES}


@pytest.mark.parametrize(
    "criterion", ["magnitude", "lamp", "taylor", "snip", "fisher", "movement", "wanda"]
)
def test_scores_by_hand(model, batches, criterion, assert_close):
    found = score_weights(criterion, complete(model, batches))
    assert list(found) == NAMES
    for name, expected in by_hand(criterion, model, batches).items():
        assert_close(found[name].double(), expected.double())


@pytest.mark.parametrize("criterion", WEIGHT_CRITERIA)
def test_scores_have_the_shape_of_the_weights_and_pruned_ones_are_zero(model, batches, criterion):
    keep = {name: torch.rand(model.get_parameter(name).shape) < 0.7 for name in NAMES}
    apply_weight_masks(model, keep)
    data = complete(model, batches)
    for name, score in score_weights(criterion, data).items():
        assert score.shape == keep[name].shape and score.isfinite().all()
        assert len(score[keep[name]].unique()) > 1
        assert criterion == "random" or (score[~keep[name]] == 0).all()


def test_scores_of_channels_are_sums_of_scores_of_weights(make_property_model, make_batch):
    """SNIP, GraSP and SynFlow add up; the two ways meet on a group's tensors."""
    from egnn_prune.pruning import score_channels

    model, batch = make_property_model(hidden=8), make_batch(3, 5)

    def loss(model, batch):
        return (model(batch).mean - batch.y).square()

    data = Context(model, model.channel_groups(), [batch], loss)
    names = [f"trunk.layers.0.{name}" for name in ("node_in.weight", "node_in.bias")]
    names.append("trunk.layers.0.node_out.weight")
    for criterion in ("snip", "grasp", "synflow"):
        row, bias, column = score_weights(criterion, data, names).values()
        total = row.double().sum(1) + bias.double() + column.double().sum(0)
        group = score_channels(criterion, data)["trunk.layers.0.node"]
        assert torch.allclose(total, group, rtol=1e-5), criterion


def test_random_is_seeded(model):
    draws = [
        score_weights("random", context(model, generator=torch.Generator().manual_seed(s)))
        for s in (1, 1, 2)
    ]
    assert torch.equal(draws[0]["0.weight"], draws[1]["0.weight"])
    assert not torch.equal(draws[0]["0.weight"], draws[2]["0.weight"])


@pytest.mark.parametrize("groups", [1, 2])
def test_wanda_of_a_convolution(groups, dtype, assert_close):
    model = nn.Conv2d(4, 6, 3, groups=groups).to(dtype)
    images = torch.randn(5, 4, 7, 7, dtype=dtype)
    found = score_weights("wanda", Context(model, [], [images]))["weight"]
    norm = images.square().sum((0, 2, 3)).sqrt()
    for out in range(6):
        inputs = norm if groups == 1 else norm.view(2, 2)[out // 3]
        expected = model.weight[out].detach().abs() * inputs[:, None, None]
        assert_close(found[out].double(), expected.double())


def test_wanda_refuses_what_it_cannot_see(make_property_model, make_batch):
    model = make_property_model(hidden=8)
    data = Context(model, [], [make_batch(3)])
    with pytest.raises(ConfigError, match=r"edge_in\.weight is never called"):
        score_weights("wanda", data, ["trunk.layers.0.edge_in.weight"])
    with pytest.raises(ConfigError, match=r"which trunk.embedding.bias is no weight of"):
        score_weights("wanda", data, ["trunk.embedding.bias"])
    score_weights("wanda", data, ["trunk.layers.0.edge_out.weight"])
    assert not any(m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("sparsity", [0.0, 0.29, 0.5, 0.77, 0.9])
def test_exact_counts(model, sparsity):
    scores = score_weights("magnitude", context(model))
    before = copy.deepcopy(scores)
    whole = choose_weights(scores, sparsity)
    assert sum(int((~m).sum()) for m in whole.values()) == math.floor(round(sparsity * 54, 9))
    if sparsity < 0.8:
        for mask in choose_weights(scores, sparsity, "tensor").values():
            assert int((~mask).sum()) == math.floor(round(sparsity * mask.numel(), 9))
    assert all(torch.equal(scores[n], before[n]) for n in NAMES)


def test_the_smallest_go(model):
    scores = score_weights("magnitude", context(model))
    for scope, pools in (("global", [NAMES]), ("tensor", [[n] for n in NAMES])):
        masks = choose_weights(scores, 0.5, scope)
        for pool in pools:
            gone = torch.cat([scores[n][~masks[n]] for n in pool])
            stays = torch.cat([scores[n][masks[n]] for n in pool])
            assert gone.max() < stays.min()


def test_ties_are_counted_exactly():
    masks = choose_weights({"a": torch.ones(3, 4), "b": torch.ones(5)}, 0.5)
    assert sum(int((~m).sum()) for m in masks.values()) == 8
    assert int((~choose_weights({"a": torch.zeros(7, 3)}, 0.5)["a"]).sum()) == 10


def test_masks_are_monotone(model):
    keep = None
    for step, sparsity in enumerate((0.2, 0.5, 0.5, 0.8)):
        data = context(model, generator=torch.Generator().manual_seed(step))
        after = choose_weights(score_weights("random", data), sparsity, keep=keep)
        if keep is not None:
            assert not any((after[n] & ~keep[n]).any() for n in NAMES)
        keep = after
        assert sum(int((~m).sum()) for m in keep.values()) == math.floor(sparsity * 54)


def test_no_tensor_is_emptied():
    scores = {"small": torch.full((2, 2), 1e-9), "large": torch.rand(10, 10) + 1}
    assert int(choose_weights(scores, 0.5)["small"].sum()) == 1
    with pytest.raises(ConfigError, match="each of the 2 tensors must keep one"):
        choose_weights(scores, 0.999)


def test_choosing_from_bad_input(model):
    scores = score_weights("magnitude", context(model))
    keep = choose_weights(scores, 0.5)
    with pytest.raises(ConfigError, match="an earlier round removed 27, which stay removed"):
        choose_weights(scores, 0.4, keep=keep)
    with pytest.raises(ConfigError, match="'global' or 'tensor', not 'layer'"):
        choose_weights(scores, 0.4, "layer")
    with pytest.raises(ConfigError, match=r"lies in \[0, 1\), not 1"):
        choose_weights(scores, 1.0)
    with pytest.raises(ConfigError, match=r"the earlier masks do not fit 2.weight"):
        choose_weights(scores, 0.6, keep={"0.weight": keep["0.weight"]})
    scores["2.weight"][0, 0] = torch.nan
    with pytest.raises(ConfigError, match=r"score of 2.weight is NaN"):
        choose_weights(scores, 0.5)


def test_scoring_bad_input(model):
    with pytest.raises(ConfigError, match=r"single weights must be one of fisher, .*not 'best'"):
        score_weights("best", context(model))
    with pytest.raises(ConfigError, match="no parameter 'nothing'"):
        score_weights("magnitude", context(model), ["nothing"])
    with pytest.raises(ConfigError, match="needs data and a loss"):
        score_weights("snip", context(model))


def test_own_criterion(model):
    found = score_weights(lambda c, names: {n: torch.ones(1) for n in names}, context(model))
    assert list(found) == NAMES


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (1, 1)])
def test_n_of_every_m_survive(n, m):
    score = torch.randn(6, 16)
    mask = n_m_mask(score, n, m)
    assert mask.shape == score.shape and mask.dtype == torch.bool
    assert (mask.view(6, 16 // m, m).sum(-1) == n).all()
    blocks, kept = score.view(-1, m), mask.view(-1, m)
    for block, stays in zip(blocks, kept, strict=True):
        assert n == m or block[stays].min() > block[~stays].max()


def test_n_m_of_equal_scores_and_convolutions():
    assert n_m_mask(torch.zeros(1, 8)).tolist() == [[True, True, False, False] * 2]
    score = torch.randn(5, 8, 3, 3)
    mask = n_m_mask(score)
    assert mask.shape == score.shape
    assert (mask.view(5, 2, 4, 3, 3).sum(2) == 2).all()


def test_n_m_of_bad_input():
    with pytest.raises(ConfigError, match=r"multiple of 4 inputs, not the shape \(3, 6\); leave"):
        n_m_mask(torch.ones(3, 6))
    with pytest.raises(ConfigError, match="multiple of 4 inputs"):
        n_m_mask(torch.ones(8))
    with pytest.raises(ConfigError, match="1 <= n <= m, not 5:4"):
        n_m_mask(torch.ones(3, 8), 5)
    with pytest.raises(ConfigError, match="NaN or infinite"):
        n_m_mask(torch.full((1, 4), torch.nan))


def random_masks(model):
    return {n: n_m_mask(torch.rand(model.get_parameter(n).shape)) for n in ["0.weight"]} | {
        "2.weight": torch.tensor([[True, False, True, False, True, True]])
    }


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_zeros_last_and_the_others_learn(model, batches, kind):
    masks, before = random_masks(model), copy.deepcopy(model)
    parameters = list(model.parameters())
    optimiser = {
        "adamw": lambda: torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1),
        "sgd": lambda: torch.optim.SGD(parameters, lr=1e-2, momentum=0.9),
    }[kind]()
    for step in range(100):
        if step == 10:  # the momenta know nothing of the masks yet
            apply_weight_masks(model, masks)
        optimiser.zero_grad()
        squared_error(model, batches[step % 2]).mean().backward()
        optimiser.step()
    for layer in (0, 2):
        weight, mask = model[layer].weight, masks[f"{layer}.weight"]
        assert (weight[~mask] == 0).all()
        assert (weight[mask] != before[layer].weight[mask]).all()


def test_weight_masks_add_up_and_can_be_lifted(model):
    first, second = (random_masks(model) for _ in range(2))
    apply_weight_masks(model, first)
    apply_weight_masks(model, second)
    both = first["0.weight"] & second["0.weight"]
    assert torch.equal(model[0].weight != 0, both)
    state = model.state_dict()
    assert torch.equal(state["0.parametrizations.weight.0.pruned"], ~both)
    lift_masks(model)
    assert (model[0].weight != 0).all()


def test_a_frozen_weight_can_be_pruned(model):
    before, masks = model[0].weight.clone(), random_masks(model)
    freeze_entries(model, "0.weight")
    apply_weight_masks(model, masks)
    assert torch.equal(model[0].weight, torch.where(masks["0.weight"], before, 0))


def test_weights_within_pruned_channels(make_property_model, make_batch):
    """Channels first, then weights: both are zero, and a second call with both keeps both."""
    model = make_property_model(hidden=8)
    name = "trunk.layers.0.node_out.weight"
    apply_masks(model, {g.name: torch.arange(g.n) > 0 for g in model.channel_groups()})
    channels = mask_of(model, name).pruned.clone()
    scores = score_weights("magnitude", Context(model, []), [name])
    keep = choose_weights(scores, 0.6, keep={name: ~channels})
    apply_weight_masks(model, keep)
    weight = model.trunk.layers[0].node_out.weight
    assert (weight[channels] == 0).all() and int((weight == 0).sum()) == math.floor(0.6 * 64)
    assert model(make_batch(3, 4)).mean.isfinite().all()


def test_masks_of_bad_input(model):
    with pytest.raises(ConfigError, match="no parameter 'nothing'"):
        apply_weight_masks(model, {"nothing": torch.ones(1, dtype=torch.bool)})
    with pytest.raises(ConfigError, match=r"0.weight needs a boolean mask of shape \(6, 8\)"):
        apply_weight_masks(model, {"0.weight": torch.ones(6, 8)})
    assert mask_of(model, "0.weight") is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="sparse tensor cores need CUDA")
def test_2_4_runs_on_sparse_tensor_cores():
    from torch.sparse import to_sparse_semi_structured

    weight = torch.randn(128, 128, dtype=torch.float16, device="cuda")
    masked = torch.where(n_m_mask(weight.abs()), weight, 0)
    x = torch.randn(64, 128, dtype=torch.float16, device="cuda")
    sparse = to_sparse_semi_structured(masked)
    assert torch.allclose(sparse.to_dense(), masked)
    expected = nn.functional.linear(x, masked)
    assert torch.allclose(nn.functional.linear(x, sparse), expected, rtol=1e-2, atol=1e-1)


def test_masks_of_channels_keep_those_of_weights(make_property_model):
    model = make_property_model(hidden=8)
    name = "trunk.layers.0.node_out.weight"
    everything = {g.name: torch.ones(g.n, dtype=torch.bool) for g in model.channel_groups()}
    single = torch.rand(get_tensor(model, name).shape) < 0.7
    apply_weight_masks(model, {name: single})
    apply_masks(model, {k: torch.arange(len(v)) > 0 for k, v in everything.items()})
    assert (get_tensor(model, name)[~single] == 0).all()
    assert (get_tensor(model, name)[0] == 0).all()
    apply_masks(model, everything)
    assert torch.equal(get_tensor(model, name) != 0, single)
