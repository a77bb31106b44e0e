"""A budget in time: what channels cost, which ones go, and what was gained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.channels import Prunable
from egnn_prune.pruning.budget import check_within, choose_within, latency_share_of
from egnn_prune.pruning.channel_costs import ChannelCosts, channel_costs, resized
from egnn_prune.pruning.multiples import best_multiple
from egnn_prune.pruning.stopwatch import Measure, TakingTurns
from egnn_prune.system.break_even import BreakEven

#: How far below its budget a network may stay, as a share of the dense time: about what nine pairs
#: of measurements can tell.
TOLERANCE = 0.02


class LatencyBudget:
    """Prunes a network until it takes at most a share of its dense form's time.

    Args:
        model: the dense network, masked or not.
        run: calls a model with the batch that shall become fast, such as ``lambda m: m(batch)``.
        measure: takes the times, instead of the clock.
        compiled: take the times of compiled networks; some ten seconds for each that is looked at.

    Attributes:
        costs: of a channel in ms, as they were last found.
    """

    def __init__(
        self,
        model: Prunable,
        run: Callable[[nn.Module], Any],
        measure: Measure | None = None,
        compiled: bool = False,
    ) -> None:
        self.model, self.run = model, run
        self.measure = measure or TakingTurns(run, compiled=compiled)
        self.groups = model.channel_groups()
        self.dense = resized(
            model, {g.name: torch.ones(g.n, dtype=torch.bool) for g in self.groups}
        )
        self.share_of = latency_share_of(self.dense, self.measure)
        self.costs = ChannelCosts({})

    def check(self, share: float, scope: str = "global", round_to: int = 1) -> None:
        """Refuse a share that cannot be met, before anything is trained or scored.

        Raises:
            ConfigError: the share is out of range, or the smallest network takes longer.
        """
        costs = self._costs(None)
        check_within(
            *(self.model, self.groups, self.share_of, share, scope), round_to=round_to, costs=costs
        )

    def choose(
        self,
        scores: dict[str, Tensor],
        share: float,
        scope: str = "global",
        *,
        keep: dict[str, Tensor] | None = None,
        round_to: int = 1,
    ) -> dict[str, Tensor]:
        """Masks of the network that meets the budget with the least importance lost.

        Channels cost what they cost in the network that earlier rounds left.

        Args:
            scores: for each group ``[n]``, higher is more important.
            share: of the dense network's time that may be left, in (0, 1].
            scope: see :func:`egnn_prune.pruning.choose`.
            keep: masks of an earlier round.
            round_to: widths become multiples of this.

        Raises:
            ConfigError: as for :meth:`check`.
        """
        self.costs = self._costs(keep)
        return choose_within(
            *(self.model, self.groups, scores, self.share_of, share, scope),
            keep=keep,
            round_to=round_to,
            costs=self.costs,
            tolerance=TOLERANCE,
        )

    def measured(self, keep: dict[str, Tensor]) -> BreakEven:
        """What the network that masks leave takes of the dense network's time, measured anew.

        The search took the first network that met the budget, so its times flatter.
        """
        times = self.measure({"before": self.dense, "after": resized(self.model, keep)})
        return BreakEven.of(times["before"], times["after"])

    def best_multiple(self) -> int:
        """What widths should be multiples of, see :func:`best_multiple`."""
        return best_multiple(self.model, self.groups, self.measure)

    def _costs(self, keep: dict[str, Tensor] | None) -> ChannelCosts:
        return channel_costs(self.model, self.groups, self.run, keep=keep, measure=self.measure)
