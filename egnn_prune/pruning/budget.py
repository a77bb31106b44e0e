"""Pruning until a cost is met, instead of to a sparsity: MACs or milliseconds."""

from __future__ import annotations

import statistics
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.channels import ChannelGroup, Prunable, evaluating
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.channel_choice import choose, round_widths
from egnn_prune.pruning.channel_costs import resized
from egnn_prune.pruning.ledger import count_macs
from egnn_prune.pruning.stopwatch import Measure, model_shapes
from egnn_prune.system.break_even import BreakEven

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


def latency_share_of(dense: nn.Module, measure: Measure) -> Cost:
    """A cost: the share that a model takes of a dense one's wall time, from pairs that take turns.

    Better than two runs of :func:`latency_of` where the machine has other work: what slows one of a
    pair slows the other. The dense model's own share is 1 by definition.

    Args:
        dense: whose time is the measure.
        measure: takes the times, such as a :class:`~egnn_prune.pruning.stopwatch.TakingTurns`.
    """

    def share(model: nn.Module) -> float:
        if model_shapes(model) == model_shapes(dense):
            return 1.0
        times = measure({"dense": dense, "small": model})
        return BreakEven.of(times["dense"], times["small"]).share

    return share


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
    costs: Mapping[str, float] | None = None,
    tolerance: float = 0.0,
) -> dict[str, Tensor]:
    """Remove channels until at most a share of the dense cost is left.

    The fewest channels that meet the budget, found by interpolation and bisection over their
    number; every step measures the model that ``model.resized`` builds, no estimate. Where a
    channel's own cost is known those of the least importance per cost go first: the greedy rule of
    the knapsack problem, which loses the least importance for what it saves (up to one channel,
    where costs add up).
    Without ``costs`` the least important ones go first, whatever they save.

    Args:
        model: the dense network.
        groups: its channel groups.
        scores: for each group ``[n]``, higher is more important.
        cost: :func:`macs_of`, :func:`latency_of` or :func:`latency_share_of` something, or your
            own.
        share: what may be left, in (0, 1], such as 0.3.
        scope: see :func:`choose`.
        keep: masks of an earlier round.
        round_to: see :func:`choose`.
        costs: of a channel, by the name of its group, see
            :func:`~egnn_prune.pruning.channel_costs.channel_costs`. A group whose channels cost
            nothing keeps them all: to remove them would bring nothing, and lose something.
        tolerance: the search ends early once the cost is within the budget and at most this share
            of the dense cost below it; for costs that are measured, and no more exact than that.

    Raises:
        ConfigError: the share is out of range, or the smallest network still costs more.
    """
    search = _Search(model, groups, scores, cost, scope, keep, round_to, costs)
    most = search.check(share)
    return search.masks(search.fewest(most, share, tolerance))


def check_within(
    model: Prunable,
    groups: Sequence[ChannelGroup],
    cost: Cost,
    share: float,
    scope: str = "global",
    *,
    round_to: int = 1,
    costs: Mapping[str, float] | None = None,
) -> None:
    """Refuse a budget that :func:`choose_within` could not meet, before there are any scores.

    Raises:
        ConfigError: the share is out of range, or the smallest network still costs more.
    """
    scores = {g.name: torch.zeros(g.n) for g in groups}
    _Search(model, groups, scores, cost, scope, None, round_to, costs).check(share)


class _Search:
    """Masks and costs by the number of channels that go."""

    def __init__(
        self,
        model: Prunable,
        groups: Sequence[ChannelGroup],
        scores: dict[str, Tensor],
        cost: Cost,
        scope: str,
        keep: dict[str, Tensor] | None,
        round_to: int,
        costs: Mapping[str, float] | None,
    ) -> None:
        self.model, self.scope, self.round_to, self.measure = model, scope, round_to, cost
        self.everything = {g.name: torch.ones(g.n, dtype=torch.bool) for g in groups}
        self.keep = {k: keep[k].cpu() for k in self.everything} if keep else None
        if costs is not None:
            groups = [g for g in groups if costs[g.name] > 0]
            scores = {g.name: scores[g.name] / costs[g.name] for g in groups}
        if self.keep:  # what is gone ranks lowest
            kept = self.keep
            scores = {
                k: v.masked_fill(~kept[k].to(v.device), v.min() - 1) for k, v in scores.items()
            }
        self.groups, self.scores = groups, scores
        self.total = sum(g.n for g in groups)
        self.known: dict[int, float] = {}

    def masks(self, count: int) -> dict[str, Tensor]:
        """The masks that remove so many channels, among them those of earlier rounds."""
        found: dict[str, Tensor] = {}
        if self.groups:
            share, rounded = count / self.total, 1 if self.keep else self.round_to
            found = choose(self.scores, share, self.scope, groups=self.groups, round_to=rounded)
        if self.keep:
            found = {k: mask & self.keep[k] for k, mask in found.items()}
            round_widths(found, self.scores, self.round_to, self.keep)
        others = self.keep or self.everything  # groups whose channels cost nothing
        return {k: found.get(k, mask).clone() for k, mask in others.items()}

    def cost(self, count: int) -> float:
        """What is left of the cost when so many channels go."""
        if count not in self.known:
            self.known[count] = self.measure(resized(self.model, self.masks(count)))
        return self.known[count]

    @cached_property
    def dense(self) -> float:
        """The cost of the dense network."""
        return self.measure(resized(self.model, self.everything))

    def check(self, share: float) -> int:
        """The largest number of channels that may go, where that meets the budget."""
        if not 0 < share <= 1:
            raise ConfigError(
                f"a budget is the share of the dense cost left, in (0, 1], not {share}"
            )
        if not self._possible(0):
            self.masks(0)  # raises: the scores themselves are unusable
        counts = range(1, self.total)
        most = bisect_left(counts, True, key=lambda count: not self._possible(count))
        least = self.cost(most)
        if least > share * self.dense:
            raise ConfigError(
                f"a budget of {share:.0%} of the dense cost cannot be met: with the fewest channels"
                f" that the scope {self.scope!r} allows, {least / self.dense:.0%} remains; allow "
                "more, or start from a smaller network"
            )
        return most

    def fewest(self, most: int, share: float, tolerance: float) -> int:
        """The smallest number of channels that meets the budget, of which ``most`` is one."""
        # the largest number that does not meet it, what it costs; and the smallest that does
        gone = sum(int((~mask).sum()) for k, mask in (self.keep or {}).items() if k in self.scores)
        low, high = gone - 1, most
        cost_low, cost_high = 1.0, self.cost(most) / self.dense
        while high - low > 1 and cost_high < share - tolerance:
            slope = (cost_low - cost_high) / (high - low)
            guess = (low + high) // 2
            if slope > 0 and len(self.known) % 2:  # by turns, for interpolation alone may creep
                guess = low + round((cost_low - share + tolerance / 2) / slope)
            guess = min(max(guess, low + 1), high - 1)
            found = self.cost(guess) / self.dense
            if found <= share:
                high, cost_high = guess, found
            else:
                low, cost_low = guess, found
        return high

    def _possible(self, count: int) -> bool:
        try:
            return bool(self.masks(count))
        except ConfigError:
            return False
