"""Neighbour lists against brute force, and copies of batches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch_geometric.data import Data

from egnn_prune.errors import DataError
from egnn_prune.graphs import (
    complete_edges,
    cutoff_edges,
    has_values,
    replicate,
    tracing,
    with_edges,
)


def brute_force(pos: torch.Tensor, graph: torch.Tensor, cutoff: float) -> set[tuple[int, int]]:
    return {
        (i, j)
        for i in range(len(pos))
        for j in range(len(pos))
        if i != j and graph[i] == graph[j] and (pos[i] - pos[j]).norm() < cutoff
    }


def pairs(edge_index: torch.Tensor) -> set[tuple[int, int]]:
    found = list(map(tuple, edge_index.T.tolist()))
    assert len(found) == len(set(found)), "an edge appears twice"
    return set(found)


def assert_sorted_by_target(edge_index: torch.Tensor) -> None:
    assert (edge_index[1].diff() >= 0).all()


@pytest.mark.parametrize("sizes", [(1,), (2,), (5, 1, 1, 7), (3, 0, 4), (30, 2)])
def test_complete_edges(sizes):
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    graph = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    edges = complete_edges(ptr)
    assert_sorted_by_target(edges)
    assert pairs(edges) == brute_force(torch.zeros(len(graph), 3), graph, 1.0)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("cutoff", [0.3, 1.5, 4.0, 100.0])
def test_cutoff_edges(make_batch, n, cutoff):
    batch = make_batch(1, 2, 25, 6, n=n)
    edges = with_edges(batch, cutoff).edge_index
    assert_sorted_by_target(edges)
    assert pairs(edges) == brute_force(batch.pos.double(), batch.batch, cutoff)


def test_cutoff_edges_see_flat_and_negative_clouds(dtype):
    pos = torch.tensor([[-5.0, -5, 0], [-5, -4, 0], [5, 5, 0]], dtype=dtype)
    assert pairs(cutoff_edges(pos, 1.2)) == {(0, 1), (1, 0)}


@pytest.mark.filterwarnings("ignore::egnn_prune.errors.SuspiciousDataWarning")
def test_cutoff_edges_connect_coincident_points(dtype):
    pos = torch.zeros(3, 3, dtype=dtype)
    assert len(pairs(cutoff_edges(pos, 1.0))) == 6


def test_nobody_within_the_cutoff(make_egnn, make_batch):
    batch = make_batch(1, 4)
    batch.pos *= 1000
    out = make_egnn(cutoff=1.0)(batch)
    assert out.x.isfinite().all()
    assert torch.equal(out.pos, batch.pos)


def test_cutoff_has_no_four_dimensions(make_egnn, make_batch):
    with pytest.raises(DataError, match="up to 3 dimensions, not 4"):
        make_egnn(cutoff=2.0)(make_batch(4, n=4))


def test_given_edges_are_kept(make_batch):
    batch = make_batch(3, edge_features=1)
    batch.edge_index = batch.edge_index[:, :2]
    assert with_edges(batch, None).edge_index is batch.edge_index


@pytest.mark.parametrize("edge_features", [0, 2])
def test_replicate_equals_separate_calls(make_egnn, make_batch, assert_close, edge_features):
    model = make_egnn(edge_features=edge_features, velocity=True)
    batch = make_batch(1, 4, 6, edge_features=edge_features)
    copies, once = model(replicate(batch, 3)), model(batch)
    for key in ("x", "pos", "vel"):
        assert_close(copies[key], torch.cat([once[key]] * 3))
    assert torch.equal(copies.ptr, torch.tensor([0, 1, 5, 11, 12, 16, 22, 23, 27, 33]))
    sizes = torch.tensor([1, 4, 6] * 3)
    assert torch.equal(copies.batch, torch.arange(9).repeat_interleave(sizes))
    assert torch.equal(copies.y, batch.y.repeat(3))


def test_replicate_a_single_graph(make_egnn, make_batch, assert_close):
    batch = make_batch(5)
    single = Data(x=batch.x, pos=batch.pos)
    copies = replicate(single, 2)
    assert copies.batch.tolist() == [0] * 5 + [1] * 5
    assert_close(make_egnn()(copies).x, make_egnn()(single).x.repeat(2, 1))


def test_one_copy_is_the_batch_itself(make_batch):
    batch = make_batch(2)
    assert replicate(batch, 1) is batch


def test_values_are_not_read_while_a_program_is_made():
    """In the thread that makes it, and no longer than that."""
    wrong = Data(pos=torch.zeros(2, 3), edge_index=torch.tensor([[0], [7]]))
    with pytest.raises(RuntimeError, match="the maker fails"), tracing():
        assert not has_values() and with_edges(wrong, None) is wrong
        with ThreadPoolExecutor() as other:
            assert other.submit(has_values).result()
        raise RuntimeError("the maker fails")
    assert has_values()
    with pytest.raises(DataError, match="edge_index names node 7"):
        with_edges(wrong, None)
