"""Yes, no or not decided: what a comparison that was named before the run says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import stdtr, stdtrit

from egnn_prune.report.common.formatting import MISSING
from egnn_prune.report.common.statistics import Summary, summarise

#: Chance with which the smallest effect that a page states would have shown, and the level of p.
POWER, LEVEL = 0.8, 0.05


@dataclass(frozen=True)
class Comparison:
    """One primary comparison, paired by seed.

    Attributes:
        label: what is compared with what.
        by_seed: of each seed the difference, or the logarithm of the ratio.
        yes: the sign that means yes, 1 or -1.
        margin: what is negligible: a difference, or a share such as 0.05 of a ratio.
        ratio: whether ``by_seed`` holds logarithms of ratios.
        unit: of a difference.
    """

    label: str
    by_seed: Mapping[Any, float]
    yes: int
    margin: float
    ratio: bool = False
    unit: str = ""


@dataclass(frozen=True)
class Answer:
    """What seeds say of a comparison.

    Attributes:
        comparison: which.
        found: mean over seeds and its interval.
        p: two-sided, of a t-test.
        adjusted: the same after Holm's correction over the question's comparisons.
        says: ``yes``, ``no`` or ``not decided``.
        detectable: the smallest effect that would have shown with 80 % chance.
        why: of a no: ``the reverse`` or ``negligible``.
    """

    comparison: Comparison
    found: Summary
    p: float
    adjusted: float
    says: str
    detectable: float
    why: str = ""


def shown(comparison: Comparison, value: float) -> str:
    """A difference, or the ratio that a logarithm stands for."""
    if math.isnan(value):
        return MISSING
    return f"{math.exp(value):.2f}x" if comparison.ratio else f"{value:+.3f}"


def found_text(answer: Answer) -> str:
    """Mean over the seeds with its interval, if there is one."""
    found = answer.found
    low, mean, high = (shown(answer.comparison, x) for x in (found.low, found.mean, found.high))
    interval = f" [{low}, {high}]" if found.n > 1 else ""
    return f"{mean}{interval} {answer.comparison.unit}".rstrip()


def answers(comparisons: Sequence[Comparison]) -> list[Answer]:
    r"""Answer the primary comparisons of one question.

    *Yes*: in the stated direction, with :math:`p < 0.05` after Holm's correction. *No*: as clear in
    the other direction, or the 95 % interval lies within the margin. The smallest effect that would
    have shown is :math:`(t_{0.975} + t_{0.8})\, s / \sqrt n`, with n - 1 degrees of freedom.
    """
    summaries = [summarise(c.by_seed.values()) for c in comparisons]
    chances = [p_value(found) for found in summaries]
    adjusted = holm(chances)
    return [
        Answer(c, found, p, q, says, detectable(found), why)
        for c, found, p, q in zip(comparisons, summaries, chances, adjusted, strict=True)
        for says, why in [_says(c, found, q)]
    ]


def _says(comparison: Comparison, found: Summary, adjusted: float) -> tuple[str, str]:
    if adjusted < LEVEL:
        return ("yes", "") if found.mean * comparison.yes > 0 else ("no", "the reverse")
    margin = comparison.margin
    low, high = (math.log1p(-margin), math.log1p(margin)) if comparison.ratio else (-margin, margin)
    if found.n > 1 and low < found.low and found.high < high:
        return "no", "negligible"
    return "not decided", ""


def p_value(found: Summary) -> float:
    """Two-sided chance of a mean so far from zero, by Student's t; NaN below two seeds."""
    if found.n < 2:
        return math.nan
    if not found.sd:
        return 0.0 if found.mean else 1.0
    t = found.mean / (found.sd / math.sqrt(found.n))
    return float(2 * stdtr(found.n - 1, -abs(t)))


def holm(chances: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979); NaN, of what was not run, counts as a comparison."""
    order = sorted(range(len(chances)), key=lambda i: (math.isnan(chances[i]), chances[i]))
    adjusted, largest = [math.nan] * len(chances), 0.0
    for place, i in enumerate(order):
        if math.isnan(chances[i]):
            continue
        largest = max(largest, min(1.0, (len(chances) - place) * chances[i]))
        adjusted[i] = largest
    return adjusted


def detectable(found: Summary) -> float:
    """The smallest effect that would have shown with 80 % chance; NaN below two seeds."""
    if found.n < 2:
        return math.nan
    free = found.n - 1
    return float((stdtrit(free, 0.975) + stdtrit(free, POWER)) * found.sd / math.sqrt(found.n))
