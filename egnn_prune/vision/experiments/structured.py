"""A residual network with several times fewer MACs: whole feature maps go until a budget is met."""

from __future__ import annotations

import copy

import torch

from egnn_prune.adapters import TracedNetwork
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import (
    CRITERIA,
    apply_masks,
    choose_within,
    compact,
    macs_of,
    score_channels,
    shuffle_masks,
)
from egnn_prune.runs.result_store import Row, different
from egnn_prune.vision.experiments.seed_run import FRESH, Bench
from egnn_prune.vision.settings import VisionSettings

#: ``shuffled`` and ``scratch`` have the widths that the first criterion finds.
LONGER, SHUFFLED, SCRATCH = "dense_longer", "shuffled", "scratch"


def check(settings: VisionSettings) -> None:
    """Refuse settings that this experiment cannot use.

    Raises:
        ConfigError: says which, and what it may be.
    """
    p = settings.pruning
    different("pruning.factors", p.factors)
    different("pruning.criteria", p.criteria)
    if min(p.factors) <= 1:
        raise ConfigError(f"pruning.factors say how many times fewer MACs, above 1: {p.factors}")
    for name in p.criteria:
        if name not in (*CRITERIA, SHUFFLED, SCRATCH):
            raise ConfigError(
                f"pruning.criteria may hold {', '.join(CRITERIA)}, shuffled and scratch, "
                f"not {name!r}"
            )
    if p.criteria[0] in (SHUFFLED, SCRATCH):
        raise ConfigError("pruning.criteria begins with a criterion, which finds the widths")


def run_seed(settings: VisionSettings, seed: int) -> list[Row]:
    """The dense network, trained on, and pruned to every budget by every criterion."""
    check(settings)
    bench = Bench(settings, seed)
    dense = bench.dense()
    p = settings.pruning
    cells = [(LONGER, 1.0), *((arm, factor) for factor in p.factors for arm in p.criteria)]
    for arm, factor in cells:
        if bench.saved.find(arm=arm, factor=factor):
            continue
        model = copy.deepcopy(dense)
        fit, label = settings.finetuning, f"{arm}, {factor:g}x fewer MACs"
        if arm != LONGER:
            model = within(bench, model, arm, factor)
        if arm == SCRATCH:
            fit = settings.training
        fitted = bench.fit(model, fit, label)
        bench.saved.add(
            {
                "seed": seed,
                "arm": arm,
                "factor": factor,
                **bench.latency(model.network),
                **bench.described(model.network, fitted),
            }
        )
    latency = bench.latency(dense.network)
    return [{"factor": 1.0, **latency, **row} for row in bench.saved.rows]


def rehearse(bench: Bench) -> None:
    """Prune untrained networks as much as will be asked, so that what cannot be is said now."""
    p = bench.settings.pruning
    for arm in p.criteria:
        if arm in CRITERIA:
            within(bench, bench.fresh(), arm, max(p.factors))


def within(bench: Bench, model: TracedNetwork, criterion: str, factor: float) -> TracedNetwork:
    """The network without the feature maps that matter least, ``factor`` times fewer MACs."""
    model.to(bench.device)
    context = bench.context(model)
    own = criterion not in (SHUFFLED, SCRATCH)
    scores = score_channels(criterion if own else bench.settings.pruning.criteria[0], context)
    x = torch.zeros(1, *bench.data.shape, device=bench.device)
    cost = macs_of(lambda network: network(x))
    scope = bench.settings.pruning.scope
    keep = choose_within(model, context.groups, scores, cost, 1 / factor, scope)
    if criterion == SHUFFLED:
        keep = shuffle_masks(keep, bench.chance())
    apply_masks(model, keep, context.groups)
    model.to("cpu")
    if criterion == SCRATCH:
        bench.restart(model, FRESH + bench.seed)
    small = compact(model)
    assert isinstance(small, TracedNetwork)
    return small
