"""The calibration study: what pruning does to errors and to error bars, in tables and a figure.

A row describes one estimator of one network on one split after one recalibration: ``seed``,
``estimator``, ``sparsity`` (0 for dense), ``recalibration`` (``none``, ``dense``, or the name of
a calibration), ``split``, ``unit`` and the scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

from egnn_prune.report.common.files import number
from egnn_prune.report.common.formatting import MISSING, significant, text_table
from egnn_prune.report.common.statistics import Summary, summarise
from egnn_prune.report.common.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILION,
    house_style,
    light_grid,
    new_figure,
)

Rows = Sequence[Mapping[str, Any]]

#: Lines of the figure: quantity, recalibration, colour, line style, label.
_LINES = (
    ("accuracy_nats", "none", GREY, "-", "errors and ranking"),
    ("miscalibration_nats", "none", VERMILION, "-", "size of error bars, as they are"),
    (
        "miscalibration_nats",
        "dense",
        GREEN,
        ":",
        "the same, one factor fitted before pruning",
    ),
    ("miscalibration_nats", "robust", BLUE, "--", "the same, factor fitted again after it"),
)
#: Lines of the coverage panels: split, recalibration, colour, line style, label.
_COVERAGE = (
    ("test", "none", BLACK, "-", "coverage on test, as it is"),
    ("test", "robust", BLUE, "--", "coverage on test, one factor"),
    ("ood", "none", ORANGE, "-", "coverage out of distribution, as it is"),
    ("ood", "robust", PURPLE, "--", "coverage out of distribution, one factor"),
)


def study_table(rows: Rows, split: str) -> str:
    """Mean and spread over seeds of every score, before and after recalibration.

    Args:
        rows: See the module's description.
        split: ``test`` or ``ood``.

    Returns:
        Plain text; empty if there are no rows of the split.
    """
    chosen = [row for row in rows if row["split"] == split]
    if not chosen:
        return ""
    body = []
    for estimator, sparsity, recalibration in _cells(chosen):
        cell = _pick(chosen, estimator, sparsity, recalibration)
        shown = [
            _spread(summarise([number(row.get(key)) for row in cell.values()]))
            for key in ("mae", "nll", "crps", "ence", "miscalibration_area", "coverage_90")
            + ("ause", "ood_auroc")
        ]
        body.append([estimator, f"{sparsity:g}", recalibration, str(len(cell)), *shown])
    unit = chosen[0]["unit"]
    header = ["estimator", "sparsity", "recalibrated", "seeds", f"MAE ({unit})", "NLL (nats)"]
    header += [f"CRPS ({unit})", "ENCE", "miscal. area", "coverage 90 %", "AUSE", "OOD AUROC"]
    title = "Test split" if split == "test" else "Out-of-distribution split"
    return f"{title}: mean ± standard deviation over seeds\n\n" + text_table(header, body, left=3)


def answer_table(rows: Rows) -> str:
    """What pruning costs against the dense network of the same seed, in nats of likelihood.

    For every split, estimator and sparsity the paired changes with 95 % t-intervals: of the part
    of the negative log-likelihood that errors and ranking cause, and of the part that wrongly sized
    error bars cause (as they are, calibrated before pruning, calibrated again after it). The last
    column compares the first with the part calibrated before, paired by seed: "calibration" or
    "accuracy" where that one was harmed and the interval of their difference excludes zero,
    "neither" where neither interval holds any harm, else it cannot be told.
    """
    body = []
    for split in dict.fromkeys(row["split"] for row in rows):
        chosen = [row for row in rows if row["split"] == split]
        for estimator, sparsity in dict.fromkeys(cell[:2] for cell in _cells(chosen)):
            if sparsity == 0:
                continue
            changes = {
                (key, how): _change(chosen, estimator, sparsity, key, how)
                for key, how, *_ in _LINES
            }
            accuracy = changes["accuracy_nats", "none"]
            raw = changes["miscalibration_nats", "none"]
            before = changes["miscalibration_nats", "dense"]
            more = summarise([c - a for c, a in zip(before, accuracy, strict=True)])
            dense = _pick(chosen, estimator, 0.0, "none")
            reference = summarise([number(row["mae"]) for row in dense.values()]).mean
            errors = _change(chosen, estimator, sparsity, "mae", "none")
            body.append(
                [
                    split,
                    estimator,
                    f"{sparsity:g}",
                    str(more.n),
                    _percent(errors, reference),
                    _interval(summarise(accuracy)),
                    _interval(summarise(raw)),
                    _interval(summarise(before)),
                    _interval(summarise(changes["miscalibration_nats", "robust"])),
                    _verdict(summarise(accuracy), summarise(before), more),
                ]
            )
    header = ["split", "estimator", "sparsity", "seeds", "MAE", "accuracy (nats)"]
    header += ["uncalibrated (nats)", "calibrated before (nats)", "again after (nats)"]
    header += ["harmed more"]
    return (
        "Cost of pruning: change of each part of the negative log-likelihood against the dense "
        "network\nof the same seed [95 % interval]; sizes of the error bars as the method states "
        "them, with the\nfactor fitted before pruning, and with a factor fitted again after it\n\n"
        + text_table(header, body, left=2)
    )


def study_plot(rows: Rows) -> Figure:
    """What pruning costs against sparsity, one column an estimator, and what coverage is left.

    Upper rows: change of each part of the likelihood against the dense network, one row a split,
    on an axis that is linear near zero and logarithmic beyond. Last row: how often the 90 %
    interval holds the truth. Bands are 95 % t-intervals over seeds.
    """
    splits = list(dict.fromkeys(row["split"] for row in rows))
    estimators = list(dict.fromkeys(row["estimator"] for row in rows))
    seeds = len({row["seed"] for row in rows})
    with house_style():
        figure = new_figure(height=2.0 + 2.1 * (len(splits) + 1))
        panels = figure.subplots(
            len(splits) + 1, len(estimators), sharex=True, sharey="row", squeeze=False
        )
        for i, split in enumerate(splits):
            chosen = [row for row in rows if row["split"] == split]
            for axes, estimator in zip(panels[i], estimators, strict=True):
                axes.axhline(0, color=BLACK, linewidth=0.8)
                axes.set_yscale("symlog", linthresh=1.0, linscale=2.5)
                axes.yaxis.set_minor_locator(NullLocator())
                axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
                for key, how, *style in _LINES:
                    _line(axes, partial(_change, chosen, estimator, key=key, how=how), rows, *style)
            panels[i][0].set_ylabel(f"{'test' if split == 'test' else 'OOD'}: cost (nats)")
        for axes, estimator in zip(panels[-1], estimators, strict=True):
            axes.axhline(0.9, color=BLACK, linewidth=0.8)
            for split, how, *style in _COVERAGE:
                chosen = [row for row in rows if row["split"] == split]
                if chosen:
                    _line(axes, partial(_coverage, chosen, estimator, how=how), rows, *style)
        panels[-1][0].set_ylabel("90 % interval holds")
        panels[-1][0].set_ylim(0.0, 1.02)
        for axes, estimator in zip(panels[0], estimators, strict=True):
            axes.set_title(estimator.replace(" ", "\n", 1), fontsize=9)
        handles, labels = panels[0][0].get_legend_handles_labels()
        more, names = panels[-1][0].get_legend_handles_labels()
        figure.legend(
            [*handles, *more], [*labels, *names], loc="outside lower center", ncols=2, fontsize=8.5
        )
        panels[-1][len(estimators) // 2].set_xlabel("fraction of channels removed")
        note = f"{seeds} seeds, bands: 95 % interval" if seeds > 1 else "one seed"
        figure.suptitle(f"What pruning costs, against dense ({note})", fontsize=11)
    return figure


def _line(
    axes: Axes,
    values: Callable[[float], list[float]],
    rows: Rows,
    colour: str,
    style: str,
    label: str,
) -> None:
    """A line through the sparsities, equally spaced, with its band."""
    sparsities = sorted({row["sparsity"] for row in rows})
    found = [summarise(values(sparsity)) for sparsity in sparsities]
    x = np.arange(len(sparsities))
    mean = np.array([f.mean for f in found])
    half = np.array([0.0 if math.isnan(f.half) else f.half for f in found])
    axes.plot(x, mean, color=colour, linestyle=style, marker="o", markersize=3, label=label)
    axes.fill_between(x, mean - half, mean + half, color=colour, alpha=0.13, linewidth=0)
    axes.set_xticks(x, [f"{s:g}".lstrip("0") or "0" for s in sparsities], fontsize=8.5)
    light_grid(axes)


def _coverage(rows: Rows, estimator: str, sparsity: float, how: str) -> list[float]:
    """Coverage of the 90 % interval, one number a seed."""
    return [number(r["coverage_90"]) for r in _pick(rows, estimator, sparsity, how).values()]


def _cells(rows: Rows) -> list[tuple[str, float, str]]:
    """Estimators in order of appearance, their sparsities and recalibrations."""
    order = list(dict.fromkeys(row["estimator"] for row in rows))
    cells = dict.fromkeys((r["estimator"], r["sparsity"], r["recalibration"]) for r in rows)
    return sorted(cells, key=lambda cell: (order.index(cell[0]), cell[1]))


def _pick(
    rows: Rows, estimator: str, sparsity: float, recalibration: str
) -> dict[Any, Mapping[str, Any]]:
    """The rows of a cell by seed."""
    wanted = (estimator, sparsity, recalibration)
    return {
        row["seed"]: row
        for row in rows
        if (row["estimator"], row["sparsity"], row["recalibration"]) == wanted
    }


def _change(rows: Rows, estimator: str, sparsity: float, key: str, how: str) -> list[float]:
    """Pruned minus dense, for every seed that has both."""
    dense, pruned = (_pick(rows, estimator, s, how) for s in (0.0, sparsity))
    return [
        number(pruned[seed][key]) - number(dense[seed][key])
        for seed in sorted(set(dense) & set(pruned))
    ]


def _spread(summary: Summary) -> str:
    if summary.n == 0:
        return MISSING
    if math.isnan(summary.sd):
        return significant(summary.mean)
    return f"{summary.mean:.3f} ± {summary.sd:.3f}"


def _interval(summary: Summary, digits: int = 3, unit: str = "") -> str:
    """Mean with its interval over seeds, where there is one."""
    if summary.n == 0:
        return MISSING
    mean = f"{summary.mean:+.{digits}f}{unit}"
    if math.isnan(summary.half):
        return mean
    low, high = summary.mean - summary.half, summary.mean + summary.half
    return f"{mean} [{low:+.{digits}f}, {high:+.{digits}f}]"


def _percent(changes: Sequence[float], reference: float) -> str:
    """Mean change in percent of a reference, with the interval over seeds."""
    return _interval(summarise([100 * change / reference for change in changes]), 1, " %")


def _verdict(accuracy: Summary, calibration: Summary, more: Summary) -> str:
    """Which of the two was harmed more, where the intervals say so."""
    if math.isnan(more.half):
        return "cannot be told (one seed)"
    if more.mean - more.half > 0 and calibration.mean - calibration.half > 0:
        return "calibration"
    if more.mean + more.half < 0 and accuracy.mean - accuracy.half > 0:
        return "accuracy"
    if max(accuracy.mean + accuracy.half, calibration.mean + calibration.half) <= 0:
        return "neither"
    return "cannot be told"
