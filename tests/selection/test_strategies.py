"""Which rows a strategy selects: exact counts, order, shares, frequencies, errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from egnn_prune.errors import ConfigError
from egnn_prune.selection import STRATEGIES, SampleScores, select
from egnn_prune.selection.strategies import CANDIDATES, PROTOTYPES

UNCERTAINTY = torch.tensor([0.3, 0.9, 0.1, 0.5, 0.9, 0.2, 0.7, 0.4, 0.8, 0.6])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chosen(
    strategy: str,
    uncertainty: Tensor = UNCERTAINTY,
    losses: Tensor | None = None,
    embeddings: Tensor | None = None,
    covered: Tensor | None = None,
    seed: int = 0,
    **how: Any,
) -> list[int]:
    if embeddings is None:
        embeddings = torch.randn(len(uncertainty), 4, generator=seeded(9))
    sample_scores = SampleScores(
        uncertainty, uncertainty.flip(0) if losses is None else losses, embeddings, covered
    )
    how = {"threshold": 0.65, "band": (0, 1), **how}
    return select(sample_scores, strategy, generator=seeded(seed), **how).tolist()


def test_top_takes_the_most_uncertain_first():
    assert chosen("top") == [1, 4, 8]
    assert chosen("top", fraction=1.0) == [1, 4, 8, 6, 9, 3, 7, 0, 5, 2]


def test_least_takes_the_surest_first():
    assert chosen("least") == [2, 5, 0]


def test_loss_takes_the_highest_loss_first():
    assert chosen("loss", losses=torch.tensor([0.0, 5, 1, 7, -3, 2, 8, 0, 0, 1])) == [6, 3, 1]


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


def test_band_draws_between_the_quantiles():
    """Rows by uncertainty: 2 5 0 7 3 9 6 8 1 4; the band leaves the surest 5 and 2 at the top."""
    assert set(chosen("band", band=(0.5, 0.8))) == {9, 6, 8}
    assert chosen("band", band=(0.5, 0.8), fraction=1.0) != chosen("top", fraction=1.0)
    assert len(chosen("band", band=(0.5, 0.8), fraction=1.0)) == 3  # all of the band
    drawn = {tuple(sorted(chosen("band", band=(0.2, 0.9), seed=s))) for s in range(60)}
    assert {row for rows in drawn for row in rows} == {0, 7, 3, 9, 6, 8, 1}
    assert len(drawn) > 10 and all(len(rows) == 3 for rows in drawn)


def test_an_empty_band():
    with pytest.raises(ConfigError, match=r"no training sample lies between .* widen"):
        chosen("band", band=(0.5, 0.52))


@pytest.mark.parametrize("band", [(0.9, 0.5), (0.5, 0.5), (-0.1, 0.5), (0.5, 1.1), (0.5,)])
def test_band_out_of_range(band):
    with pytest.raises(ConfigError, match=r"selection\.band needs two quantiles"):
        chosen("band", band=band)


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "threshold"])
@pytest.mark.parametrize(
    ("fraction", "count"), [(0.01, 1), (0.1, 1), (0.34, 3), (0.36, 4), (1.0, 10)]
)
def test_counts(strategy, fraction, count):
    rows = chosen(strategy, fraction=fraction)
    assert len(rows) == len(set(rows)) == count
    assert set(rows) <= set(range(10))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_seed_selects_the_same_rows(strategy, dtype):
    uncertainty = torch.rand(200, generator=seeded(1)).to(dtype)
    embeddings = torch.randn(200, 8, generator=seeded(2)).to(dtype)
    first, again = (chosen(strategy, uncertainty, embeddings=embeddings, seed=7) for _ in range(2))
    assert first == again
    if strategy in ("random", "band", "proportional", "prototype"):
        assert first != chosen(strategy, uncertainty, embeddings=embeddings, seed=8)


def test_proportional_frequencies():
    counts = torch.zeros(10)
    generator = seeded()
    for _ in range(4000):
        row = select(UNCERTAINTY, "proportional", fraction=0.1, generator=generator)
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


def test_diverse_by_hand(dtype):
    """Among the four most uncertain points (0, 1, 2, 3) the far one, not the second."""
    uncertainty = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.1, 0.0], dtype=dtype)
    points = torch.tensor([[0.0], [0.1], [3.0], [1.0], [100.0], [200.0]], dtype=dtype)
    how = {"embeddings": points, "fraction": 2 / 6}
    assert chosen("diverse", uncertainty, **how) == [0, 2]
    # what is covered keeps new centres away, the first one too
    near = torch.tensor([[3.1]], dtype=dtype)
    assert chosen("diverse", uncertainty, covered=near, **how) == [0, 3]


def test_diverse_is_unsure_and_spread():
    uncertainty = torch.rand(400, generator=seeded(1))
    points = torch.randn(400, 8, generator=seeded(2))
    diverse, top = (chosen(s, uncertainty, embeddings=points) for s in ("diverse", "top"))
    assert set(diverse) <= set(chosen("top", uncertainty, fraction=CANDIDATES * 0.3))

    def radius(rows: list[int]) -> float:
        unsure = chosen("top", uncertainty, fraction=CANDIDATES * 0.3)
        return float(torch.cdist(points[unsure], points[rows]).amin(1).max())

    assert radius(diverse) < 0.8 * radius(top)


def test_prototypes_are_balanced(monkeypatch):
    """Three clusters of 80, 10 and 10: each gives the same number, the small ones all they have."""
    monkeypatch.setattr("egnn_prune.selection.strategies.PROTOTYPES", 3)
    centres = torch.eye(3).repeat_interleave(torch.tensor([80, 10, 10]), 0)
    points = centres + 0.01 * torch.randn(100, 3, generator=seeded(3))
    uncertainty = torch.linspace(1, 2, 100).flip(0)  # the large cluster is the most uncertain
    cluster = torch.tensor([0] * 80 + [1] * 10 + [2] * 10)
    rows = chosen("prototype", uncertainty, embeddings=points, fraction=0.3)
    assert torch.bincount(cluster[rows]).tolist() == [10, 10, 10]
    assert cluster[chosen("top", uncertainty, fraction=0.3)].sum() == 0
    more = chosen("prototype", uncertainty, embeddings=points, fraction=0.5)
    assert torch.bincount(cluster[more]).tolist() == [30, 10, 10]


def test_prototypes_prefer_the_unsure_and_the_boundary(monkeypatch):
    """Two prototypes on a circle, one sample of each: the unsure one, then the one in between."""
    monkeypatch.setattr("egnn_prune.selection.strategies.PROTOTYPES", 2)
    angle = torch.tensor([0.0, 0.1, 0.2, 0.9, 2.2, 2.9, 3.0, 3.1])
    points = torch.stack([angle.cos(), angle.sin()], 1)
    points = torch.cat([points, -points.mean(0, keepdim=True) * 8 / 1e9])  # keeps the mean near 0
    points = points[:8] - points[:8].mean(0)
    even = torch.ones(8)
    assert set(chosen("prototype", even, embeddings=points, fraction=0.25)) == {3, 4}
    unsure = even.clone()
    unsure[[0, 7]] = 100.0
    assert set(chosen("prototype", unsure, embeddings=points, fraction=0.25)) == {0, 7}


def test_prototypes_of_equal_samples():
    """Where all embeddings agree there is one prototype, and uncertainty alone decides."""
    rows = chosen("prototype", embeddings=torch.ones(10, 3))
    assert rows == chosen("top") and PROTOTYPES > 1


@pytest.mark.parametrize(
    ("strategy", "lacks"),
    [("loss", "losses"), ("diverse", "embeddings"), ("prototype", "embeddings")],
)
def test_evidence_that_is_not_there(strategy, lacks):
    with pytest.raises(ConfigError, match=f"selection.strategy={strategy} needs {lacks}"):
        select(UNCERTAINTY, strategy, generator=seeded())


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.1, math.nan])
def test_fraction_out_of_range(fraction):
    with pytest.raises(ConfigError, match=r"selection\.fraction lies in \(0, 1\]"):
        chosen("top", fraction=fraction)


def test_nothing_above_the_threshold():
    with pytest.raises(ConfigError, match=r"above 2; the largest is 0\.9"):
        chosen("threshold", threshold=2.0)


def test_unknown_strategy():
    with pytest.raises(ConfigError, match="one of top, threshold, band, proportional, diverse"):
        chosen("bottom")
