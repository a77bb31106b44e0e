"""Budgets in time, on a clock that is made up: what each channel takes is known."""

from __future__ import annotations

import pytest
import torch

from egnn_prune import prune
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import (
    LatencyBudget,
    TakingTurns,
    best_multiple,
    channel_costs,
    choose_within,
    count_macs,
    keep_masks,
)
from egnn_prune.pruning.budget import latency_share_of
from egnn_prune.pruning.channel_costs import resized
from egnn_prune.pruning.stopwatch import Remembered

#: What a channel takes in ms; a node channel takes nothing.
MS = {"stream": 1.0, "edge": 0.5, "message": 2.0, "position": 0.25, "node": 0.0}
OVERHEAD = 10.0


def by_width(noise=0.0, ms=MS):
    """Times of a machine that runs with a model's widths, and with other work."""
    generator = torch.Generator().manual_seed(0)

    def measure(models):
        found = {}
        for name, model in models.items():
            widths = sum(ms[g.kind] * g.n for g in model.channel_groups())
            other = noise * torch.randn(9, generator=generator)
            found[name] = (OVERHEAD + widths + other.double()).tolist()
        return found

    return measure


@pytest.fixture
def network(make_property_model, make_batch):
    model, batch = make_property_model(hidden=24), make_batch(6, 9)
    return model, lambda m: m(batch)


def scores_of(groups):
    generator = torch.Generator().manual_seed(0)
    return {g.name: 0.1 + torch.rand(g.n, generator=generator) for g in groups}


def share_left(model, keep):
    groups = model.channel_groups()
    dense = OVERHEAD + sum(MS[g.kind] * g.n for g in groups)
    return (OVERHEAD + sum(MS[g.kind] * int(keep[g.name].sum()) for g in groups)) / dense


def test_costs_are_what_the_channels_take(network):
    model, run = network
    groups = model.channel_groups()
    costs = channel_costs(model, groups, run, measure=by_width())
    assert list(costs) == [g.name for g in groups]
    assert costs["trunk.stream"] == pytest.approx(1.0)
    kinds = {g.kind for g in groups}
    for kind in kinds - {"stream"}:  # what layers share of a kind's cost is a matter of MACs
        of_kind = [costs[g.name] * g.n for g in groups if g.kind == kind]
        assert sum(of_kind) == pytest.approx(MS[kind] * sum(g.n for g in groups if g.kind == kind))
    told = {p.name.rpartition(".")[2]: p.told_by for p in costs.prices}
    assert told == {k: "nothing" if k == "node" else "time" for k in kinds}
    assert "told by" in str(costs)


def test_costs_of_what_is_left(network):
    model, run = network
    groups = model.channel_groups()
    keep = {g.name: torch.arange(g.n) < 7 for g in groups}
    costs = channel_costs(model, groups, run, keep=keep, measure=by_width())
    assert costs["trunk.stream"] == pytest.approx(1.0)
    assert {p.removed for p in costs.prices if p.name.endswith("stream")} == {3}
    alone = {g.name: torch.arange(g.n) < 1 for g in groups}
    costs = channel_costs(model, groups, run, keep=alone, measure=by_width())
    assert set(costs.values()) == {0.0}, "the last channel of a group cannot go"


def test_macs_tell_where_time_does_not(network):
    model, run = network
    groups = model.channel_groups()
    costs = channel_costs(model, groups, run, measure=by_width(50.0))
    unsure = [p for p in costs.prices if p.told_by == "MACs"]
    assert len(unsure) >= 2
    for price in unsure:
        assert price.saved_ms[1] <= 0 < price.price_ms <= price.saved_ms[2]


def test_measuring_draws_nothing_and_repeats(network):
    model, run = network
    groups = model.channel_groups()
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    found = [LatencyBudget(model, run, by_width()) for _ in range(2)]
    masks = [budget.choose(scores_of(groups), 0.5) for budget in found]
    assert all(torch.equal(masks[0][k], masks[1][k]) for k in masks[0])
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("share", "scope"), [(0.3, "global"), (0.9, "global"), (0.5, "kind")])
def test_the_budget_is_met(network, share, scope):
    model, run = network
    groups = model.channel_groups()
    budget = LatencyBudget(model, run, by_width())
    budget.check(share, scope)
    keep = budget.choose(scores_of(groups), share, scope)
    assert share - 0.06 < share_left(model, keep) <= share
    assert budget.measured(keep).share == pytest.approx(share_left(model, keep))
    assert all(keep[g.name].all() for g in groups if g.kind == "node"), "for nothing"


