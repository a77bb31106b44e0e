"""Is the smaller network faster? The clock's answer, not that of a count of multiplications."""

from __future__ import annotations

from typing import Any

from torch import nn

from egnn_prune.api.pruning import device_of
from egnn_prune.pruning.calling import call, moved
from egnn_prune.pruning.criteria.batches import inputs_of
from egnn_prune.pruning.stopwatch import Measure, TakingTurns
from egnn_prune.system.break_even import BreakEven

#: Timed passes of each network: the 95 % interval of a median then spans the middle eight.
REPEATS = 15


def break_even(
    dense: nn.Module,
    small: nn.Module,
    batch: Any,
    *,
    compiled: bool = False,
    measure: Measure | None = None,
) -> BreakEven:
    """What a smaller network takes of a larger one's time on your batch, both taking turns.

    Args:
        dense: the network before pruning.
        small: what :func:`~egnn_prune.compact` returned; it is moved to where the other one is.
        batch: a batch as for :func:`~egnn_prune.prune`, as large as those that shall become fast.
        compiled: time both compiled (many seconds each).
        measure: takes the times, instead of the clock.

    Returns:
        The share of the time that is left with its 95 % interval; ``print`` says it in a sentence,
        and where nothing was gained also why.

    Raises:
        ConfigError: a network has no parameters, or cannot be called with the batch.
    """
    inputs = inputs_of(moved(batch, device_of(dense)))
    small = small.to(device_of(dense))
    measure = measure or TakingTurns(lambda m: call(m, inputs), REPEATS, compiled=compiled)
    times = measure({"dense": dense, "small": small})
    return BreakEven.of(times["dense"], times["small"])
