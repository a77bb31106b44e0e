"""Budgets: the fewest channels go that bring the cost down to what was asked for."""

from __future__ import annotations

import time

import pytest
import torch
from slow_cases import slow_but

from egnn_prune.errors import ConfigError
from egnn_prune.pruning import apply_masks, choose_within, compact, count_macs, latency_of, macs_of


@pytest.fixture
def setting(make_property_model, make_batch):
    model, batch = make_property_model(hidden=24), make_batch(6, 9)
    groups = model.channel_groups()
    generator = torch.Generator().manual_seed(0)
    scores = {g.name: torch.rand(g.n, generator=generator) for g in groups}
    return model, groups, scores, lambda m: m(batch)


@pytest.mark.parametrize("share", slow_but([0.2, 0.3, 0.5, 0.9], 0.2, 0.9))
@pytest.mark.parametrize("scope", ["global", "group"])
def test_macs_budget_is_met_and_not_overshot(setting, share, scope):
    model, groups, scores, run = setting
    keep = choose_within(model, groups, scores, macs_of(run), share, scope)
    dense = count_macs(model, run)[""]
    apply_masks(model, keep)
    left = count_macs(compact(model), run)[""] / dense
    assert left <= share
    # one channel is at most a few per cent of this network
    assert left > share - (0.04 if scope == "global" else 0.15)


def test_the_lowest_scores_go(setting):
    model, groups, scores, run = setting
    keep = choose_within(model, groups, scores, macs_of(run), 0.5)
    kept = torch.cat([scores[k][v] for k, v in keep.items()]).min()
    gone = torch.cat([scores[k][~v] for k, v in keep.items()]).max()
    assert kept > gone


def test_what_is_gone_stays_gone(setting):
    model, groups, scores, run = setting
    first = choose_within(model, groups, scores, macs_of(run), 0.6)
    others = {k: v.flip(0) for k, v in scores.items()}
    second = choose_within(model, groups, others, macs_of(run), 0.3, keep=first)
    assert all((second[k] <= first[k]).all() for k in first)
    assert sum(int(v.sum()) for v in second.values()) < sum(int(v.sum()) for v in first.values())


def test_latency_is_a_cost_like_any_other(setting):
    model, groups, scores, _run = setting
    # a busy machine sleeps longer, never shorter
    assert 0.01 <= latency_of(lambda m: time.sleep(0.01), repeats=3)(model) < 1
    widths = lambda m: m.trunk.hidden  # noqa: E731 - any function of a model is a cost
    keep = choose_within(model, groups, scores, widths, 0.5)
    assert int(keep["trunk.stream"].sum()) == 12


def test_a_budget_that_cannot_be_met(setting):
    model, groups, scores, run = setting
    with pytest.raises(ConfigError, match=r"budget of 0% of the dense cost cannot be met.*remains"):
        choose_within(model, groups, scores, macs_of(run), 0.0001)
    with pytest.raises(ConfigError, match=r"share of the dense cost left, in \(0, 1\]"):
        choose_within(model, groups, scores, macs_of(run), 30)
    scores["trunk.stream"][0] = torch.nan
    with pytest.raises(ConfigError, match="NaN or infinite"):
        choose_within(model, groups, scores, macs_of(run), 0.5)


def test_round_to_after_a_round_that_did_not(setting):
    model, groups, scores, run = setting
    first = choose_within(model, groups, scores, macs_of(run), 0.6)
    others = {k: v.flip(0) for k, v in scores.items()}
    keep = choose_within(model, groups, others, macs_of(run), 0.3, keep=first, round_to=4)
    assert all((keep[k] <= first[k]).all() for k in first)
    assert all(int(v.sum()) % 4 == 0 or int(v.sum()) < 4 for v in keep.values())
    with pytest.raises(ConfigError, match="round_to is a number of channels"):
        choose_within(model, groups, others, macs_of(run), 0.3, keep=first, round_to=0)
