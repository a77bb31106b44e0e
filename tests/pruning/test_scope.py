"""Which channels go: exact counts, monotone rounds, no empty group."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from egnn_prune.channels import ChannelGroup, Member
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import choose, sparsities

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
    for k, sparsity in enumerate(sparsities("iterative", 0.8, rounds)):
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


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
def test_bad_sparsity(sparsity):
    with pytest.raises(ConfigError, match="fraction removed"):
        choose(random_scores(), sparsity)


def test_bad_scope():
    with pytest.raises(ConfigError, match="scope must be one of global, layer, kind, group"):
        choose(random_scores(), 0.5, "everything")


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


def group(name: str, n: int, kind: str = "edge", family: str | None = None) -> ChannelGroup:
    return ChannelGroup(name, kind, n, (Member.span("weight", 0, n),), family=family)


def test_scopes_pool_by_layer_and_by_kind():
    groups = [group(f"layers.{i}.{k}", 10, k) for i in range(2) for k in ("edge", "node")]
    scores = {g.name: torch.rand(10) + 10 * i for i, g in enumerate(groups)}
    by_layer = removed(choose(scores, 0.4, "layer", groups=groups))
    assert by_layer == {
        "layers.0.edge": 8,
        "layers.0.node": 0,
        "layers.1.edge": 8,
        "layers.1.node": 0,
    }
    by_kind = removed(choose(scores, 0.4, "kind", groups=groups))
    assert by_kind == {
        "layers.0.edge": 8,
        "layers.0.node": 8,
        "layers.1.edge": 0,
        "layers.1.node": 0,
    }


def test_scope_kind_needs_the_groups():
    with pytest.raises(ConfigError, match="needs the groups"):
        choose(random_scores(), 0.5, "kind")


def test_an_order_may_go_but_the_family_keeps_one():
    groups = [group("0e", 4), group("1o", 4, family="layer"), group("2e", 4, family="layer")]
    scores = {"0e": 10 + torch.rand(4), "1o": torch.rand(4), "2e": 1 + torch.rand(4)}
    keep = choose(scores, 0.5, groups=groups)
    assert removed(keep) == {"0e": 0, "1o": 4, "2e": 2}
    keep = choose(scores, 10 / 12, groups=groups)
    assert removed(keep) == {"0e": 3, "1o": 4, "2e": 3}
    again = choose(scores, 10 / 12, groups=groups, keep=keep)  # an order that went stays away
    assert all(torch.equal(again[k], keep[k]) for k in keep)
    with pytest.raises(ConfigError, match="must keep one"):
        choose(scores, 11 / 12, groups=groups)
    with pytest.raises(ConfigError, match="must keep one"):
        choose(scores, 10 / 12)  # without families every group keeps one


@pytest.mark.parametrize("scope", ["global", "group"])
@pytest.mark.parametrize("multiple", [4, 8])
def test_round_to(scope, multiple):
    scores = random_scores()
    plain, rounded = (choose(scores, 0.6, scope, round_to=r) for r in (1, multiple))
    for name, n in SIZES.items():
        width = int(rounded[name].sum())
        assert width % multiple == 0 or width == n
        assert 0 <= width - int(plain[name].sum()) < multiple
        assert (plain[name] <= rounded[name]).all()  # only ever keeps more
        kept, gone = scores[name][rounded[name]], scores[name][~rounded[name]]
        assert len(gone) == 0 or kept.min() > gone.max()


def test_round_to_brings_nothing_back():
    first = choose(random_scores(), 0.3, "group")
    second = choose(random_scores(seed=1), 0.5, "group", first, round_to=8)
    assert all((second[name] <= first[name]).all() for name in SIZES)


def test_bad_round_to():
    with pytest.raises(ConfigError, match="round_to is a number of channels"):
        choose(random_scores(), 0.5, round_to=0)


def test_an_empty_group_is_refused():
    with pytest.raises(ConfigError, match="group 2e has 0 channels"):
        group("2e", 0)


@pytest.mark.parametrize("scope", ["global", "group"])
def test_round_to_after_a_round_that_did_not(scope):
    first = choose(random_scores(), 0.3, "group")
    plain = choose(random_scores(seed=1), 0.5, scope, first)
    rounded = choose(random_scores(seed=1), 0.5, scope, first, round_to=8)
    for name, n in SIZES.items():
        width, asked = int(rounded[name].sum()), int(plain[name].sum())
        assert width % 8 == 0 or width == n or width == asked < 8
        assert abs(width - asked) < 8 and width > 0
        assert (rounded[name] <= first[name]).all()
    few = {"a": torch.arange(8) < 5}
    assert int(choose({"a": torch.rand(8)}, 0.5, keep=few, round_to=3)["a"].sum()) == 3
    many = choose({"a": torch.arange(8.0)}, 0.5, keep={"a": torch.arange(8) < 5}, round_to=3)["a"]
    assert many.nonzero().flatten().tolist() == [2, 3, 4]


def test_a_layer_of_a_flat_network_is_a_group():
    scores = {"0": torch.arange(10.0), "3": 100 + torch.arange(10.0)}
    assert removed(choose(scores, 0.4, "layer")) == {"0": 4, "3": 4}
