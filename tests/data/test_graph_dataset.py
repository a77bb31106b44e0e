"""Splits, limits and stored neighbour lists."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from egnn_prune.data import GraphDataset, random_splits
from egnn_prune.errors import ConfigError, DataError


def graphs(n: int) -> list[Data]:
    return [
        Data(
            z=torch.tensor([6, 1 + 7 * (i == 0)]),
            pos=torch.tensor([[0.0, 0, 0], [1.0 + i, 0, 0]]),
            y=torch.tensor([float(i)]),
        )
        for i in range(n)
    ]


@pytest.fixture
def dataset() -> GraphDataset:
    return GraphDataset("made", "y", "eV", False, graphs(50), random_splits(50))


@pytest.mark.parametrize("n", [3, 10, 19, 1000])
def test_random_splits_are_a_partition(n):
    splits = random_splits(n, seed=1)
    assert torch.equal(torch.cat(list(splits.values())).sort().values, torch.arange(n))
    assert len(splits["val"]) == len(splits["test"]) == max(1, n // 10)


def test_random_splits_depend_on_the_seed_only():
    torch.manual_seed(1)
    first = random_splits(100, seed=5)
    torch.manual_seed(2)
    again, other = random_splits(100, seed=5), random_splits(100, seed=6)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["train"], other["train"])


def test_two_graphs_cannot_be_split():
    with pytest.raises(DataError, match="2 graphs cannot be split"):
        random_splits(2)


def test_limited_keeps_a_random_part_of_each_split(dataset):
    small = dataset.limited(7)
    assert {k: len(v) for k, v in small.splits.items()} == {
        "train": 7,
        "val": 5,
        "test": 5,
        "ood": 0,
    }
    for name, rows in small.splits.items():
        assert set(rows.tolist()) <= set(dataset.splits[name].tolist())
        assert len(set(rows.tolist())) == len(rows)
    assert all(torch.equal(dataset.limited(7).splits[k], small.splits[k]) for k in small.splits)
    assert not torch.equal(small.splits["train"], dataset.splits["train"][:7])
    assert len(dataset.splits["train"]) == 40


def test_no_limit_is_no_change(dataset):
    assert dataset.limited(None) is dataset


def test_a_limit_of_one_graph_is_refused(dataset):
    with pytest.raises(ConfigError, match=r"data\.limit"):
        dataset.limited(1)


def test_with_cutoff_stores_the_pairs_that_are_close(dataset):
    near = dataset.with_cutoff(5.5)
    edges = [graph.edge_index.shape[1] for graph in near.graphs]
    assert edges == [2] * 5 + [0] * 45  # the distance of graph i is 1 + i


def test_without_cutoff_nothing_is_stored(dataset):
    assert dataset.with_cutoff(None).graphs[0].edge_index is None


def test_elements_are_those_of_training(dataset):
    assert dataset.elements == ([1, 6, 8] if 0 in dataset.splits["train"].tolist() else [1, 6])
    dataset.splits["train"] = torch.arange(1, 40)
    assert dataset.elements == [1, 6]


def test_the_ood_split_may_be_missing(dataset):
    assert list(dataset.split("ood")) == [] and not dataset.split("ood")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_other_splits_may_not(split):
    splits = {**random_splits(9), split: torch.empty(0, dtype=torch.long)}
    with pytest.raises(DataError, match=f"made has no graphs in its {split} split"):
        GraphDataset("made", "y", "eV", False, graphs(9), splits)
