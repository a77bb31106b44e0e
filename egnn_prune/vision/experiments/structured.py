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
from egnn_prune.vision.experiments.seed_run import FRESH, SeedRun, smaller
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
    seed_run = SeedRun(settings, seed)
    dense = seed_run.dense()
    p = settings.pruning
    cells = [(LONGER, 1.0), *((arm, factor) for factor in p.factors for arm in p.criteria)]

    def find_out(arm: str, factor: float) -> Row:
        model = copy.deepcopy(dense)
        if arm != LONGER:
            model = within(seed_run, model, arm, factor)
        fit = settings.training if arm == SCRATCH else settings.finetuning
        fitted = seed_run.fit(model, fit, f"{arm}, {factor:g}x fewer MACs")
        return {**seed_run.latency(model.network), **seed_run.described(model.network, fitted)}

    seed_run.saved.fill(({"arm": arm, "factor": factor} for arm, factor in cells), find_out)
    latency = seed_run.latency(dense.network)
    return [{"factor": 1.0, **latency, **row} for row in seed_run.saved.rows]


def dry_run(seed_run: SeedRun) -> None:
    """Prune untrained networks as much as will be asked, so that what cannot be is said now."""
    p = seed_run.settings.pruning
    for arm in p.criteria:
        if arm in CRITERIA:
            within(seed_run, seed_run.fresh(), arm, max(p.factors))


def within(seed_run: SeedRun, model: TracedNetwork, criterion: str, factor: float) -> TracedNetwork:
    """The network without the feature maps that matter least, ``factor`` times fewer MACs."""
    model.to(seed_run.device)
    context = seed_run.context(model)
    own = criterion not in (SHUFFLED, SCRATCH)
    scores = score_channels(criterion if own else seed_run.settings.pruning.criteria[0], context)
    x = torch.zeros(1, *seed_run.data.shape, device=seed_run.device)
    cost = macs_of(lambda network: network(x))
    scope = seed_run.settings.pruning.scope
    keep = choose_within(model, context.groups, scores, cost, 1 / factor, scope)
    if criterion == SHUFFLED:
        keep = shuffle_masks(keep, seed_run.rng())
    apply_masks(model, keep, context.groups)
    model.to("cpu")
    if criterion == SCRATCH:
        seed_run.restart(model, FRESH + seed_run.seed)
    return smaller(model)
