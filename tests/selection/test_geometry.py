"""Greedy k-centre and k-means against brute force, and scikit-learn."""

from __future__ import annotations

import time
from itertools import combinations

import pytest
import torch
from torch import Tensor

from egnn_prune.errors import ConfigError
from egnn_prune.selection import greedy_k_centre, k_means


def radius(points: Tensor, rows: list[int]) -> float:
    return float(torch.cdist(points, points[rows]).amin(1).max())


def test_k_centre_by_hand(dtype):
    points = torch.tensor([[0.0], [1.0], [2.0], [9.0], [10.0]], dtype=dtype)
    assert greedy_k_centre(points, 3).tolist() == [0, 4, 2]
    assert greedy_k_centre(points, 2, first=4).tolist() == [4, 0]
    assert greedy_k_centre(points, 2, covered=points[4:]).tolist() == [0, 2]


def test_k_centre_keeps_its_promise(dtype):
    """At most twice the best possible radius (Gonzalez 1985), here found by trying all."""
    for seed in range(5):
        points = torch.randn(12, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)
        best = min(radius(points, list(rows)) for rows in combinations(range(12), 3))
        assert radius(points, greedy_k_centre(points, 3).tolist()) <= 2 * best


def test_k_centre_step_by_step(dtype):
    """Every step takes the row farthest from those before, by the full matrix of distances."""
    points = torch.randn(60, 5, generator=torch.Generator().manual_seed(0), dtype=dtype)
    rows = greedy_k_centre(points, 20, first=7).tolist()
    distance = torch.cdist(points.double(), points.double())
    for step in range(1, 20):
        assert rows[step] == int(distance[:, rows[:step]].amin(1).argmax())


def test_k_centre_of_equal_points(dtype):
    points = torch.tensor([[1e4]] * 4 + [[1e4 + 1]], dtype=dtype)
    rows = greedy_k_centre(points, 5).tolist()
    assert sorted(rows) == [0, 1, 2, 3, 4] and rows[:2] == [0, 4]


@pytest.mark.parametrize("count", [0, 4])
def test_too_many_centres(count):
    with pytest.raises(ConfigError, match=f"{count} centres cannot be chosen among 3 points"):
        greedy_k_centre(torch.randn(3, 2), count)


def test_k_centre_is_fast():
    points = torch.randn(4200, 64)
    start = time.process_time()
    assert len(greedy_k_centre(points, 1260).unique()) == 1260
    assert time.process_time() - start < 2  # 0.3 s on a quiet core


def test_k_means_finds_clusters(dtype):
    cluster = pytest.importorskip("sklearn.cluster")
    true = 5 * torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=dtype)
    noise = torch.randn(300, 4, generator=torch.Generator().manual_seed(2), dtype=dtype)
    points = true.repeat(50, 1) + 0.1 * noise
    centres = k_means(points, 6, torch.Generator().manual_seed(0))
    theirs = cluster.KMeans(6, init=centres.numpy(), n_init=1).fit(points.numpy())
    ours = float(torch.cdist(points, centres).amin(1).square().sum())
    assert ours == pytest.approx(theirs.inertia_, rel=1e-4)  # a fixed point of theirs, too
    assert float(torch.cdist(true, centres).amin(1).max()) < 0.1


def test_k_means_with_fewer_points_than_centres(dtype):
    points = torch.tensor([[0.0, 0], [0, 0], [3, 4]], dtype=dtype)
    centres = k_means(points, 16, torch.Generator().manual_seed(0))
    assert sorted(centres.tolist()) == [[0, 0], [3, 4]]
