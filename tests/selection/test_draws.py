"""How often selected samples are drawn, and when they are selected anew."""

from __future__ import annotations

import math

import pytest
import torch

from egnn_prune.errors import ConfigError
from egnn_prune.selection import replay_weights, rounds


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.99])
def test_replay_share(share):
    weights = replay_weights(torch.tensor([1, 4, 8]), 10, share)
    assert weights.dtype == torch.float64
    assert weights[[1, 4, 8]].tolist() == pytest.approx([(1 - share) / 3] * 3)
    assert weights[[0, 2, 3, 5, 6, 7, 9]].tolist() == pytest.approx([share / 7] * 7)


def test_replay_without_ordinary_samples():
    assert replay_weights(torch.arange(4), 4, 0.5).tolist() == [0.25] * 4


@pytest.mark.parametrize("share", [-0.1, 1.0, math.nan])
def test_replay_out_of_range(share):
    with pytest.raises(ConfigError, match=r"selection\.replay is a share in \[0, 1\)"):
        replay_weights(torch.tensor([1]), 10, share)


def test_replay_of_nothing():
    with pytest.raises(ConfigError, match="no sample is selected"):
        replay_weights(torch.empty(0, dtype=torch.long), 10, 0.5)


@pytest.mark.parametrize(
    ("steps", "count", "starts"),
    [(300, 1, [0]), (300, 3, [0, 100, 200]), (10, 4, [0, 2, 5, 7]), (3, 3, [0, 1, 2])],
)
def test_rounds(steps, count, starts):
    assert rounds(steps, count) == starts


@pytest.mark.parametrize("count", [0, -1, 11])
def test_rounds_out_of_range(count):
    with pytest.raises(ConfigError, match=r"selection\.rounds lies between 1 and the 10 steps"):
        rounds(10, count)
