"""Edges in blocks compute what all edges at once do, forth, back, and back again."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from egnn_prune.models import EGNN, edge_blocks, recompute_messages
from egnn_prune.models.basis import GaussianBasis, SquaredDistance
from egnn_prune.models.edge_blocks import block_edges, blocked_sums, pays
from egnn_prune.models.edge_sums import EdgeInputs, EdgeWeights, Geometry, edge_sums
from egnn_prune.system.memory import peak_megabytes

NODES, EDGES = 12, 50
CASES = {
    "plain": {},
    "still": {"moves": False},
    "attention": {"attention": True},
    "cutoff": {"envelope": True},
    "all": {"attention": True, "envelope": True, "attr": 2, "shift": True, "gaussians": 5},
    "differences": {"eps": None},
    "flat": {"dimension": 2, "gaussians": 3},
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of seven edges, the last one smaller."""
    monkeypatch.setattr(edge_blocks, "BLOCK", 1)
    monkeypatch.setattr(edge_blocks, "MIN_EDGES", 7)


def case(
    moves=True,
    attention=False,
    envelope=False,
    attr=0,
    shift=False,
    gaussians=0,
    eps=1e-2,
    dimension=3,
    edges=EDGES,
    dtype=torch.float64,
):
    """Random inputs, weights and edges; node 3 has none."""
    torch.manual_seed(0)
    edge, message, position = 5, 6, 4

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype).requires_grad_()

    inputs = EdgeInputs(
        some(NODES, edge),
        some(NODES, edge),
        some(NODES, dimension),
        some(edges, dimension) if shift else None,
        some(edges, attr) if attr else None,
        torch.rand(edges, 1, dtype=dtype).requires_grad_() if envelope else None,
    )
    columns = (gaussians or 1) + attr
    weights = EdgeWeights(
        some(edge, columns + 3)[:, 3:],  # a slice, as of the layer's own weight
        some(message, edge),
        some(message),
        *((some(1, message), some(1)) if attention else (None, None)),
        *((some(position, message), some(position), some(1, position)) if moves else [None] * 3),
    )
    radial = GaussianBasis(gaussians, 3.0) if gaussians else SquaredDistance()
    target = torch.randint(0, NODES - 1, (edges,)).sort()[0]
    target += target >= 3
    source = torch.randint(0, NODES, (edges,))
    source[source == target] = (target[source == target] + 1) % NODES
    return inputs, weights, Geometry(radial, eps), source, target


def leaves(inputs: EdgeInputs, weights: EdgeWeights) -> list[Tensor]:
    return [t for t in (*inputs, *weights) if t is not None]


def scalar(results) -> Tensor:
    """A number in which every result has a weight of its own."""
    parts = [r for r in results if r is not None]
    return sum((r * torch.arange(1, r.numel() + 1).view_as(r).cos()).sum() for r in parts)


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("name", CASES)
def test_results_and_gradients_equal_those_of_all_edges_at_once(name, recompute):
    arguments = case(**CASES[name])
    wanted = leaves(*arguments[:2])
    plain, blocks = edge_sums(*arguments), blocked_sums(*arguments, recompute)
    assert (plain[1] is None) == (blocks[1] is None) == (name == "still")
    for a, b in zip(plain, blocks, strict=True):
        torch.testing.assert_close(a, b)
    found = [
        torch.autograd.grad(scalar(r), wanted, allow_unused=True, materialize_grads=True)
        for r in (plain, blocks)
    ]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():  # activations in place
        for a, b in zip(plain, blocked_sums(*arguments), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["all", "still"])
