"""Error against speed: cuts that meet other budgets, each after a short fit."""

from __future__ import annotations

from typing import Any

from egnn_prune.channels import Prunable
from egnn_prune.pipeline import specialise_cut as cutting
from egnn_prune.pipeline.run_context import say
from egnn_prune.pipeline.specialise_context import SpecialiseContext


def curve(
    job: SpecialiseContext, model: Prunable, rungs: list[cutting.Rung], some: list[Any]
) -> list[dict[str, Any]]:
    """The points of all budgets that can be met, the largest network first.

    Args:
        job: whose structures and settings.
        model: what is cut.
        rungs: the cuts.
        some: structures that compensation is fitted on.
    """
    reached = wanted(job, rungs)
    points = {rung.conv: point(job, model, rung, some) for rung in dict.fromkeys(reached.values())}
    return [{"budget": b, **points[rung.conv]} for b, rung in reached.items()]


def wanted(job: SpecialiseContext, rungs: list[cutting.Rung]) -> dict[float, cutting.Rung]:
    """The cut for each budget that can be met."""
    budgets = sorted({job.settings.budget, *job.settings.budgets}, reverse=True)
    found = {b: cutting.within(rungs, b) for b in budgets}
    if out := [f"{b:g}" for b, rung in found.items() if rung is None]:
        say(f"  budgets that no cut meets are left out: {', '.join(out)}")
    return {b: rung for b, rung in found.items() if rung is not None}


def point(
    job: SpecialiseContext, model: Prunable, rung: cutting.Rung, some: list[Any]
) -> dict[str, Any]:
    """Error against speed of one cut, after a short fit."""
    val = job.dataset.split("val")
    small, compared = cutting.compensated_cut(model, rung.keep, some, val, job.device)
    before = {k: v for k, v in compared.items() if k != "used"}
    found = job.fit(f"cut by {rung.conv:.0%}", small, job.settings.cut.steps)
    return {
        "conv_sparsity": rung.conv,
        "path_sparsity": rung.paths,
        "latency_ms": rung.latency_ms,
        "latency_share": rung.share,
        "params": sum(p.numel() for p in small.parameters()),
        "compensated": compared["used"],
        "force_rmse_before_mev_per_angstrom": min(before.values()),
        "force_rmse_mev_per_angstrom": found.force_rmse,
    }
