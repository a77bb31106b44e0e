"""Which rows a strategy selects: exact counts, order, shares, frequencies, errors."""

from __future__ import annotations

import math

import pytest
import torch

from egnn_prune.errors import ConfigError
from egnn_prune.selection import STRATEGIES, replay_weights, select

UNCERTAINTY = torch.tensor([0.3, 0.9, 0.1, 0.5, 0.9, 0.2, 0.7, 0.4, 0.8, 0.6])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chosen(strategy: str, uncertainty=UNCERTAINTY, fraction=0.3, threshold=0.65, seed=0) -> list:
    rows = select(
        uncertainty, strategy, fraction=fraction, threshold=threshold, generator=seeded(seed)
    )
    return rows.tolist()


def test_top_takes_the_most_uncertain_first():
    assert chosen("top") == [1, 4, 8]
    assert chosen("top", fraction=1.0) == [1, 4, 8, 6, 9, 3, 7, 0, 5, 2]


def test_least_takes_the_surest_first():
    assert chosen("least") == [2, 5, 0]


def test_threshold_takes_all_above():
    assert chosen("threshold") == [1, 4, 8, 6]
    assert chosen("threshold", threshold=0.8) == [1, 4]  # above, not at
    assert chosen("threshold", threshold=-1.0) == chosen("top", fraction=1.0)


def test_random_is_blind_to_uncertainty():
    assert chosen("random") == chosen("random", uncertainty=-UNCERTAINTY)
    assert chosen("random") != chosen("random", seed=1)
    counts = torch.zeros(10)
    for seed in range(1000):
        counts[chosen("random", seed=seed)] += 1
    assert torch.allclose(counts / 1000, torch.full((10,), 0.3), atol=0.06)  # 4 sigma


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "threshold"])
@pytest.mark.parametrize(
    ("fraction", "count"), [(0.01, 1), (0.1, 1), (0.34, 3), (0.36, 4), (1.0, 10)]
)
def test_counts(strategy, fraction, count):
    rows = chosen(strategy, fraction=fraction)
    assert len(rows) == len(set(rows)) == count
    assert set(rows) <= set(range(10))


def test_proportional_frequencies():
    counts = torch.zeros(10)
    generator = seeded()
    for _ in range(4000):
        row = select(UNCERTAINTY, "proportional", fraction=0.1, threshold=0, generator=generator)
        counts[row] += 1
    expected = UNCERTAINTY / UNCERTAINTY.sum()
    assert torch.allclose(counts / 4000, expected, atol=0.025)  # 4 sigma


def test_proportional_never_takes_what_is_certain():
    uncertainty = torch.tensor([0.0, 1.0, 0.0, 2.0])
    assert all(
        set(chosen("proportional", uncertainty, fraction=0.5, seed=s)) == {1, 3} for s in range(20)
    )
    with pytest.raises(ConfigError, match="fewer samples have a positive uncertainty"):
        chosen("proportional", uncertainty, fraction=0.75)


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


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.1, math.nan])
def test_fraction_out_of_range(fraction):
    with pytest.raises(ConfigError, match=r"selection\.fraction lies in \(0, 1\]"):
        chosen("top", fraction=fraction)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_uncertainty_that_is_no_number(strategy, bad):
    uncertainty = UNCERTAINTY.clone()
    uncertainty[3] = bad
    with pytest.raises(ConfigError, match="NaN or infinite"):
        chosen(strategy, uncertainty)


@pytest.mark.parametrize("shape", [(0,), (3, 2)])
def test_one_uncertainty_per_sample(shape):
    with pytest.raises(ConfigError, match="one uncertainty per training sample"):
        chosen("top", torch.ones(shape))


def test_nothing_above_the_threshold():
    with pytest.raises(ConfigError, match=r"above 2; the largest is 0\.9"):
        chosen("threshold", threshold=2.0)


def test_unknown_strategy():
    with pytest.raises(ConfigError, match="one of top, threshold, proportional, random, least"):
        chosen("bottom")
