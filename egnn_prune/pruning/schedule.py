"""How sparsity grows while a model is pruned: pure functions of progress, to be plotted or used.

A schedule maps progress t in [0, 1] and the final sparsity s to the sparsity at t. The constant
steps of :func:`incremental` are counted in epochs instead, because their end is not set in advance.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from contextlib import suppress

from egnn_prune.errors import ConfigError
from egnn_prune.pruning.channel_choice import check_sparsity

Schedule = Callable[[float, float], float] | Callable[[float], float]


def one_shot(progress: float, sparsity: float) -> float:
    r"""All at once: :math:`s(t) = s` for :math:`t > 0`, and nothing at the start."""
    return sparsity if progress > 0 else 0.0


def iterative(progress: float, sparsity: float) -> float:
    r"""The same share of what is left in every round, :math:`s(t) = 1 - (1 - s)^t`.

    In n rounds each removes :math:`1 - (1 - s)^{1/n}` of the survivors. Source: Frankle and Carbin
    2019, Section 1.
    """
    return 1 - (1 - sparsity) ** progress


def linear(progress: float, sparsity: float) -> float:
    r"""The same number of channels in every round, :math:`s(t) = s\,t`."""
    return sparsity * progress


def cubic(progress: float, sparsity: float) -> float:
    r"""Fast while much is redundant, then slower, :math:`s(t) = s\,(1 - (1 - t)^3)`.

    Source: Zhu and Gupta 2017, Eq. 1, from an initial sparsity of zero.
    """
    return sparsity * (1 - (1 - progress) ** 3)


SCHEDULES: dict[str, Schedule] = {
    "one_shot": one_shot,
    "iterative": iterative,
    "linear": linear,
    "cubic": cubic,
}


def sparsities(schedule: str | Schedule, sparsity: float, rounds: int) -> list[float]:
    """The sparsity after each of n evenly spaced rounds; the last is exactly the one asked for.

    Args:
        schedule: a name in :data:`SCHEDULES`, or any non-decreasing function: of progress and final
            sparsity, giving the sparsity, or of progress alone, giving the share of the final
            sparsity that is reached.
        sparsity: the final fraction removed, in [0, 1).
        rounds: n, at least 1; a single round is one-shot pruning whatever the schedule.

    Raises:
        ConfigError: a value is out of range, there is no such schedule, or it falls.

    Example:
        >>> sparsities("linear", 0.75, 3)
        [0.25, 0.5, 0.75]
    """
    check_sparsity(sparsity)
    if rounds < 1:
        raise ConfigError(f"pruning needs at least one round, not {rounds}")
    if isinstance(schedule, str):
        if schedule not in SCHEDULES:
            raise ConfigError(f"schedule must be one of {', '.join(SCHEDULES)}, not {schedule!r}")
        schedule = SCHEDULES[schedule]
    steps = [_at(schedule, k / rounds, sparsity) for k in range(1, rounds)] + [sparsity]
    if not all(isinstance(s, int | float) and math.isfinite(s) for s in steps):
        raise ConfigError(f"a schedule must give numbers, but it gave {steps}")
    if any(b < a for a, b in zip([0.0, *steps], steps, strict=False)):
        raise ConfigError(f"a schedule must not let channels return, but it gave {steps}")
    return steps


def _at(schedule: Callable[..., float], progress: float, sparsity: float) -> float:
    """A schedule's sparsity, whether it is a function of progress alone or of both."""
    parameters: list[inspect.Parameter] = []
    with suppress(ValueError):  # some functions of C have no signature
        parameters = list(inspect.signature(schedule).parameters.values())
    needed = [p for p in parameters if p.default is p.empty and p.kind is not p.KEYWORD_ONLY]
    if len(needed) >= 2 or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return schedule(progress, sparsity)
    share = schedule(progress)
    return sparsity * share if isinstance(share, int | float) else share


def incremental(epoch: int, rate: float, every: int = 1, of: str = "remaining") -> float:
    r"""Sparsity during training that prunes a share q every k epochs, until somebody stops it.

    With :math:`m = \lfloor \text{epoch} / k \rfloor` rounds behind us, ``of="original"`` removes q
    of the dense model each time, :math:`s = q\,m`, and ``of="remaining"`` q of what is left,
    :math:`s = 1 - (1 - q)^m`.

    Args:
        epoch: epochs finished, counted from 0.
        rate: q, in [0, 1).
        every: k, at least 1.
        of: ``"original"`` or ``"remaining"``.

    Raises:
        ConfigError: a value is out of range, or the original is used up.

    Example:
        >>> [incremental(epoch, 0.5, every=2) for epoch in range(5)]
        [0.0, 0.0, 0.5, 0.5, 0.75]
    """
    if not 0 <= rate < 1:
        raise ConfigError(f"the rate is the fraction removed each time, in [0, 1), not {rate}")
    if every < 1 or epoch < 0:
        raise ConfigError(f"epochs count from 0 and 'every' from 1, not {epoch} and {every}")
    if of not in ("original", "remaining"):
        raise ConfigError(f"of must be 'original' or 'remaining', not {of!r}")
    rounds = epoch // every
    if of == "remaining":
        return 1 - (1 - rate) ** rounds
    if rate * rounds >= 1:
        raise ConfigError(
            f"{rounds} times {rate} of the original is all of it; prune less, less often, or a "
            "share of what remains"
        )
    return rate * rounds
