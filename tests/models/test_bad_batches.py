"""Batches used wrongly: sorted out or refused in one sentence, never other numbers in silence."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data

from egnn_prune.data.store import add_neighbours
from egnn_prune.errors import DataError
from egnn_prune.graphs import neighbours, with_edges
from egnn_prune.models import energy_forces_stress
from egnn_prune.uncertainty import SinglePass

CUTOFF = 4.0


@pytest.fixture
def model(make_property_model):
    return make_property_model(cutoff=CUTOFF, update_positions=False)


@pytest.fixture
def graphs(dtype) -> list[Data]:
    return [
        Data(z=torch.tensor([8, 1, 1, 6, 6])[:n], pos=2.5 * torch.randn(n, 3, dtype=dtype))
        for n in (5, 3)
    ]


def given(batch: Batch, cutoff: float = CUTOFF) -> Batch:
    """The batch with a list that says nothing of itself."""
    out = batch.clone()
    out.edge_index = with_edges(batch, cutoff).edge_index
    return out


def refused(model, batch, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        SinglePass(model).predict(batch)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


@pytest.mark.parametrize(
    ("index", "word"),
    [
        ([0, 1, 0, 1, 0, 1, 0, 0], "order"),
        ([1] * 5 + [2] * 3, "0, 1, 2"),
        ([0] * 5 + [2] * 3, "gaps"),
        ([-1] * 5 + [0] * 3, "0, 1, 2"),
    ],
)
def test_batch_vectors(model, graphs, index, word):
    batch = Batch.from_data_list(graphs)
    made = Data(z=batch.z, pos=batch.pos, batch=batch.batch)
    assert torch.equal(model(made).mean, model(batch).mean)
    made.batch = torch.tensor(index)
    refused(model, made, "batch.batch", word)
    made.batch = batch.batch.double()
    refused(model, made, "whole number")
    made.batch, made.ptr = batch.batch, torch.tensor([0, 4, 8])
    refused(model, made, "disagree")
    del made.batch
    refused(model, made, "beside ptr")


def broken_edges(edges: torch.Tensor) -> dict[str, tuple[torch.Tensor, str]]:
    loop = torch.tensor([[2], [2]])
    across = torch.tensor([[0, 6], [6, 0]])
    return {
        "duplicate": (torch.cat([edges, edges[:, :1]], 1), "more than once"),
        "both twice": (edges.repeat(1, 2), "more than once"),
        "one direction": (edges[:, edges[0] < edges[1]], "one direction"),
        "loop": (torch.cat([edges, loop], 1), "to itself"),
        "across": (torch.cat([edges, across], 1), "two graphs"),
        "too high": (torch.cat([edges, loop + 97], 1), "node 99"),
        "negative": (torch.cat([edges, loop - 3], 1), "node -1"),
        "float": (edges.double(), "torch.long"),
        "transposed": (edges.T.contiguous(), "[2, edges]"),
        "one graph's only": (edges[:, edges[0] < 5], "graph 1 of the batch has no edges"),
    }


@pytest.mark.parametrize("kind", list(broken_edges(torch.tensor([[0, 1], [1, 0]]))))
def test_edges_of_a_user(model, graphs, kind):
    batch = given(Batch.from_data_list(graphs))
    batch.edge_index, word = broken_edges(batch.edge_index)[kind]
    refused(model, batch, word)


def test_right_edges_of_a_user(model, graphs, assert_close):
    batch = Batch.from_data_list(graphs)
    expected = model(batch).mean
    own = given(batch)
    assert_close(model(own).mean, expected)
    own.edge_index = own.edge_index[:, torch.randperm(own.edge_index.shape[1])]
    assert_close(model(own).mean, expected)
    longer = given(batch, 2 * CUTOFF)  # what lies beyond the cutoff does not count
    assert_close(model(longer).mean, expected)
    own.edge_index = own.edge_index[:, :0]  # an empty list is no list
    assert_close(model(own).mean, expected)


@pytest.mark.parametrize("listed", [2.0, CUTOFF, 6.0])
def test_lists_say_for_which_cutoff_they_were_made(model, graphs, listed, assert_close):
    expected = model(Batch.from_data_list(graphs)).mean
    add_neighbours(graphs, listed)
    batch = Batch.from_data_list(graphs)
    assert_close(model(batch).mean, expected)
    kept = torch.equal(model.prepared(batch).edge_index, batch.edge_index)
    assert kept == (listed >= CUTOFF)


def test_lists_say_for_which_positions_they_were_made(model, graphs, assert_close):
    add_neighbours(graphs, CUTOFF)
    batch = Batch.from_data_list(graphs)
    prepared = model.prepared(batch)
    moved = 0.4 * batch.pos  # nearer, so that the old list lacks pairs
    new = Batch(pos=moved, batch=batch.batch, ptr=batch.ptr)
    assert with_edges(new, CUTOFF).edge_index.shape[1] > batch.edge_index.shape[1]
    expected = model(Batch(z=batch.z, pos=moved, batch=batch.batch, ptr=batch.ptr)).mean
    assert (model(batch).mean - expected).abs().max() > 1e-4
    for stale in (batch, prepared):
        stale.pos = moved.clone()
        assert_close(model(stale).mean, expected)
    graphs[0].pos *= 0.4  # in place, too
    graphs[1].pos *= 0.4
    assert_close(model(Batch.from_data_list(graphs)).mean, expected)


def test_lists_say_for_which_cell_they_were_made(model, graphs, dtype, assert_close):
    for graph in graphs:
        graph.cell = 5.0 * torch.eye(3, dtype=dtype)[None]
        graph.pbc = torch.ones(1, 3, dtype=torch.bool)
    add_neighbours(graphs, CUTOFF)
    batch = Batch.from_data_list(graphs)
    own = Batch.from_data_list(graphs)
    for name in ("listed_at", "listed_for", "listed_in"):
        del own[name]
    assert_close(model(own).mean, model(batch).mean)
    cell = 1.1 * batch.cell
    expected = model(
        Batch(z=batch.z, pos=batch.pos, batch=batch.batch, ptr=batch.ptr, cell=cell, pbc=batch.pbc)
    ).mean
    batch.cell = own.cell = cell
    assert_close(model(batch).mean, expected)
    refused(model, own, "whole number of lattice vectors")
    half = Batch.from_data_list(graphs)
    keep = torch.ones(half.edge_index.shape[1], dtype=torch.bool)
    keep[0] = False
    half.edge_index, half.edge_shift = half.edge_index[:, keep], half.edge_shift[keep]
    refused(model, half, "one direction")


def test_atoms(model, graphs):
    graph = graphs[0]
    refused(model, Data(z=graph.z > 0, pos=graph.pos), "whole numbers", "bool")
    refused(model, Data(z=graph.z, pos=graph.pos[:, :2]), "3 dimensions, not 2")


def test_what_is_no_batch(model, graphs):
    refused(model, [], "empty list", "from_data_list")
    refused(model, graphs, "not list", "from_data_list")
    refused(model, graphs[0].pos, "not Tensor")


def test_far_atoms_are_searched_or_refused(dtype):
    for far in (1e2, 1e4, 3e4):
        pos = torch.tensor([[0.0, 0, 0], [1, 0, 0], [far, far, 0]], dtype=dtype)
        assert neighbours(pos, 5.0)[0].tolist() == [[1, 0], [0, 1]]
    for far in (1e7, 1e30):
        pos[2, 2] = far
        with pytest.raises(DataError, match=r"spread over .* \(node 2 lies farthest\)"):
            neighbours(pos, 5.0)
    data = Data(pos=pos.double())
    data.pos[2, 2] = 1e308
    with pytest.raises(DataError, match=r"graph 0 of the batch: the positions spread"):
        with_edges(data, 5.0)


@pytest.mark.parametrize("pbc", [(True,) * 3, (True, True, False)])
def test_wide_cells_are_searched(dtype, pbc):
    """Thin and wide cells have more boxes than the search can count."""
    cell = torch.diag(torch.tensor([6.0, 2000, 2000], dtype=dtype))
    pos = torch.tensor([[0.5, 1, 1], [0.5, 1, 2], [0.5, 1000, 1000]], dtype=dtype)
    edges, shift = neighbours(pos, 3.0, cell, torch.tensor(pbc))
    assert edges.tolist() == [[1, 0], [0, 1]] and not shift.any()


@pytest.mark.parametrize(
    ("cutoff", "size", "word"),
    [(5.0, 1e-3, "neighbours"), (1e9, 4.0, "neighbours"), (5.0, None, "neighbours")],
    ids=["tiny cell", "long cutoff", "flat cell"],
)
def test_searches_that_would_not_end(dtype, cutoff, size, word):
    sides = torch.tensor([1e-3, 4, 4] if size is None else [size] * 3, dtype=dtype)
    pos = torch.rand(8, 3, dtype=dtype)
    with pytest.raises(DataError, match=word):
        neighbours(pos, cutoff if size else 40.0, torch.diag(sides))


def test_cutoffs(dtype):
    pos = torch.rand(8, 3, dtype=dtype)
    assert neighbours(pos, 1e9)[0].shape == (2, 56)
    for cutoff in (0.0, -1.0, float("nan"), float("inf"), 1e-9):
        with pytest.raises(DataError, match="the cutoff must be a length"):
            neighbours(pos, cutoff)
    with pytest.raises(DataError, match="pairs within the cutoff"):
        neighbours(torch.rand(9000, 3, dtype=dtype), 5.0)
    with pytest.raises(DataError, match="use a model with a cutoff"):
        with_edges(Data(pos=torch.rand(9000, 3, dtype=dtype)), None)


@pytest.mark.parametrize("prepared", [False, True])
def test_stress_follows_moved_positions(model, graphs, dtype, assert_close, prepared):
    """The strain moves the shifts of the edges: old ones would leave new edges unstrained."""
    for graph in graphs:
        graph.cell = 5.0 * torch.eye(3, dtype=dtype)[None]
    fresh = Batch.from_data_list(graphs)
    fresh.pos = 0.4 * fresh.pos
    add_neighbours(graphs, CUTOFF)
    stale = Batch.from_data_list(graphs)
    if prepared:
        stale = model.prepared(stale)
    stale.pos = fresh.pos.clone()
    for found, right in zip(
        energy_forces_stress(model, stale)[1:], energy_forces_stress(model, fresh)[1:], strict=True
    ):
        assert right.abs().max() > 0
        assert_close(found, right, 1e-4 if dtype == torch.float32 else 1e-10)


def test_a_found_list_that_was_changed_afterwards(model, graphs):
    """Also where the number of edges stayed the same."""
    found = with_edges(graphs[0], CUTOFF)
    found.edge_index = found.edge_index.clone()
    found.edge_index[0, 0] = 99
    with pytest.raises(DataError, match="names node 99"):
        with_edges(found, CUTOFF)
