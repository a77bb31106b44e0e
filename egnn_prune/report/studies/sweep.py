"""Error against sparsity, one curve per criterion: figure and tables of a sparsity sweep.

A row describes one pruned model: ``seed``, ``criterion`` (``dense`` for the model that was not
pruned), ``sparsity``, ``macs_share``, ``latency_share`` (absent from older sweeps), ``test_mae``
and, before fine-tuning, ``before_test_mae``.
"""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from egnn_prune.report.common.formatting import text_table
from egnn_prune.report.common.plots import interval_note, legend_below, line, plain_log
from egnn_prune.report.common.statistics import (
    Rows,
    Summary,
    by_seed,
    interval_text,
    over_seeds,
    spread_text,
    summarise,
    values,
)
from egnn_prune.report.common.style import GREY, house_style, light_grid, looks, new_figure

DENSE = "dense"


def criteria_of(rows: Rows) -> list[str]:
    """The criteria of a sweep in order of appearance, the dense model aside."""
    return [criterion for criterion in values(rows, "criterion") if criterion != DENSE]


def cell(rows: Rows, criterion: str, sparsity: float, key: str) -> Summary:
    """Mean and spread over the seeds of one number, at one criterion and sparsity."""
    return over_seeds(rows, key, criterion=criterion, sparsity=sparsity)


def _sparsities(rows: Rows) -> list[float]:
    return sorted({float(row["sparsity"]) for row in rows if row["criterion"] != DENSE})


def _curves(axes: Axes, rows: Rows, key: str, x_key: str | None = None) -> None:
    """A line with an error bar per criterion, slightly apart so that the bars can be told."""
    criteria, at = criteria_of(rows), _sparsities(rows)
    dense = over_seeds(rows, key, criterion=DENSE).mean
    seen = [dense]
    for k, (criterion, look) in enumerate(looks(criteria).items()):
        cells = [{"criterion": criterion, "sparsity": s} for s in at]
        # on a logarithmic axis: geometric mean, and the interval of the logarithm
        found = [summarise(map(math.log, by_seed(rows, key, **c).values())) for c in cells]
        label = criterion.replace("_", " ")
        if x_key:
            x = [over_seeds(rows, x_key, **c).mean for c in cells]
            axes.plot(x, np.exp([f.mean for f in found]), color=look[0], marker=look[1], ms=4.5)
        else:
            x = [s + 0.006 * (k - (len(criteria) - 1) / 2) for s in at]
            line(axes, x, found, look, label, scale=np.exp)
        seen += [math.exp(f.mean) for f in found]
    axes.axhline(dense, color=GREY, linestyle="--", linewidth=1, label="dense")
    axes.set_yscale("log")
    # where few seeds make an interval huge it may leave the frame; the curves must stay legible
    axes.set_ylim(min(seen) / 1.3, 1.6 * max(seen))
    plain_log(axes.yaxis, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
    axes.set_xlabel("sparsity (fraction of channels removed)")
    light_grid(axes)


@house_style()
def sweep_plot(rows: Rows, unit: str = "", steps: int | None = None) -> Figure:
    """Error against sparsity as pruned, and after fine-tuning; and against the work that is left.

    Args:
        rows: see the module's description.
        unit: of the error.
        steps: optimiser steps of the fine-tuning, for the title.

    Returns:
        A figure with three panels: geometric means, and 95 % t-intervals of the logarithm over
        the seeds.
    """
    after = f"after {steps} steps" if steps else "fine-tuned"
    figure = new_figure(height=4.0)
    first, second, third = figure.subplots(1, 3)
    _curves(first, rows, "before_test_mae")
    first.set_title("as pruned")
    first.set_ylabel(f"test MAE ({unit})" if unit else "test MAE")
    _curves(second, rows, "test_mae")
    second.set_title(after)
    timed = all(row.get("latency_share") for row in rows)  # older sweeps counted only
    _curves(third, rows, "test_mae", "latency_share" if timed else "macs_share")
    third.set_title(f"{after}, by cost")
    third.invert_xaxis()
    third.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f} %"))
    third.set_xlabel("time left" if timed else "MACs left")
    legend_below(figure, second)
    figure.suptitle(f"Which channels to remove?  ({interval_note(rows, 'bars')})")
    return figure


def sweep_table(rows: Rows, unit: str = "", key: str = "test_mae") -> str:
    """Mean ± standard deviation over seeds, criteria by sparsities, as a terminal table."""
    at = _sparsities(rows)
    body = [[DENSE, *[spread_text(over_seeds(rows, key, criterion=DENSE))] * len(at)]]
    body += [[c, *(spread_text(cell(rows, c, s, key)) for s in at)] for c in criteria_of(rows)]
    label = f"{key}, {unit}" if unit else key
    return text_table([label, *(f"sparsity {s:g}" for s in at)], body)


def rivals_table(rows: Rows, of: str = "uncertainty", key: str = "test_mae") -> str:
    """How much worse each criterion is than one of them, paired by seed, in percent [95 %].

    The mean over all sparsities comes last. Positive: the rival's error is higher. Seeds that lack
    a sparsity are left out.
    """
    at = _sparsities(rows)
    body = []
    for criterion in criteria_of(rows):
        if criterion == of:
            continue
        pairs = [[by_seed(rows, key, criterion=c, sparsity=s) for c in (criterion, of)] for s in at]
        complete = set.intersection(*(set(found) for pair in pairs for found in pair))
        columns = [[100 * (new[s] / old[s] - 1) for s in complete] for new, old in pairs]
        columns.append([math.fsum(c) / len(c) for c in zip(*columns, strict=True)])
        body.append([criterion, *(interval_text(summarise(c), 1) for c in columns)])
    return text_table([f"% above {of}", *(f"sparsity {s:g}" for s in at), "all"], body)
