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
    macs_of,
    score_channels,
    shuffle_masks,
)
from egnn_prune.runs.result_store import Row
from egnn_prune.vision.experiments.seed_run import FRESH, Bench, smaller
from egnn_prune.vision.settings import VisionSettings

#: ``shuffled`` and ``scratch`` have the widths that the first criterion finds.
LONGER, SHUFFLED, SCRATCH = "dense_longer", "shuffled", "scratch"


def check(settings: VisionSettings) -> None:
    """Refuse settings that this experiment cannot use."""
    p = settings.pruning
    if p.criteria[0] in (SHUFFLED, SCRATCH):
        raise ConfigError("pruning.criteria begins with a criterion, which finds the widths")


def run_seed(settings: VisionSettings, seed: int) -> list[Row]:
    """The dense network, trained on, and pruned to every budget by every criterion."""
    bench = Bench(settings, seed)
    dense = bench.dense()
    p = settings.pruning
    cells = [(LONGER, 1.0), *((arm, factor) for factor in p.factors for arm in p.criteria)]

    def find_out(arm: str, factor: float) -> Row:
        model = copy.deepcopy(dense)
        if arm != LONGER:
            model = within(bench, model, arm, factor)
        fit = settings.training if arm == SCRATCH else settings.finetuning
        fitted = bench.fit(model, fit, f"{arm}, {factor:g}x fewer MACs")
        return {**bench.latency(model.network), **bench.described(model.network, fitted)}

    bench.saved.fill(({"arm": arm, "factor": factor} for arm, factor in cells), find_out)
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
    return smaller(model)
