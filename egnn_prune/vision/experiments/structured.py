"""A residual network with several times fewer MACs: whole feature maps go until a budget is met."""

from __future__ import annotations

import copy

import torch

from egnn_prune.errors import ConfigError
from egnn_prune.pruning import (
    CRITERIA,
    TracedNetwork,
    apply_masks,
    choose_within,
    compact,
    macs_of,
    reinitialise,
    score_channels,
)
from egnn_prune.studies.rows import Row, different
from egnn_prune.vision.experiments.bench import Bench
from egnn_prune.vision.settings import VisionSettings

LONGER, SCRATCH = "dense_longer", "scratch"


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
        if name not in CRITERIA:
            raise ConfigError(f"pruning.criteria may hold {', '.join(CRITERIA)}, not {name!r}")


def run_seed(settings: VisionSettings, seed: int) -> list[Row]:
    """The dense network, trained on, and pruned to every budget by every criterion."""
    check(settings)
    bench = Bench(settings, seed)
    dense, _ = bench.dense()
    p = settings.pruning
    cells = [(LONGER, 1.0), *((arm, factor) for factor in p.factors for arm in p.criteria)]
    if p.scratch:
        cells += [(SCRATCH, factor) for factor in p.factors]
    for arm, factor in cells:
        if bench.saved.find(arm=arm, factor=factor):
            continue
        model = copy.deepcopy(dense)
        fit, label = settings.finetuning, f"{arm}, {factor:g}x fewer MACs"
        if arm != LONGER:
            model = within(bench, model, p.criteria[0] if arm == SCRATCH else arm, factor)
        if arm == SCRATCH:
            reinitialise(model, seed)
            fit = settings.training
        fitted = bench.fit(model, fit, label)
        bench.saved.add(
            {
                "seed": seed,
                "arm": arm,
                "factor": factor,
                "latency_ms": bench.latency_ms(model.network),
                **bench.described(model.network, fitted),
            }
        )
    latency = bench.latency_ms(dense.network)
    return [{"factor": 1.0, "latency_ms": latency, **row} for row in bench.saved.rows]


def within(bench: Bench, model: TracedNetwork, criterion: str, factor: float) -> TracedNetwork:
    """The network without the feature maps that matter least, ``factor`` times fewer MACs."""
    model.to(bench.device)
    context = bench.context(model)
    scores = score_channels(criterion, context)
    x = torch.zeros(1, *bench.data.shape, device=bench.device)
    cost = macs_of(lambda network: network(x))
    scope = bench.settings.pruning.scope
    keep = choose_within(model, context.groups, scores, cost, 1 / factor, scope)
    apply_masks(model, keep, context.groups)
    small = compact(model).to("cpu")
    assert isinstance(small, TracedNetwork)
    return small