def test_importance_per_millisecond_loses_less(network):
    model, run = network
    groups, measure = model.channel_groups(), by_width()
    scores = scores_of(groups)

    def lost(costs):
        dense = resized(model, {g.name: torch.ones(g.n, dtype=torch.bool) for g in groups})
        cost = latency_share_of(dense, measure)
        keep = choose_within(model, groups, scores, cost, 0.5, costs=costs)
        return sum(float(scores[k][~v].sum()) for k, v in keep.items())

    costs = channel_costs(model, groups, lambda m: run(m), measure=measure)
    assert lost(costs) < 0.8 * lost(None)


def test_what_is_gone_stays_gone(network):
    model, run = network
    groups = model.channel_groups()
    budget, scores = LatencyBudget(model, run, by_width()), scores_of(groups)
    keep = budget.choose(scores, 0.7)
    keep["trunk.layers.0.node"][3:] = False  # of a group that costs nothing: stays as it is
    others = {k: v.flip(0) for k, v in scores.items()}
    again = budget.choose(others, 0.4, keep=keep, round_to=4)
    assert all((again[k] <= keep[k]).all() for k in keep)
    assert torch.equal(again["trunk.layers.0.node"], keep["trunk.layers.0.node"])
    assert share_left(model, again) <= 0.4


def test_budgets_that_cannot_be(network):
    model, run = network
    budget = LatencyBudget(model, run, by_width())
    with pytest.raises(ConfigError, match=r"budget of 1% of the dense cost cannot be met.*remains"):
        budget.check(0.01)
    with pytest.raises(ConfigError, match=r"in \(0, 1\], not 1.5"):
        budget.check(1.5)
    nothing = LatencyBudget(model, run, by_width(ms=dict.fromkeys(MS, 0.0)))
    with pytest.raises(ConfigError, match=r"cannot be met.*100% remains"):
        nothing.check(0.5)


def test_prune_by_latency(network, make_batch):
    model, _run = network
    data = [make_batch(6, 9)]
    pruned = prune(model, "magnitude", latency=0.5, data=data, measure=by_width())
    keep = keep_masks(pruned)
    assert 0.44 < share_left(pruned, keep) <= 0.5
    assert all(keep[g.name].all() for g in pruned.channel_groups() if g.kind == "node")
    with pytest.raises(ConfigError, match="a latency, or round_to=0, is measured on data"):
        prune(model, "magnitude", latency=0.5)
    with pytest.raises(ConfigError, match="give one of sparsity, macs and latency"):
        prune(model, "magnitude", 0.5, latency=0.5, data=data)


def test_the_clock_takes_turns(network):
    model, run = network
    ticks = iter(range(1000))
    found = TakingTurns(run, repeats=4, warmup=1, clock=lambda: next(ticks))({"a": model})
    assert found == {"a": [1000.0] * 4} and next(ticks) == 10, "one call to warm up, four timed"


def test_measurements_are_remembered(network, tmp_path):
    model, _run = network
    calls = []

    def measure(models):
        calls.append(list(models))
        return {name: [1.0, 2.00001] for name in models}

    first = Remembered(measure, tmp_path / "latency.json")({"a": model})
    again = Remembered(measure, tmp_path / "latency.json")
    assert again({"a": model}) == first == {"a": [1.0, 2.0]} and calls == [["a"]]
    again({"b": model})
    assert calls == [["a"], ["b"]]


def test_the_multiple_that_kernels_like(make_property_model):
    model = make_property_model(hidden=32)
    groups = model.channel_groups()

    def vectors(of):
        def measure(models):
            widths = {name: m.trunk.hidden for name, m in models.items()}
            return {name: [float(-(-w // of) * of + (w % of > 0))] for name, w in widths.items()}

        return measure

    assert [best_multiple(model, groups, vectors(of)) for of in (1, 4, 8, 16)] == [1, 4, 8, 16]
    narrow = make_property_model(hidden=8)
    assert best_multiple(narrow, narrow.channel_groups(), vectors(8)) == 1


def test_macs_are_counted_exactly_as_before(network):
    model, run = network
    groups = model.channel_groups()
    keep = choose_within(
        model, groups, scores_of(groups), lambda m: count_macs(m, run)[""], 0.5, tolerance=0.1
    )
    small = resized(model, keep)
    assert 0.4 <= count_macs(small, run)[""] / count_macs(model, run)[""] <= 0.5
