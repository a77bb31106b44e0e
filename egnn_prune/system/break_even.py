"""Whether a smaller network is faster at all: times of two that took turns, and a sentence."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

#: A share below this whose interval reaches 1 is a matter of noise, not of overhead.
NOISY = 0.9


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median and its 95 % interval, whatever the distribution.

    The ends are values themselves: the k-th smallest and the k-th largest, with the largest k for
    which the binomial chance that the true median lies beyond either end is at most 5 %. Fewer than
    six values cannot be that sure; their interval is all of them.

    Source: Conover, Practical Nonparametric Statistics, 1999, Section 3.2.

    Args:
        values: at least one, independent of each other.
    """
    ordered = sorted(values)
    n, below, k = len(ordered), 0.5 ** len(ordered), 0
    while k < (n - 1) // 2 and below + math.comb(n, k + 1) * 0.5**n <= 0.025:
        k += 1
        below += math.comb(n, k) * 0.5**n
    return statistics.median(ordered), ordered[k], ordered[n - 1 - k]


@dataclass(frozen=True)
class BreakEven:
    """What a smaller network takes of a larger one's time.

    Attributes:
        share: the median of the paired ratios; 0.5 is twice as fast.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    share: float
    low: float
    high: float

    @classmethod
    def of(cls, dense: Sequence[float], small: Sequence[float]) -> BreakEven:
        """From times that were taken in turns: a busy machine slows both of a pair alike."""
        return cls(*median_interval([new / old for old, new in zip(dense, small, strict=True)]))

    def __str__(self) -> str:
        """One sentence, whatever was found."""
        ends = f"[{1 / self.high:.2f}, {1 / self.low:.2f}]"
        return self.sentence() or f"{1 / self.share:.2f}x faster, 95 % interval {ends}."

    @property
    def pays(self) -> bool:
        """Whether the smaller network is certainly faster."""
        return self.high < 1

    def sentence(
        self,
        channels: float | None = None,
        macs: float | None = None,
        what: str = "a pass",
    ) -> str:
        """What there is to say where the smaller network is not faster; empty where it is.

        Args:
            channels: the share of channels that is gone.
            macs: the share of multiply-accumulates that is gone.
            what: is timed, such as ``"a batch of 32"``.
        """
        if self.pays:
            return ""
        gone = [
            f"{100 * share:.0f} % of the {name}"
            for share, name in ((channels, "channels"), (macs, "multiplications"))
            if share is not None and math.isfinite(share)
        ]
        first = f"{' and '.join(gone)} are gone, but {what}" if gone else what
        told = math.isfinite(self.low + self.high)
        ends = f" (95 % interval {self.low:.2f} to {self.high:.2f})" if told else ""
        why = "at this size the time is overhead, not channels; prune more, use larger batches, or "
        why += "compile"
        if self.share < NOISY:
            why = "times scatter too much to tell; measure again on a machine without other work"
        return f"{first} takes {self.share:.2f} of the dense time{ends}: {why}."