def test_gradients_of_gradients_equal_those_of_all_edges_at_once(name):
    arguments = case(**CASES[name])
    inputs, weights = arguments[:2]
    found = []
    for function in (edge_sums, blocked_sums):
        forces = torch.autograd.grad(scalar(function(*arguments)), inputs.pos, create_graph=True)
        asked = [t for t in leaves(inputs, weights) if t.is_leaf]
        slopes = torch.autograd.grad(
            scalar(forces), asked, allow_unused=True, materialize_grads=True
        )
        found.append(slopes)
    assert any(bool(slope.any()) for slope in found[0])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_the_direct_part_alone_where_one_input_depends_on_another():
    inputs, weights, geometry, *ends = case(envelope=True)
    found = []
    for function in (edge_sums, blocked_sums):
        pos = inputs.pos.detach().requires_grad_()
        envelope = pos.square().sum().sigmoid() * torch.ones(EDGES, 1, dtype=pos.dtype)
        of_pos = inputs._replace(pos=pos, envelope=envelope)
        results = function(of_pos, weights, geometry, *ends)
        (slope,) = torch.autograd.grad(scalar(results), pos, create_graph=True)
        found += [slope, *torch.autograd.grad(scalar([slope]), pos)]
    for a, b in zip(found[:2], found[2:], strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("edges", [0, 1, 7, 8])
def test_any_number_of_edges(edges):
    arguments = case(edges=edges, envelope=True)
    wanted = leaves(*arguments[:2])
    plain, blocks = edge_sums(*arguments), blocked_sums(*arguments)
    found = [
        torch.autograd.grad(scalar(r), wanted, allow_unused=True, materialize_grads=True)
        for r in (plain, blocks)
    ]
    for a, b in zip([*plain, *found[0]], [*blocks, *found[1]], strict=True):
        torch.testing.assert_close(a, b)


def test_only_what_is_asked_for_has_a_gradient():
    inputs, weights, *rest = case(**CASES["all"])
    bare = EdgeInputs(*(None if t is None else t.detach() for t in inputs))
    results = blocked_sums(bare, weights, *rest)
    (slope,) = torch.autograd.grad(scalar(results), weights.out)
    torch.testing.assert_close(slope, torch.autograd.grad(
        scalar(edge_sums(bare, weights, *rest)), weights.out
    )[0])  # fmt: skip


def test_without_gradients_a_block_is_all_that_is_there():
    arguments = case(edges=700)
    with torch.no_grad():
        peak = peak_megabytes(lambda: blocked_sums(*arguments), "cpu")
        plain = peak_megabytes(lambda: edge_sums(*arguments), "cpu")
    geometry = 700 * (3 + 3 + 1 + 3 + 2) * 8 / 1e6
    assert peak < geometry + 0.02 < plain - 700 * 6 * 8 / 1e6


def test_recomputing_keeps_nothing_of_edges_by_channels():
    arguments = case(**CASES["all"])
    sums = {}
    for recompute in (False, True):
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t
        ):
            blocked_sums(*arguments, recompute)
        sums[recompute] = sum(kept)
    assert sums[False] - sums[True] == 2 * EDGES * (5 + 6 + 4)


OPTIONS = {"cutoff": 4.0, "attention": True, "radial": 6}


@pytest.fixture
def calls(monkeypatch):
    """How often blocks were used."""
    from egnn_prune.models import egnn_layer

    found = []

    def counted(*arguments):
        found.append(arguments[-1])
        return blocked_sums(*arguments)

    monkeypatch.setattr(egnn_layer, "blocked_sums", counted)
    return found


def test_the_network_uses_blocks_where_they_pay(make_egnn, make_batch, assert_close, calls):
    model, batch = make_egnn(**OPTIONS), make_batch(6, 5)
    out = model(batch)
    assert calls == [False, False]  # one a layer
    plain = copy.deepcopy(model)
    for layer in plain.layers:
        layer.edge_out.register_forward_hook(lambda *_: None)  # a watched layer shows all edges
    all_at_once = plain(batch)
    assert_close(out.x, all_at_once.x)
    assert_close(out.pos, all_at_once.pos)
    recompute_messages(model)(batch)
    assert calls == [False, False, True, True]
    recompute_messages(model, False)(batch)
    assert calls[4:] == [False, False]


def test_gates_and_training_on_forces_see_all_edges(make_egnn, make_batch, calls):
    batch, thinned = make_batch(6, 5), make_egnn(**OPTIONS, dropout=0.5)
    thinned.train()(batch)
    assert not calls
    thinned.eval()(batch)
    assert len(calls) == 2
    model = make_egnn(**OPTIONS).train()
    moving = copy.copy(batch)
    moving.pos = batch.pos.clone().requires_grad_()
    model(moving)
    assert len(calls) == 2
    model.eval()(moving)
    assert len(calls) == 4


def test_blocks_do_not_pay_for_few_edges():
    inputs, weights, _, source, _ = case()
    assert pays(inputs, weights, source)
    assert not pays(inputs, weights, source[: 2 * block_edges(weights) - 1])
    half = inputs._replace(to_target=inputs.to_target.bfloat16())
    assert not pays(half, weights, source)
    with torch.autocast("cpu"):
        assert not pays(inputs, weights, source)


def test_many_edge_lists_at_once():
    """Under vmap over the edges, of nodes that are not batched."""
    model = EGNN(3, 4, 1, aggregation="mean")
    x, pos, graph = torch.rand(4, 3), torch.rand(4, 3), torch.zeros(4, dtype=torch.long)
    lists = torch.tensor([[[1, 0, 3], [0, 1, 2]], [[2, 3, 0], [1, 2, 3]]])
    together = torch.vmap(lambda edges: model.features(x, pos, edges, graph)[0])(lists)
    for found, edges in zip(together, lists, strict=True):
        torch.testing.assert_close(found, model.features(x, pos, edges, graph)[0])
