"""Which channels go: exact counts, monotone rounds, no empty group, schedules."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from egnn_prune.errors import ConfigError
from egnn_prune.pruning import choose, iterative

SIZES = {"stream": 64, "a": 31, "b": 100, "c": 5}


def random_scores(seed: int = 0, sizes: dict[str, int] = SIZES) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(n, generator=generator) for name, n in sizes.items()}


def removed(keep: dict[str, torch.Tensor]) -> dict[str, int]:
    return {name: int((~mask).sum()) for name, mask in keep.items()}


@pytest.mark.parametrize("percent", [*range(0, 80, 3), 29, 57, 58])
def test_exact_counts(percent):
    """In exact arithmetic: 0.29 * 100 is 28.999999999999996 in floating point."""
    share, scores = Fraction(percent, 100), random_scores()
    everywhere = removed(choose(scores, percent / 100, "global"))
    assert sum(everywhere.values()) == math.floor(share * sum(SIZES.values()))
    each = removed(choose(scores, percent / 100, "group"))
    assert each == {name: math.floor(share * n) for name, n in SIZES.items()}


@pytest.mark.parametrize("scope", ["global", "group"])
def test_lowest_scores_go(scope):
    scores = random_scores(sizes={"a": 40})
    keep = choose(scores, 0.5, scope)["a"]
    assert scores["a"][keep].min() > scores["a"][~keep].max()


def test_global_ranks_groups_against_each_other():
    scores = {"weak": torch.arange(10.0), "strong": 100 + torch.arange(10.0)}
    assert removed(choose(scores, 0.4, "global")) == {"weak": 8, "strong": 0}
    assert removed(choose(scores, 0.4, "group")) == {"weak": 4, "strong": 4}


@pytest.mark.parametrize("scope", ["global", "group"])
def test_a_group_never_loses_its_best_channel(scope):
    scores = {"weak": torch.arange(10.0), "strong": 100 + torch.arange(30.0)}
    for sparsity in (0.25, 0.5, 0.75, 0.9):
        keep = choose(scores, sparsity, scope)
        assert keep["weak"][9] and keep["strong"][29]


def test_equal_scores_still_give_exact_counts():
    scores = {name: torch.zeros(n) for name, n in SIZES.items()}
    keep = choose(scores, 0.5, "global")
    assert sum(removed(keep).values()) == 100
    assert all(mask.any() for mask in keep.values())


@pytest.mark.parametrize("scope", ["global", "group"])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_rounds_are_monotone(scope, rounds):
    """New scores in every round; what is gone stays gone; the last count is exact."""
    keep = None
    for k, sparsity in enumerate(iterative(0.8, rounds)):
        new = choose(random_scores(seed=k), sparsity, scope, keep)
        if keep is not None:
            assert all((new[name] <= keep[name]).all() for name in SIZES)
        keep = new
    total = sum(SIZES.values())
    if scope == "global":
        assert sum(removed(keep).values()) == math.floor(Fraction(8, 10) * total)
    else:
        assert removed(keep) == {k: math.floor(Fraction(8, 10) * n) for k, n in SIZES.items()}


def test_scores_are_not_changed():
    scores = random_scores()
    before = {k: v.clone() for k, v in scores.items()}
    choose(scores, 0.5, "global", choose(scores, 0.2, "global"))
    assert all(torch.equal(scores[k], before[k]) for k in scores)


def test_schedule_removes_the_same_share_each_round():
    assert iterative(0.5, 1) == [0.5]
    steps = iterative(0.875, 3)
    assert steps == pytest.approx([0.5, 0.75, 0.875])
    assert steps[-1] == 0.875  # exactly
    assert iterative(0.0, 3) == [0.0] * 3
    assert all(a < b for a, b in zip(iterative(0.9, 9)[:-1], iterative(0.9, 9)[1:], strict=True))


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
def test_bad_sparsity(sparsity):
    with pytest.raises(ConfigError, match="fraction removed"):
        choose(random_scores(), sparsity)
    with pytest.raises(ConfigError, match="fraction removed"):
        iterative(sparsity, 2)


def test_bad_rounds():
    with pytest.raises(ConfigError, match="at least one round"):
        iterative(0.5, 0)


def test_bad_scope():
    with pytest.raises(ConfigError, match="scope must be one of global, group"):
        choose(random_scores(), 0.5, "layer")


def test_too_much():
    with pytest.raises(ConfigError, match="must keep one; ask for less"):
        choose({"a": torch.rand(4), "b": torch.rand(4)}, 0.9, "global")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_no_numbers(value):
    scores = random_scores()
    scores["b"][3] = value
    with pytest.raises(ConfigError, match="importance of group b is NaN or infinite"):
        choose(scores, 0.5)


@pytest.mark.parametrize("score", [torch.zeros(0), torch.zeros(2, 2), torch.tensor(1.0)])
def test_scores_of_the_wrong_shape(score):
    with pytest.raises(ConfigError, match="a score for each of its channels"):
        choose({"a": score}, 0.5)


def test_sparsity_must_not_shrink_between_rounds():
    keep = choose(random_scores(), 0.5, "global")
    with pytest.raises(ConfigError, match="which stay removed; ask for more"):
        choose(random_scores(), 0.3, "global", keep)
