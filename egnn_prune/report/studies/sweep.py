"""Error against sparsity, one curve per criterion: figure and tables of a sparsity sweep.

A row describes one pruned model: ``seed``, ``criterion`` (``dense`` for the model that was not
pruned), ``sparsity``, ``macs_share``, ``test_mae`` and, before fine-tuning, ``before_test_mae``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from egnn_prune.report.common.formatting import significant, text_table
from egnn_prune.report.common.statistics import Summary, summarise
from egnn_prune.report.common.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    house_style,
    light_grid,
    new_figure,
)

SweepRow = Mapping[str, Any]

DENSE = "dense"
_COLOURS = {
    "uncertainty": VERMILION,
    "taylor": PURPLE,
    "fisher": BLUE,
    "magnitude": ORANGE,
    "activation_norm": GREEN,
    "random": SKY,
}
_MARKERS = "sDo^vPXp*h"


def criteria_of(rows: Sequence[SweepRow]) -> list[str]:
    """The criteria of a sweep in order of appearance, the dense model aside."""
    return [c for c in dict.fromkeys(str(row["criterion"]) for row in rows) if c != DENSE]


def cell(
    rows: Sequence[SweepRow],
    criterion: str,
    sparsity: float,
    key: str,
    scale: Callable[[float], float] = float,
) -> Summary:
    """Mean and spread over the seeds of one number, at one criterion and sparsity."""
    return summarise(
        [
            scale(float(row[key]))
            for row in rows
            if row["criterion"] == criterion and row["sparsity"] == sparsity
        ]
    )


def _sparsities(rows: Sequence[SweepRow]) -> list[float]:
    return sorted({float(row["sparsity"]) for row in rows if row["criterion"] != DENSE})


def _curves(axes: Axes, rows: Sequence[SweepRow], key: str, x_key: str | None = None) -> None:
    """A line with an error bar per criterion, slightly apart so that the bars can be told."""
    criteria, at = criteria_of(rows), _sparsities(rows)
    seen: list[float] = []
    for k, criterion in enumerate(criteria):
        # on a logarithmic axis: geometric mean, and the interval of the logarithm
        points = [cell(rows, criterion, s, key, math.log) for s in at]
        mean = np.exp([p.mean for p in points])
        spread = np.exp([0.0 if math.isnan(p.half) else p.half for p in points])
        if x_key:
            x = np.array([cell(rows, criterion, s, x_key).mean for s in at])
        else:
            x = np.array(at) + 0.006 * (k - (len(criteria) - 1) / 2)
        axes.errorbar(
            x,
            mean,
            yerr=None if x_key else [mean - mean / spread, mean * spread - mean],
            color=_COLOURS.get(criterion, BLACK),
            marker=_MARKERS[k % len(_MARKERS)],
            markersize=4.5,
            capsize=2,
            elinewidth=0.9,
            label=criterion.replace("_", " "),
        )
        seen += mean.tolist()
    dense = summarise([float(row[key]) for row in rows if row["criterion"] == DENSE])
    axes.axhline(dense.mean, color=GREY, linestyle="--", linewidth=1, label="dense")
    axes.set_yscale("log")
    # where few seeds make an interval huge it may leave the frame; the curves must stay legible
    axes.set_ylim(min(seen + [dense.mean]) / 1.3, 1.6 * max(seen + [dense.mean]))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    light_grid(axes)


def sweep_plot(rows: Sequence[SweepRow], unit: str = "", steps: int | None = None) -> Figure:
    """Error against sparsity as pruned, and after fine-tuning; and against the work that is left.

    Args:
        rows: see the module's description.
        unit: of the error.
        steps: optimiser steps of the fine-tuning, for the title.

    Returns:
        A figure with three panels: geometric means, and 95 % t-intervals of the logarithm over
        the seeds.
    """
    error = f"test MAE ({unit})" if unit else "test MAE"
    seeds = len({row["seed"] for row in rows})
    after = f"after {steps} steps" if steps else "fine-tuned"
    with house_style():
        figure = new_figure(height=4.0)
        first, second, third = figure.subplots(1, 3)
        _curves(first, rows, "before_test_mae")
        first.set_title("as pruned")
        _curves(second, rows, "test_mae")
        second.set_title(after)
        _curves(third, rows, "test_mae", "macs_share")
        third.set_title(f"{after}, by cost")
        third.invert_xaxis()
        third.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f} %"))
        for axes in (first, second):
            axes.set_xlabel("sparsity (fraction of channels removed)")
        third.set_xlabel("MACs left")
        first.set_ylabel(error)
        handles, labels = second.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(7, len(labels)))
        note = f"bars: 95 % interval over {seeds} seeds" if seeds > 1 else "one seed"
        figure.suptitle(f"Which channels to remove?  ({note})")
    return figure


def sweep_table(rows: Sequence[SweepRow], unit: str = "", key: str = "test_mae") -> str:
    """Mean ± standard deviation over seeds, criteria by sparsities, as a terminal table."""
    at = _sparsities(rows)
    dense = summarise([float(row[key]) for row in rows if row["criterion"] == DENSE])
    body = [[DENSE, *[_spread(dense)] * len(at)]]
    body += [[c, *(_spread(cell(rows, c, s, key)) for s in at)] for c in criteria_of(rows)]
    label = f"{key}, {unit}" if unit else key
    return text_table([label, *(f"sparsity {s:g}" for s in at)], body)


def rivals_table(rows: Sequence[SweepRow], of: str = "uncertainty", key: str = "test_mae") -> str:
    """How much worse each criterion is than one of them, paired by seed, in percent [95 %].

    The mean over all sparsities comes last. Positive: the rival's error is higher.
    """
    at = _sparsities(rows)
    value = {(r["criterion"], r["sparsity"], r["seed"]): float(r[key]) for r in rows}
    seeds = sorted({row["seed"] for row in rows})

    def ratio(criterion: str, sparsity: float, seed: Any) -> float:
        return 100 * (value[criterion, sparsity, seed] / value[of, sparsity, seed] - 1)

    body = []
    for criterion in criteria_of(rows):
        if criterion == of:
            continue
        complete = [
            s for s in seeds if all({(criterion, p, s), (of, p, s)} <= value.keys() for p in at)
        ]
        columns = [[ratio(criterion, p, s) for s in complete] for p in at]
        means = [math.fsum(c) / len(c) for c in zip(*columns, strict=True)]
        body.append([criterion, *(_interval(summarise(c)) for c in [*columns, means])])
    return text_table([f"% above {of}", *(f"sparsity {s:g}" for s in at), "all"], body)


def _spread(summary: Summary) -> str:
    text = significant(summary.mean)
    decimals = len(text.partition(".")[2])
    return text if math.isnan(summary.sd) else f"{text} ± {summary.sd:.{decimals}f}"


def _interval(summary: Summary) -> str:
    if math.isnan(summary.half):
        return f"{summary.mean:+.1f}"
    low, high = summary.mean - summary.half, summary.mean + summary.half
    return f"{summary.mean:+.1f} [{low:+.1f}, {high:+.1f}]"
