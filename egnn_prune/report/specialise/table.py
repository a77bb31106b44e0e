"""The four models beside each other, and the budgets below each other, as tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

from egnn_prune.report.common.files import Metrics, number
from egnn_prune.report.common.formatting import MISSING, factor, si, significant
from egnn_prune.report.common.tables import Cell, Table
from egnn_prune.report.specialise.error_bars import coverage_rows
from egnn_prune.report.specialise.files import (
    FORCE_RMSE,
    LABELS,
    LATENCY,
    Structures,
    made_the_labels,
    models_present,
    values,
)
from egnn_prune.report.specialise.intervals import Ends, ratio_interval, rmse_interval
from egnn_prune.report.specialise.speed import BEFORE, curve_of

AGAINST = ("finetuned", "scratch")
"""What the specialised model is compared with."""

ERRORS = {
    FORCE_RMSE: ("Force RMSE", "meV/Å"),
    "force_mae_mev_per_angstrom": ("Force MAE", "meV/Å"),
    "energy_mae_mev_per_atom": ("Energy MAE", "meV/atom"),
    "energy_rmse_mev_per_atom": ("Energy RMSE", "meV/atom"),
    "stress_rmse_mev_per_angstrom3": ("Stress RMSE", "meV/Å³"),
}


def costs(metrics: Metrics) -> dict[str, tuple[str, str, Callable[[float], str]]]:
    """Label, unit and format of what is no error, by its key in ``metrics.json``."""
    many, one = (number(metrics.get(key)) for key in ("latency_atoms", "latency_single_atoms"))
    of, alone = (f" of {n:.0f} atoms" if math.isfinite(n) else "" for n in (many, one))
    return {
        LATENCY: (f"Time{of}", "ms", significant),
        "latency_single_ms": (f"Time of one{alone}", "ms", significant),
        "md_steps_per_second": ("MD steps a second", "", significant),
        "memory_mb": ("Memory", "MB", significant),
        "params": ("Parameters", "", si),
        "checkpoint_bytes": ("File", "", partial(si, unit="B")),
        "equivariance_error": ("Equivariance error", "", partial(significant, digits=2)),
        "reflection_error": ("Reflection error", "", partial(significant, digits=2)),
        "train_seconds": ("Training time", "s", significant),
    }


def compared_with(metrics: Metrics) -> list[str]:
    """The models that the specialised one is compared with: none that made the labels."""
    present = models_present(metrics)
    return [name for name in AGAINST if name in present and not made_the_labels(metrics, name)]


def models_table(metrics: Metrics, test: Structures) -> Table:
    """Every quantity that a model has, and errors as a factor of those of the others."""
    names, others = models_present(metrics), compared_with(metrics)
    header = ["", *(LABELS[n] for n in names), *(f"vs {LABELS[n]}" for n in others)]
    body: list[list[str | Cell]] = []
    for key, (label, unit) in ERRORS.items():
        found = values(metrics, key)
        if _none(found):
            continue
        cells = [significant(found[name]) for name in names]
        if key != FORCE_RMSE:
            body.append([_named(label, unit), *cells, *(ratio_text(found, n) for n in others)])
            continue
        changes = {name: ratio_interval(test, "specialised", name) for name in others}
        ratios = [Cell(ratio_text(found, n), _colour(changes[n])) for n in others]
        body.append([_named(label, unit), *cells, *ratios])
        intervals = [rmse_interval(test, name) for name in names] + list(changes.values())
        if any(map(_known, intervals)):
            shown = [_ends(e) for e in intervals[: len(names)]]
            shown += [_ends(e, "{:.2f}".format) for e in intervals[len(names) :]]
            body.append(["95 % interval", *(Cell(text, "soft") for text in shown)])
    body += [[*row, *("" for _ in others)] for row in coverage_rows(metrics)]
    for key, (label, unit, text) in costs(metrics).items():
        found = values(metrics, key)
        if _none(found):
            continue
        body.append([_named(label, unit), *map(text, found.values()), *("" for _ in others)])
        if key in (LATENCY, "latency_single_ms"):
            faster = [_faster(found, name) for name in names]
            body.append(["times faster than the teacher", *faster, *("" for _ in others)])
    return Table("", header, body, sortable=False)


def budgets_table(metrics: Metrics) -> Table | None:
    """What each budget cost; None where the run tried none."""
    curve = curve_of(metrics)
    if not curve:
        return None
    header = [
        *("budget", "ms", "times faster", "copies removed", "paths removed", "parameters"),
        *("compensated", "RMSE as cut", "RMSE after the fit"),
    ]
    body = []
    for faster, record in curve:
        compensated = record.get("compensated")
        body.append(
            [
                _percent(record["budget"]),
                significant(number(record.get(LATENCY))),
                speed_text(faster),
                _percent(record.get("conv_sparsity")),
                _percent(record.get("path_sparsity")),
                si(number(record.get("params"))),
                MISSING if compensated is None else "yes" if compensated else "no",
                significant(number(record.get(BEFORE))),
                significant(number(record.get(FORCE_RMSE))),
            ]
        )
    return Table("Budgets; force RMSE in meV/Å on the validation structures", header, body)


def ratio_text(found: Mapping[str, float], other: str) -> str:
    """The specialised model's number as a factor of another's, such as ``1.18x``."""
    above, below = found["specialised"], found[other]
    return f"{above / below:.2f}x" if math.isfinite(above) and below > 0 else MISSING


def _faster(found: Mapping[str, float], name: str) -> str:
    speed = found["teacher"] / found[name]
    return speed_text(speed) if math.isfinite(speed) else MISSING


def speed_text(speed: float) -> str:
    """How many times faster, such as ``4.0x``; ``0.83x`` is slower."""
    return factor(speed) if speed >= 1 else f"{speed:.2f}x"


def _percent(value: object) -> str:
    share = number(value)
    return f"{100 * share:.0f} %" if math.isfinite(share) else MISSING


def _named(label: str, unit: str) -> Cell:
    return Cell(f"{label} ({unit})" if unit else label)


def _none(found: Mapping[str, float]) -> bool:
    return not any(map(math.isfinite, found.values()))


def _known(ends: Ends) -> bool:
    return all(map(math.isfinite, ends))


def _ends(ends: Ends, text: Callable[[float], str] = significant) -> str:
    return f"[{text(ends[0])}, {text(ends[1])}]" if _known(ends) else ""


def _colour(ends: Ends) -> str:
    """Good or bad where the interval of a factor says so."""
    return "good" if ends[1] < 1 else "bad" if ends[0] > 1 else ""
