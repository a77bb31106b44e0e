"""Fast batches hold what PyG's hold, field by field, and draw what PyG's loader draws."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from egnn_prune import data
from egnn_prune.data.collation import _concatenated, collate, draw_as_a_loader, held, loader
from egnn_prune.data.dataset import GraphDataset
from egnn_prune.graphs import complete_edges


def molecules(cutoff: float | None = 3.0) -> list[Data]:
    dataset: GraphDataset = data.load("xtb").limited(10).with_cutoff(cutoff)
    return list(dataset.split("train"))


def particles(sizes=(5, 5, 5)) -> list[Data]:
    return [
        Data(
            edge_index=complete_edges(torch.tensor([0, n])),
            x=torch.randn(n, 1),
            pos=torch.randn(n, 3, dtype=torch.float64),
            edge_attr=torch.randn(n * (n - 1), 1),
            y=torch.randn(n, 3),
        )
        for n in sizes
    ]


def crystals() -> list[Data]:
    """Periodic, one of them without any edge."""
    found = []
    for n, edges in ((2, 3), (1, 0), (3, 4)):
        found.append(
            Data(
                z=torch.full((n,), 6),
                pos=torch.randn(n, 3),
                cell=torch.eye(3)[None] * 4,
                pbc=torch.tensor([[True, False, True]]),
                edge_index=torch.randint(n, (2, edges)),
                edge_shift=torch.randn(edges, 3),
                spin=torch.arange(2 * n).reshape(n, 2),
                half=torch.randn(1, 2, 2, dtype=torch.bfloat16),
            )
        )
    return found


def named() -> list[Data]:
    """With fields that PyG joins in other ways than by concatenation."""
    return [
        Data(pos=torch.randn(n, 3), name=f"graph {n}", charge=n, weight=torch.tensor(0.5))
        for n in (2, 1)
    ]


class Pairs(Data):
    """Graphs with a rule of their own."""

    def __inc__(self, key, value, *args):
        return 7 if key == "partner" else super().__inc__(key, value, *args)


def pairs() -> list[Data]:
    return [Pairs(pos=torch.randn(n, 3), partner=torch.arange(n)) for n in (2, 3)]


PLAIN = {
    "molecules": molecules,
    "all pairs": lambda: molecules(None),
    "particles": particles,
    "of several sizes": lambda: particles((3, 1, 4)),
    "crystals": crystals,
    "one": lambda: particles((4,)),
    "without edges": lambda: [Data(pos=torch.randn(n, 2)) for n in (1, 3)],
}
ODD = {
    "named": named,
    "pairs": pairs,
    "counted": lambda: [Data(pos=torch.randn(2, 3), num_nodes=2) for _ in range(2)],
    "without positions": lambda: [Data(x=torch.randn(n, 2)) for n in (2, 3)],
    "short indices": lambda: [
        Data(pos=torch.randn(2, 3), edge_index=torch.tensor([[0], [1]], dtype=torch.int32))
        for _ in range(2)
    ],
    "more nodes in x": lambda: [Data(x=torch.randn(3, 2), pos=torch.randn(2, 3)) for _ in "ab"],
    "batches": lambda: [Batch.from_data_list(particles((n,))) for n in (2, 3)],
    "a field more": lambda: [
        Data(pos=torch.ones(1, 3)),
        Data(pos=torch.ones(2, 3), z=torch.ones(2)),
    ],
}


def assert_equal(found: object, expected: object) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for name in expected:
            assert_equal(found[name], expected[name])
    else:
        assert found == expected


@pytest.mark.parametrize("make", [*PLAIN.values(), *ODD.values()], ids=[*PLAIN, *ODD])
def test_equal_to_pyg(make):
    graphs = make()
    before = copy.deepcopy(graphs)
    found, expected = collate(graphs), Batch.from_data_list(before)
    assert_equal(found.to_dict(), expected.to_dict())
    assert type(found).__name__ == type(expected).__name__
    for name in ("num_graphs", "num_nodes", "num_edges", "batch_size"):
        assert getattr(found, name) == getattr(expected, name)
    assert_equal(dict(found._slice_dict), dict(expected._slice_dict))
    assert_equal(dict(found._inc_dict), dict(expected._inc_dict))
    for one, again, old in zip(found.to_data_list(), expected.to_data_list(), before, strict=True):
        assert_equal(one.to_dict(), again.to_dict())
        if make in PLAIN.values():
            assert_equal(one.to_dict(), old.to_dict())
    for graph, old in zip(graphs, before, strict=True):  # nothing was changed in place
        assert_equal(graph.to_dict(), old.to_dict())


@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN)
def test_plain_graphs_take_the_fast_path(make):
    assert _concatenated(make()) is not None


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_others_are_left_to_pyg(make):
    graphs = make()
    assert (_concatenated(graphs) is None) == (make is not ODD["a field more"])


def test_graphs_that_do_not_fit_together_are_refused_as_before():
    graphs = [Data(pos=torch.ones(1, 3), z=torch.ones(1)), Data(pos=torch.ones(2, 3))]
    with pytest.raises(KeyError):
        Batch.from_data_list(graphs)
    with pytest.raises(KeyError):
        collate(graphs)


def test_two_batches_share_nothing():
    first, second = collate(particles()), collate(particles())
    first.extra = torch.ones(3)
    assert "extra" not in second
    again = pickle.loads(pickle.dumps(first))
    assert_equal(again.to_dict(), first.to_dict())


@pytest.mark.parametrize("keywords", [{}, {"shuffle": True}, {"shuffle": True, "drop_last": True}])
def test_the_loader_draws_what_pygs_draws(keywords):
    graphs = particles((1, 2, 3, 4, 5))
    passes = []
    for make in (loader, DataLoader):
        torch.manual_seed(5)
        batches = make(graphs, 2, **keywords)
        passes.append(([b.to_dict() for _ in "ab" for b in batches], torch.rand(1)))
    (found, after), (expected, then) = passes
    assert torch.equal(after, then)
    for one, other in zip(found, expected, strict=True):
        assert_equal(one, other)


def test_held_batches_are_collated_once_and_draw_as_a_loader(monkeypatch):
    calls = []
    monkeypatch.setattr(data.collation, "collate", lambda g: calls.append(len(g)) or collate(g))
    graphs = particles((1, 2, 3, 4, 5))
    batches = held(graphs, 2)
    assert len(batches) == 3
    torch.manual_seed(5)
    for batch in batches:
        batch.pos = batch.pos + 1  # what is done to a batch is not there in the next pass
    second = [batch.to_dict() for batch in batches]
    after = torch.rand(1)
    torch.manual_seed(5)
    expected = [[b.to_dict() for b in DataLoader(graphs, 2)] for _ in "ab"][1]
    assert torch.equal(after, torch.rand(1))
    for one, other in zip(second, expected, strict=True):
        assert_equal(one, other)
    assert calls == [2, 2, 1]


def test_of_many_graphs_no_batch_is_held(monkeypatch):
    monkeypatch.setattr(data.collation, "HELD_GRAPHS", 2)
    batches = held(particles(), 2)
    assert [b.num_graphs for _ in "ab" for b in batches] == [2, 1, 2, 1]
    assert not batches.dataset._held


def test_one_number_is_drawn_for_a_pass_that_is_left_out():
    graphs = particles()
    torch.manual_seed(5)
    draw_as_a_loader()
    found = torch.rand(1)
    torch.manual_seed(5)
    list(DataLoader(graphs, 2))
    assert torch.equal(found, torch.rand(1))
