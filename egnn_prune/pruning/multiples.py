"""The multiple that widths should be of: what the kernels of this machine are fastest at."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch

from egnn_prune.channels import ChannelGroup, Prunable
from egnn_prune.pruning.channel_costs import resized
from egnn_prune.pruning.stopwatch import Measure

#: Multiples that are tried; a smaller one wins unless a larger one is faster by :data:`CLEARLY`.
MULTIPLES = (1, 4, 8, 16)
CLEARLY = 0.02


def best_multiple(model: Prunable, groups: Sequence[ChannelGroup], measure: Measure) -> int:
    """Choose ``round_to`` by measurement: the multiple with the least time per channel.

    Networks of sixteen consecutive widths, from half the dense one on, take turns. Widths that are
    rounded up to a multiple keep channels that were not asked for, so what counts is time per
    channel that is kept. Vector units make a difference: on an AMD EPYC (AVX-512, one thread,
    2,000 rows) a width of 32 takes less time than 31, and multiples of 8 take 11 to 16 % less time
    per channel than arbitrary widths between 16 and 64.

    Args:
        model: the dense network.
        groups: its channel groups; those that are too narrow stay as they are.
        measure: takes the times, such as a :class:`~egnn_prune.pruning.stopwatch.TakingTurns`.

    Returns:
        One of :data:`MULTIPLES`; 1 where no group is wide enough to tell.
    """
    widest = max(g.n for g in groups)
    start, most = -(-(widest // 2) // 16) * 16, MULTIPLES[-1]
    if start + most > widest or not start:
        return 1
    asked = range(start + 1, start + most + 1)

    def masks(width: int) -> dict[str, torch.Tensor]:
        return {g.name: torch.arange(g.n) < (width if g.n == widest else g.n) for g in groups}

    times = measure({str(width): resized(model, masks(width)) for width in asked})
    taken = {width: statistics.median(times[str(width)]) for width in asked}

    def per_channel(multiple: int) -> float:
        rounded = [-(-width // multiple) * multiple for width in asked]
        return sum(taken[width] for width in rounded) / sum(rounded)

    best = 1
    for multiple in MULTIPLES[1:]:
        if per_channel(multiple) < (1 - CLEARLY) * per_channel(best):
            best = multiple
    return best
