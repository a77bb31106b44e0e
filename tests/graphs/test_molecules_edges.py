"""All molecules of a batch at once have the edges that each has on its own."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data

from egnn_prune.errors import DataError
from egnn_prune.graphs import edges, neighbours, pairs, with_edges

SIZES = (1, 7, 2, 19, 1, 5)


def batch_of(*sizes, n=3, dtype=torch.float64, spread=3.0):
    generator = torch.Generator().manual_seed(0)
    places = [spread * torch.rand(k, n, generator=generator, dtype=torch.float64) for k in sizes]
    return Batch.from_data_list([Data(pos=(place + 50).to(dtype)) for place in places])


def one_by_one(batch, cutoff):
    parts = [neighbours(graph.pos, cutoff)[0] for graph in batch.to_data_list()]
    found = [part + start for part, start in zip(parts, batch.ptr, strict=False)]
    return torch.cat(found, dim=1), [part.shape[1] for part in parts]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("cutoff", [1e-3, 0.7, 1.5, 4.0, 1e6])
def test_at_once_is_one_by_one(dtype, n, cutoff):
    batch = batch_of(*SIZES, n=n, dtype=dtype)
    assert pairs.molecules_edges(batch.pos, batch.ptr, cutoff) is not None
    expected, counts = one_by_one(batch, cutoff)
    found = with_edges(batch, cutoff)
    assert torch.equal(found.edge_index, expected)
    assert found.listed_for.tolist() == [[cutoff, float(count)] for count in counts]
    alone = Data(pos=batch.pos[1:8])  # without ptr
    assert torch.equal(with_edges(alone, cutoff).edge_index, neighbours(alone.pos, cutoff)[0])


def test_a_pair_at_the_cutoff_has_no_edge():
    batch = Batch.from_data_list([Data(pos=torch.tensor([[0.0, 0, 0], [2.0, 0, 0]]))])
    assert with_edges(batch, 2.0).edge_index.shape == (2, 0)
    assert with_edges(batch, 2.0 + 1e-12).edge_index.tolist() == [[1, 0], [0, 1]]


def test_large_graphs_are_searched(monkeypatch):
    monkeypatch.setattr(pairs, "SMALL", 18)
    batch = batch_of(*SIZES)
    assert pairs.molecules_edges(batch.pos, batch.ptr, 1.5) is None
    assert torch.equal(with_edges(batch, 1.5).edge_index, one_by_one(batch, 1.5)[0])
    monkeypatch.setattr(pairs, "SMALL", 19)
    assert pairs.molecules_edges(batch.pos, batch.ptr, 1.5) is not None
    monkeypatch.setattr(pairs, "MANY", sum(k * k for k in SIZES) - 1)
    assert pairs.molecules_edges(batch.pos, batch.ptr, 1.5) is None


def test_periodic_graphs_are_searched(monkeypatch):
    monkeypatch.setattr(edges, "molecules_edges", lambda *_: pytest.fail("these are crystals"))
    cell = {"cell": 3.0 * torch.eye(3).reshape(1, 3, 3), "pbc": torch.ones(1, 3, dtype=torch.bool)}
    batch = Batch.from_data_list([Data(pos=torch.rand(3, 3), **cell) for _ in range(2)])
    assert with_edges(batch, 2.0).edge_shift is not None


@pytest.mark.parametrize(
    ("node", "change", "cutoff", "message"),
    [
        (0, torch.nan, 2.0, "graph 0 of the batch: a node has a NaN or infinite position"),
        (15, torch.nan, 2.0, "graph 3 of the batch: a node has a NaN or infinite position"),
        (15, torch.inf, 2.0, "graph 3 of the batch: a node has a NaN or infinite position"),
        (15, 1e9, 2.0, r"graph 3 of the batch: the positions spread over 1e\+09"),
        (15, 0.0, 0.0, "the cutoff must be a length of at least"),
        (15, 0.0, float("inf"), "the cutoff must be a length of at least"),
    ],
)
def test_what_is_refused_keeps_its_words(node, change, cutoff, message):
    batch = batch_of(*SIZES)
    batch.pos[node, 0] += change
    with pytest.raises(DataError, match=message):
        with_edges(batch, cutoff)


@pytest.mark.parametrize("cutoff", ["2", None, torch.tensor(2.0)])
def test_a_cutoff_that_is_no_number_is_refused_alike(cutoff):
    batch = batch_of(*SIZES)
    assert pairs.molecules_edges(batch.pos, batch.ptr, cutoff) is None


def test_more_than_three_dimensions_are_refused():
    with pytest.raises(DataError, match="up to 3 dimensions, not 4"):
        with_edges(batch_of(3, 4, n=4), 2.0)
