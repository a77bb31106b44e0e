"""What an EGNN computes: the paper's layer, batches, coincident points, bad input."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch_geometric.data import Batch, Data

from egnn_prune.errors import ConfigError, DataError, InputError, SuspiciousDataWarning
from egnn_prune.graphs import complete_edges
from egnn_prune.models import EGNN, EGNNOptions, LayerWidths
from egnn_prune.testing.textbook import TextbookEGNN


@pytest.mark.parametrize("edge_features", [0, 3])
@pytest.mark.parametrize("moves", ["sum", "mean"])
def test_equals_the_textbook(make_egnn, make_batch, assert_close, dtype, edge_features, moves):
    model = make_egnn(layers=3, edge_features=edge_features, position_aggregation=moves)
    batch = make_batch(1, 2, 7, 12, edge_features=edge_features)
    attr = batch.edge_attr if edge_features else None
    h, pos = TextbookEGNN(model)(batch.x, batch.pos, complete_edges(batch.ptr), attr)
    out = model(batch)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert_close(out.x, h, tolerance)
    assert_close(out.pos, pos, tolerance)
    assert_close(out.pos - batch.pos, pos - batch.pos, 10 * tolerance)


def test_gradients_equal_the_textbook(make_egnn, make_batch, assert_close, tolerance):
    model, batch = make_egnn(position_aggregation="sum"), make_batch(5, 8)
    textbook = TextbookEGNN(model)
    h, pos = textbook(batch.x, batch.pos, complete_edges(batch.ptr))
    (h.square().sum() + pos.square().sum()).backward()
    out = model(batch)
    (out.x.square().sum() + out.pos.square().sum()).backward()
    for layer, theirs in zip(model.layers, textbook.layers, strict=True):
        assert_close(layer.edge_in.weight.grad, theirs.phi_e[0].weight.grad, 10 * tolerance)
        assert_close(layer.position_out.weight.grad, theirs.phi_x[2].weight.grad, 10 * tolerance)
        assert_close(layer.node_out.weight.grad, theirs.phi_h[2].weight.grad, 10 * tolerance)


@pytest.mark.parametrize(
    "options",
    [{"velocity": True, "attention": True}, {"cutoff": 3.0, "aggregation": "mean"}],
    ids=["velocity attention", "cutoff"],
)
def test_batch_equals_graphs_one_by_one(make_egnn, make_batch, assert_close, options):
    model, batch = make_egnn(**options), make_batch(1, 4, 9, 2)
    together = model(batch)
    alone = [model(graph) for graph in batch.to_data_list()]
    for key in ("x", "pos", "vel"):
        assert_close(together[key], torch.cat([out[key] for out in alone]))


def test_single_data_needs_no_batch_vector(make_egnn, make_batch, assert_close):
    model, batch = make_egnn(), make_batch(6)
    assert_close(model(Data(x=batch.x, pos=batch.pos)).x, model(batch).x)


def test_batch_vector_without_pointer(make_egnn, make_batch, assert_close):
    model, batch = make_egnn(), make_batch(3, 5)
    bare = Data(x=batch.x, pos=batch.pos, batch=batch.batch)
    assert_close(model(bare).x, model(batch).x)


def test_edges_in_any_order_give_the_same(make_egnn, make_batch, assert_close):
    model, batch = make_egnn(edge_features=2), make_batch(4, 6, edge_features=2)
    order = torch.randperm(batch.edge_index.shape[1])
    shuffled = copy.copy(batch)
    shuffled.edge_index, shuffled.edge_attr = batch.edge_index[:, order], batch.edge_attr[order]
    assert_close(model(shuffled).x, model(batch).x)


def test_far_origin_costs_no_accuracy(make_batch):
    """Positions in float64 a million lengths away, a network in float32."""
    model, batch = EGNN(5, 16, 2), make_batch(6)
    batch.x, batch.pos = batch.x.float(), batch.pos.double()
    here = model(batch).x
    batch.pos = batch.pos + 1e6
    assert torch.allclose(model(batch).x, here, rtol=1e-5, atol=1e-6)


def test_input_is_not_changed(make_egnn, make_batch):
    batch = make_batch(3, 4)
    before = {k: v.clone() for k, v in batch.to_dict().items()}
    out = make_egnn(velocity=True)(batch)
    assert out is not batch
    assert set(batch.to_dict()) == set(before)
    assert all(torch.equal(batch[k], v) for k, v in before.items())


def coincident(make_batch) -> Batch:
    batch = make_batch(4)
    batch.pos[2] = batch.pos[1]
    return batch


@pytest.mark.filterwarnings("ignore::egnn_prune.errors.SuspiciousDataWarning")
@pytest.mark.parametrize(
    "options",
    [{}, {"radial": 6}, {"cutoff": 3.0, "attention": True}, {"normalise": False}],
    ids=["paper", "radial", "cutoff", "raw"],
)
def test_coincident_points_have_exact_gradients(make_egnn, make_batch, dtype, options):
    # a smoothing length of the size of the steps: central differences must resolve it
    model, batch = make_egnn(eps=0.05, **options), coincident(make_batch)

    def value(pos):
        moved = copy.copy(batch)
        moved.pos = pos
        out = model(moved)
        return out.x.sum() + out.pos.square().sum()

    pos = batch.pos.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(pos), pos)
    assert gradient.isfinite().all()
    if dtype != torch.float64:
        return
    step = 2e-6
    for node in range(len(pos)):
        for axis in range(3):
            shift = torch.zeros_like(batch.pos)
            shift[node, axis] = step
            with torch.no_grad():
                slope = (value(batch.pos + shift) - value(batch.pos - shift)) / (2 * step)
            assert gradient[node, axis] == pytest.approx(float(slope), rel=2e-4, abs=1e-5)


@pytest.mark.filterwarnings("ignore::egnn_prune.errors.SuspiciousDataWarning")
@pytest.mark.parametrize("options", [{}, {"radial": 6}, {"cutoff": 3.0}])
def test_coincident_points_have_finite_second_derivatives(make_egnn, make_batch, options):
    model, batch = make_egnn(**options), coincident(make_batch)
    batch.pos.requires_grad_()
    (slope,) = torch.autograd.grad(model(batch).x.sum(), batch.pos, create_graph=True)
    slope.square().sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)


def test_coincident_points_warn_once(make_egnn, make_batch):
    model, batch = make_egnn(), coincident(make_batch)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # what Python does with a user's script
        for _ in range(3):
            assert model(batch).x.isfinite().all()
    assert [w.category for w in caught] == [SuspiciousDataWarning]


def without(batch: Batch, key: str) -> Batch:
    out = copy.copy(batch)
    del out[key]
    return out


def with_entry(batch: Batch, key: str, value: object) -> Batch:
    out = copy.copy(batch)
    out[key] = value
    return out


def poisoned(batch: Batch, value: float) -> Batch:
    pos = batch.pos.clone()
    pos[4, 1] = value
    return with_entry(batch, "pos", pos)


def empty_second(batch: Batch) -> Batch:
    return with_entry(batch, "ptr", torch.tensor([0, 3, 3, 7]))


BAD_BATCHES = {
    "nan": (lambda b: poisoned(b, float("nan")), "node 4 of graph 1 has a NaN"),
    "infinite": (lambda b: poisoned(b, float("inf")), "node 4 of graph 1 has a NaN or infinite"),
    "one axis": (lambda b: with_entry(b, "pos", b.pos[:, 0]), "positions must be a floating"),
    "integers": (lambda b: with_entry(b, "pos", b.pos.long()), "positions must be a floating"),
    "no positions": (lambda b: without(b, "pos"), "positions must be a floating"),
    "too few": (lambda b: with_entry(b, "pos", b.pos[:5]), "must agree"),
    "empty graph": (empty_second, "graph 1 is empty"),
    "no features": (lambda b: without(b, "x"), "batch.x"),
    "wrong features": (lambda b: with_entry(b, "x", b.x[:, :2]), "batch.x"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD_BATCHES.values(), ids=BAD_BATCHES.keys())
def test_bad_batch(make_egnn, make_batch, spoil, message):
    with pytest.raises(DataError, match=message) as caught:
        make_egnn()(spoil(make_batch(3, 4)))
    assert isinstance(caught.value, InputError | ValueError)
    assert "\n" not in str(caught.value)


def test_no_nodes_at_all(make_egnn, dtype):
    with pytest.raises(DataError, match="no nodes"):
        make_egnn()(Data(x=torch.zeros(0, 5, dtype=dtype), pos=torch.zeros(0, 3, dtype=dtype)))


def test_promised_attributes_must_be_there(make_egnn, make_batch):
    batch = make_batch(3, 4)
    with pytest.raises(DataError, match=r"batch\.vel"):
        make_egnn(velocity=True)(without(batch, "vel"))
    with pytest.raises(DataError, match=r"batch\.edge_attr"):
        make_egnn(edge_features=2)(batch)


BAD_OPTIONS = {
    "aggregation": ({"aggregation": "max"}, "'sum' or 'mean'"),
    "positions": ({"position_aggregation": "none"}, "'sum' or 'mean'"),
    "dropout": ({"dropout": 1.0}, "dropout must lie in"),
    "cutoff": ({"cutoff": 0.0}, "cutoff must be a positive length"),
    "eps": ({"eps": 0.0}, "eps must be a positive length"),
    "velocity": ({"velocity": True, "update_positions": False}, "needs update_positions"),
    "unknown": ({"attenton": True}, "no option 'attenton'"),
    "both": ({"options": EGNNOptions(), "attention": True}, "not both"),
    "no width": ({"hidden": 0}, "at least one"),
    "no layers": ({"layers": 0}, "at least one"),
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
def test_bad_option(options, message):
    with pytest.raises(ConfigError, match=message):
        EGNN(5, **options)


def test_architecture_builds_the_same_network(make_egnn):
    model = make_egnn(attention=True, cutoff=3.0, radial=4)
    again = EGNN.from_config(model.config())
    again.load_state_dict(model.state_dict())
    assert again.options == model.options
    assert again.widths == [LayerWidths.uniform(16)] * 2
