"""One quantity of the comparison of models: its numbers, its text and which model is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from egnn_prune.report.common.files import CALIBRATED, Metrics, models_present, number
from egnn_prune.report.common.formatting import MISSING, significant
from egnn_prune.report.common.intervals import certain, interval


@dataclass(frozen=True)
class Row:
    """One quantity of the comparison.

    Attributes:
        key: Name of the quantity in ``metrics.json``.
        label: Name for readers.
        unit: Unit; empty for counts and for dimensionless quantities.
        texts: Value per model with three significant digits; ``before → after`` where
            calibration changed the number.
        change: What pruning did, e.g. ``+3.1 %`` or ``2.9x fewer``; empty if not comparable.
        better: Whether the pruned model is better, calibrated where it can be; None if equal, not
            comparable, or where the interval does not tell.
        interval: 95 % interval of the last number in `change`, such as ``[+0.2, +6.1]``; empty
            for what is exact, and where there is none.
    """

    key: str
    label: str
    unit: str
    texts: Mapping[str, str]
    change: str
    better: bool | None
    interval: str


@dataclass(frozen=True)
class Spec:
    """How one quantity is shown.

    Attributes:
        key: Name of the quantity in ``metrics.json``.
        label: Name for readers.
        unit: Unit, empty if there is none.
        text: Writes a value.
        change: Compares pruned (first) with dense.
        sign: -1 if lower is better, +1 if higher, 0 if neither.
        ideal: The value to be close to, for a quantity that can be too low and too high.
        ends: Writes an interval of the change; None for counts, which are exact.
    """

    key: str
    label: str
    unit: str
    text: Callable[[float], str]
    change: Callable[[float, float], str]
    sign: int
    ideal: float | None = None
    ends: Callable[[float, float], str] | None = None

    def goodness(self, value: float) -> float:
        """Higher is better."""
        return self.sign * value if self.ideal is None else -abs(value - self.ideal)


def difference(new: float, old: float) -> str:
    """Plain difference, for quantities that can be zero or negative (NLL, correlation)."""
    if not (math.isfinite(new) and math.isfinite(old)):
        return MISSING
    return f"{new - old:+.3f}"


def difference_ends(low: float, high: float) -> str:
    """Interval of a :func:`difference`."""
    return f"[{low:+.3f}, {high:+.3f}]"


def fixed(value: float) -> str:
    """Three decimals, for quantities between 0 and 1 that are compared with each other."""
    return f"{value:.3f}" if math.isfinite(value) else MISSING


def arrow(before: str, after: str) -> str:
    """``before → after``, or one of them where the other is missing or the same."""
    if after in (before, MISSING, ""):
        return before
    return after if before == MISSING else f"{before} → {after}"


def row(spec: Spec, metrics: Metrics) -> Row | None:
    """The quantity for every model present, or None if no model has it."""
    names = models_present(metrics)
    before = {name: number(metrics["models"][name].get(spec.key)) for name in names}
    after = {name: number(metrics["models"][name].get(spec.key + CALIBRATED)) for name in names}
    calibrated = any(math.isfinite(value) for value in after.values())
    if not calibrated and not any(math.isfinite(value) for value in before.values()):
        return None
    change = spec.change(before["pruned"], before["dense"])
    last = spec.change(after["pruned"], after["dense"]) if calibrated else change
    final = after if calibrated and last != MISSING else before
    # "same" and "+0.0 %" are no verdict, whatever the last digits say.
    shown = last if final is after else change
    equal = shown in ("", "same", MISSING) or not shown.strip("+-0. %")
    new, old = spec.goodness(final["pruned"]), spec.goodness(final["dense"])
    better = None if equal or new == old else new > old
    ends = interval(metrics, spec.key + (CALIBRATED if final is after else ""))
    known = shown != MISSING and math.isfinite(sum(ends))
    if spec.ends is not None and not certain(ends):
        better = None  # the structures of this run cannot tell
    return Row(
        key=spec.key,
        label=spec.label,
        unit=spec.unit,
        texts={name: arrow(spec.text(before[name]), spec.text(after[name])) for name in names},
        change=arrow(change, last),
        better=better,
        interval=spec.ends(*ends) if spec.ends and known else "",
    )


def rows_of(specs: list[Spec], metrics: Metrics) -> list[Row]:
    """One row per quantity that at least one model has."""
    return [found for spec in specs if (found := row(spec, metrics)) is not None]


def score(
    key: str, label: str, unit: str = "", *, sign: int = -1, thirds: bool = False, at: int = 90
) -> Spec:
    """A quality of the error bars, compared by difference.

    Args:
        key: Name of the quantity in ``metrics.json``.
        label: Name for readers.
        unit: Unit, empty if there is none.
        sign: -1 if lower is better, +1 if higher, 0 if it is a coverage of `at` percent.
        thirds: Whether it has three decimals.
        at: What a coverage should be, in percent.
    """
    text = fixed if thirds else significant
    ideal = None if sign else at / 100
    return Spec(key, label, unit, text, difference, sign, ideal, difference_ends)


def calibration_specs(unit: str) -> list[Spec]:
    """Quality of the error bars on the test split, and how well they tell OOD graphs."""
    return [
        score("ence", "ENCE"),
        score("crps", "CRPS", unit),
        score("miscalibration_area", "Miscalibration area", thirds=True),
        score("coverage_90", "Coverage of 90 %", sign=0, thirds=True),
        score("ause", "AUSE"),
        score("ood_auroc", "OOD AUROC", sign=1, thirds=True),
    ]


def ood_specs() -> list[Spec]:
    """Quality of the error bars on the out-of-distribution split."""
    return [
        score("ood_nll", "NLL, OOD", "nats"),
        score("ood_ence", "ENCE, OOD"),
        score("ood_miscalibration_area", "Miscalibration area, OOD", thirds=True),
        score("ood_coverage_90", "Coverage of 90 %, OOD", sign=0, thirds=True),
    ]


def main_force_specs(unit: str) -> list[Spec]:
    """The few qualities of error bars of forces that stand beside those of energies."""
    main = ("force_ence", "force_coverage_90", "force_spearman_atoms", "force_auroc_wrong")
    return [spec for spec in force_specs(unit) if spec.key in main]


def force_specs(unit: str) -> list[Spec]:
    """Quality of the error bars of forces on the test split."""
    return [
        score("force_nll", "NLL of forces", "nats"),
        score("force_ence", "ENCE of forces"),
        score("force_crps", "CRPS of forces", unit),
        *(
            score(f"force_coverage_{p}", f"Coverage of {p} %, forces", sign=0, thirds=True, at=p)
            for p in (50, 80, 90, 95)
        ),
        score("force_spearman_atoms", "Spearman of atoms", sign=1),
        score("force_spearman_structures", "Spearman of structures", sign=1),
        score("force_ause", "AUSE of forces"),
        score("force_auroc_wrong", "AUROC of wrong atoms", sign=1, thirds=True),
        score("force_ood_auroc", "OOD AUROC of atoms", sign=1, thirds=True),
    ]


def ood_force_specs() -> list[Spec]:
    """Quality of the error bars of forces on the out-of-distribution split."""
    return [
        score("ood_force_ence", "ENCE of forces, OOD"),
        score("ood_force_coverage_90", "Coverage of 90 %, forces, OOD", sign=0, thirds=True),
        score("ood_force_spearman_atoms", "Spearman of atoms, OOD", sign=1),
    ]
