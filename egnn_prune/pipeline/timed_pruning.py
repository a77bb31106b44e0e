"""Pruning to a latency in the main job: what is timed, checked first, and said of it."""

from __future__ import annotations

from typing import Any

import torch
from torch_geometric.data import Batch

from egnn_prune.pipeline.build import build_model
from egnn_prune.pipeline.run_context import RunContext
from egnn_prune.pruning import LatencyBudget, TakingTurns
from egnn_prune.pruning.stopwatch import Measure
from egnn_prune.system.distributed import decided
from egnn_prune.training import PruningCallback


def timed_batch(job: RunContext) -> Batch:
    """What times are taken of: a training batch, whose shapes alone matter."""
    return Batch.from_data_list(job.train[: job.settings.training.batch_size])


def stopwatch(job: RunContext) -> Measure:
    """What takes the times: of several processes the first one."""
    batch = timed_batch(job).to(job.device)
    clock = TakingTurns(lambda model: model(batch))
    return lambda models: decided(lambda: clock(models))


def check_latency(job: RunContext) -> None:
    """Refuse a latency that no cut of the network meets now, not after the training.

    Raises:
        ConfigError: it cannot be met.
    """
    p = job.settings.pruning
    if p.latency is None:
        return
    model, batch = build_model(job.settings, job.dataset).to(job.device), timed_batch(job)
    batch = batch.to(job.device)
    budget = LatencyBudget(model, lambda network: network(batch), stopwatch(job))
    budget.check(p.latency, p.scope, p.round_to or 1)


def latency_left(job: RunContext, rounds: PruningCallback) -> dict[str, Any]:
    """For ``metrics.json``: the budget, what was measured in the end, and with what."""
    budget, share = rounds.latency, job.settings.pruning.latency
    if budget is None or share is None:
        return {}
    left = budget.measured(rounds.keep)
    return {
        "latency_budget": share,
        "latency_share_measured": left.share,
        "latency_share_interval": [left.low, left.high],
        "latency_batch": timed_batch(job).num_graphs,
        "latency_threads": torch.get_num_threads(),
        "ms_per_channel": dict(budget.costs),
    }
