"""What a channel costs in milliseconds, group by group, on the batches that matter to the user.

Multiplications say little about time: a gather, an activation or a launch costs none of them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from egnn_prune.channels import ChannelGroup, Prunable
from egnn_prune.pruning.ledger import count_macs
from egnn_prune.pruning.stopwatch import Measure, TakingTurns
from egnn_prune.system.break_even import median_interval

#: Networks with more groups than this are measured kind by kind.
MOST_GROUPS = 8
#: The share of a group's channels that is taken away to see what they cost.
PART = 0.5


@dataclass(frozen=True)
class Price:
    """What was found about a group, or about all groups of a kind together.

    Attributes:
        name: of the group or kind.
        removed: channels that were taken away to see.
        saved_ms: by how much that was faster: the median, and the ends of its 95 % interval.
        told_by: ``"time"`` where the interval lies above zero; ``"MACs"`` where time is too noisy
            to tell, and what is saved is estimated from multiply-accumulates, within the interval;
            ``"nothing"`` where fewer channels are no faster, and the price is zero.
        price_ms: what all removed channels are taken to cost.
    """

    name: str
    removed: int
    saved_ms: tuple[float, float, float]
    told_by: str
    price_ms: float


class ChannelCosts(dict[str, float]):
    """Milliseconds per channel by the name of the group; ``print`` shows how they were found.

    Attributes:
        prices: what was measured.
    """

    def __init__(self, costs: dict[str, float], prices: Sequence[Price] = ()) -> None:
        super().__init__(costs)
        self.prices = tuple(prices)

    def __str__(self) -> str:
        """One row per measurement."""
        lines = [f"{'':16}{'channels':>9}{'saved ms':>10}{'95 % interval':>18}  told by"]
        for p in self.prices:
            saved, low, high = p.saved_ms
            ends = f"{low:.3f} to {high:.3f}"
            lines.append(f"{p.name:16}{p.removed:>9}{saved:>10.3f}{ends:>18}  {p.told_by}")
        return "\n".join(lines)


def channel_costs(
    model: Prunable,
    groups: Sequence[ChannelGroup],
    run: Callable[[nn.Module], Any],
    *,
    keep: dict[str, Tensor] | None = None,
    compiled: bool = False,
    measure: Measure | None = None,
) -> ChannelCosts:
    r"""Measure what the channels of each group cost, in milliseconds per channel.

    The model takes turns with copies that lack half the channels of one group each, or of one kind
    where there are more than :data:`MOST_GROUPS` groups; a copy's times :math:`t'_i` belong to the
    model's :math:`t_i` of the same turn:

    .. math:: c = \max(0, \operatorname{median}_i (t_i - t'_i)) / \text{channels removed}

    Where the 95 % interval of the median lies below zero the cost is zero: removing these channels
    brings no time. Where it contains zero, time is too noisy to tell; the cost is then estimated
    from the multiply-accumulates, at what these cost where time told (or on average over the whole
    network, where it told nowhere), within the interval. Groups of a kind that differ share its
    cost in proportion to their multiply-accumulates.

    Costs are what a channel brings *here*: they change as other groups shrink, so measure again
    between rounds. The numbers depend on nothing but the measurements.

    Args:
        model: the dense network; random weights will do.
        groups: its channel groups.
        run: calls a model, such as ``lambda m: m(batch)``, with the batch that shall become fast.
        keep: masks of an earlier round; costs are then those of the network that these leave.
        compiled: measure compiled networks, each compiled for its shapes, which takes many seconds
            a network.
        measure: takes the times, instead of the clock; ``compiled`` is then its business.
    """
    measure = measure or TakingTurns(run, compiled=compiled)
    kept = {g.name: keep[g.name].cpu() if keep else _ones(g) for g in groups}
    parts: dict[str, list[ChannelGroup]] = {}
    for group in groups:
        part = group.name if len(groups) <= MOST_GROUPS else group.kind
        parts.setdefault(part, []).append(group)
    whole = resized(model, kept)
    smaller = {name: _without(kept, part) for name, part in parts.items()}
    networks = {name: resized(model, masks) for name, masks in smaller.items()}
    times = measure({"": whole, **networks})
    saved = {
        name: median_interval([t - s for t, s in zip(times[""], times[name], strict=True)])
        for name in parts
    }
    macs = _Macs(model, kept, run)
    per_mac = 0.0
    if any(low <= 0 < high for _, low, high in saved.values()):
        told = {name: smaller[name] for name, (_, low, _) in saved.items() if low > 0}
        spared = sum(macs.spared(masks) for masks in told.values())
        if spared > 0:
            per_mac = sum(saved[name][0] for name in told) / spared
        else:  # nothing is certain: all the time, over all the work
            per_mac = statistics.median(times[""]) / max(1, macs.whole)
    prices, costs = [], {}
    for name, part in tqdm(parts.items(), "costs of channels", leave=False, delay=2):
        removed = {g.name: _gone(kept, smaller[name], g) for g in part}
        estimate = per_mac and per_mac * macs.spared(smaller[name])
        price = _price(name, sum(removed.values()), saved[name], estimate)
        prices.append(price)
        work = {g.name: 1 for g in part}
        if price.price_ms and len({_sizes(g) for g in part}) > 1:
            work = {g.name: macs.spared(_without(kept, [g])) for g in part}
        total = sum(work[n] for n in removed if removed[n]) or 1
        for n, count in removed.items():
            costs[n] = price.price_ms * work[n] / total / count if count else 0.0
    return ChannelCosts({g.name: costs[g.name] for g in groups}, prices)


def resized(model: Prunable, keep: dict[str, Tensor]) -> nn.Module:
    """A fresh network of these widths where the model is, without a draw that anybody else sees."""
    like = next(model.parameters())
    with torch.random.fork_rng(devices=[]):
        small = model.resized({name: mask.nonzero().flatten() for name, mask in keep.items()})
    return small.to(like).train(model.training)


def _price(name: str, removed: int, saved: tuple[float, float, float], estimate: float) -> Price:
    median, low, high = saved
    if low > 0:
        return Price(name, removed, saved, "time", median)
    if high <= 0 or not removed:
        return Price(name, removed, saved, "nothing", 0.0)
    return Price(name, removed, saved, "MACs", min(estimate, high))


class _Macs:
    """Counts what is spared when channels go, which takes a pass each time."""

    def __init__(
        self, model: Prunable, kept: dict[str, Tensor], run: Callable[[nn.Module], Any]
    ) -> None:
        self.model, self.kept, self.run = model, kept, run

    @cached_property
    def whole(self) -> int:
        return self._of(self.kept)

    def spared(self, masks: dict[str, Tensor]) -> int:
        return self.whole - self._of(masks)

    def _of(self, masks: dict[str, Tensor]) -> int:
        return count_macs(resized(self.model, masks), self.run)[""]


def _sizes(group: ChannelGroup) -> tuple[int, ...]:
    """How many entries a channel owns in each tensor: groups that agree do the same work."""
    return (group.n, *(m.index[0].numel() for m in group.members), len(group.members))


def _ones(group: ChannelGroup) -> Tensor:
    return torch.ones(group.n, dtype=torch.bool)


def _without(kept: dict[str, Tensor], part: Sequence[ChannelGroup]) -> dict[str, Tensor]:
    """The masks without a part of what these groups still have; one channel each stays."""
    smaller = dict(kept)
    for group in part:
        alive = kept[group.name].nonzero().flatten()
        mask = kept[group.name].clone()
        mask[alive[len(alive) - math.floor(PART * len(alive)) :]] = False
        smaller[group.name] = mask
    return smaller


def _gone(kept: dict[str, Tensor], smaller: dict[str, Tensor], group: ChannelGroup) -> int:
    return int(kept[group.name].sum()) - int(smaller[group.name].sum())
