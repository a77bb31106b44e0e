"""Pruning until a cost is met, instead of to a sparsity: MACs or milliseconds."""

from __future__ import annotations

import statistics
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.channels import ChannelGroup, Prunable, evaluating
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.channel_choice import choose, round_widths
from egnn_prune.pruning.ledger import count_macs

Cost = Callable[[nn.Module], float]


def macs_of(run: Callable[[nn.Module], Any]) -> Cost:
    """A cost: multiply-accumulates of ``run(model)``, see :func:`count_macs`."""
    return lambda model: count_macs(model, run)[""]


def latency_of(run: Callable[[nn.Module], Any], repeats: int = 15) -> Cost:
    """A cost: median wall time of ``run(model)`` in seconds, after three calls to warm up."""

    def measure(model: nn.Module) -> float:
        def once() -> float:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            start = time.perf_counter()
            run(model)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            return time.perf_counter() - start

        with evaluating(model), torch.no_grad():
            times = [once() for _ in range(3 + repeats)][3:]
        return statistics.median(times)

    return measure


def choose_within(
    model: Prunable,
    groups: Sequence[ChannelGroup],
    scores: dict[str, Tensor],
    cost: Cost,
    share: float,
    scope: str = "global",
    *,
    keep: dict[str, Tensor] | None = None,
    round_to: int = 1,
) -> dict[str, Tensor]:
    """Remove the lowest-scored channels until at most a share of the dense cost is left.

    The smallest sparsity that meets the budget, found by bisection over the number of channels;
    every step measures the model that ``model.resized`` builds, no estimate.

    Args:
        model: the dense network.
        groups: its channel groups.
        scores: for each group ``[n]``, higher is more important.
        cost: :func:`macs_of` or :func:`latency_of` something, or your own.
        share: what may be left, in (0, 1], such as 0.3.
        scope: see :func:`choose`.
        keep: masks of an earlier round.
        round_to: see :func:`choose`.

    Raises:
        ConfigError: the share is out of range, or the smallest network still costs more.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"a budget is the share of the dense cost left, in (0, 1], not {share}")
    total = sum(g.n for g in groups)
    like = next(model.parameters())
    if keep:  # what is gone ranks lowest
        scores = {k: v.masked_fill(~keep[k].to(v.device), v.min() - 1) for k, v in scores.items()}

    def masks_for(count: int) -> dict[str, Tensor]:
        if not keep:
            return choose(scores, count / total, scope, groups=groups, round_to=round_to)
        masks = choose(scores, count / total, scope, groups=groups)
        masks = {k: mask & keep[k].cpu() for k, mask in masks.items()}
        round_widths(masks, scores, round_to, keep)
        return masks

    def costs(masks: dict[str, Tensor]) -> float:
        small = model.resized({k: v.nonzero().flatten() for k, v in masks.items()})
        return cost(small.to(like).train(model.training))

    def possible(count: int) -> bool:
        try:
            return bool(masks_for(count))
        except ConfigError:
            return False

    if not possible(0):
        masks_for(0)  # raises: the scores themselves are unusable
    most = bisect_left(range(1, total), True, key=lambda count: not possible(count))
    dense = costs({g.name: torch.ones(g.n, dtype=torch.bool) for g in groups})
    least = costs(masks_for(most))
    if least > share * dense:
        raise ConfigError(
            f"a budget of {share:.0%} of the dense cost cannot be met: with the fewest channels "
            f"that the scope {scope!r} allows, {least / dense:.0%} remains; allow more, or start "
            "from a smaller network"
        )
    within = bisect_left(
        range(most), True, key=lambda count: costs(masks_for(count)) <= share * dense
    )
    return masks_for(within)
