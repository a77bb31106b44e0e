"""Criteria against each other over seeds and sparsities: CSV, summary table and plot.

A row describes one trained model: ``seed``, ``arm`` (``dense`` or a pruning criterion),
``sparsity`` (fraction of channels removed), ``test_mae`` and ``ood_mae`` in ``unit``,
``macs_per_graph``, ``params``, ``latency_ms``, ``nll`` and ``spearman_error_uncertainty``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from egnn_prune.errors import InputError
from egnn_prune.report.common.files import number
from egnn_prune.report.common.formatting import MISSING, text_table
from egnn_prune.report.common.plots import band, legend_below
from egnn_prune.report.common.statistics import (
    Rows,
    by_seed,
    over_seeds,
    paired_text,
    spread_text,
    values,
)
from egnn_prune.report.common.style import BLUE, GREY, house_style, light_grid, looks, new_figure

DENSE = "dense"
COLUMNS = (
    *("seed", "arm", "sparsity", "test_mae", "ood_mae", "unit", "macs_per_graph", "params"),
    *("latency_ms", "nll", "spearman_error_uncertainty"),
)
_REQUIRED = ("seed", "arm", "test_mae", "macs_per_graph")


def _checked(rows: Rows) -> list[dict[str, Any]]:
    """The rows, dense first; it has the sparsity 0, however the job filled the field.

    Raises:
        InputError: If there are none, or they lack something, contradict or repeat each other.
    """
    if not rows:
        raise InputError("comparison: there are no rows")
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for i, row in enumerate(rows):
        missing = [key for key in _REQUIRED if row.get(key) is None]
        if missing:
            raise InputError(f"comparison: row {i} lacks {', '.join(missing)}")
        sparsity = 0.0 if row["arm"] == DENSE else number(row.get("sparsity"))
        if not math.isfinite(sparsity):
            raise InputError(f"comparison: row {i} ({row['arm']}) needs a finite sparsity")
        key = (row["arm"], sparsity, row["seed"])
        if key in found:
            raise InputError(
                f"comparison: arm {key[0]!r}, sparsity {sparsity:g}, seed {key[2]} is there twice"
            )
        found[key] = {**row, "sparsity": sparsity, "unit": str(row.get("unit") or "")}
    checked = sorted(found.values(), key=lambda row: row["arm"] != DENSE)
    units = values(checked, "unit")
    if len(units) > 1:
        raise InputError(f"comparison: rows have different units: {', '.join(sorted(units))}")
    return checked


def _in_unit(name: str, rows: Rows) -> str:
    return f"{name} ({rows[0]['unit']})" if rows[0]["unit"] else name


def summary_table(rows: Rows) -> str:
    """Mean ± standard deviation over seeds for every arm and sparsity, as a terminal table.

    The difference to dense is paired by seed, because runs of one seed have much in common
    (split, initialisation) that cancels in the difference; its 95 % interval is a t-interval over
    seeds. With one seed there is neither a spread nor an interval.
    """
    rows = _checked(rows)
    dense_macs = over_seeds(rows, "macs_per_graph", arm=DENSE).mean
    dense_error = by_seed(rows, "test_mae", arm=DENSE)
    body = []
    for arm in values(rows, "arm"):
        for sparsity in sorted(values(rows, "sparsity", arm=arm)):
            cell = {"arm": arm, "sparsity": sparsity}
            macs = over_seeds(rows, "macs_per_graph", **cell).mean / dense_macs
            test, ood, nll = (
                spread_text(over_seeds(rows, key, **cell)) for key in ("test_mae", "ood_mae", "nll")
            )
            change = paired_text(by_seed(rows, "test_mae", **cell), dense_error, digits=3)
            cost = f"{100 * macs:.0f} %" if math.isfinite(macs) else MISSING
            seeds = len(values(rows, "seed", **cell))
            difference = "" if arm == DENSE else change
            body.append([arm, f"{sparsity:g}", str(seeds), cost, test, difference, ood, nll])
    header = ["arm", "sparsity", "seeds", "MACs", _in_unit("test MAE", rows)]
    header += [f"{_in_unit('difference to dense', rows)} [95 %]", _in_unit("OOD MAE", rows), "NLL"]
    return text_table(header, body)


def _curves(axes: Axes, rows: Rows, key: str, label: str) -> None:
    """Draws `key` against MACs: a line with a band per arm, dense as a marker with a band."""
    for arm, look in looks(values(rows, "arm")).items():
        cells = [{"arm": arm, "sparsity": s} for s in values(rows, "sparsity", arm=arm)]
        points = [
            (over_seeds(rows, "macs_per_graph", **cell).mean / 1e6, over_seeds(rows, key, **cell))
            for cell in cells
        ]
        x, found = zip(*sorted(points, key=lambda point: point[0]), strict=True)
        if not any(summary.n for summary in found):
            continue
        if arm == DENSE:
            (dense,) = found
            axes.axhline(dense.mean, color=BLUE, linestyle="--", linewidth=1)
            axes.plot(x, dense.mean, color=BLUE, marker="o", linestyle="none", label=arm, zorder=3)
            if not math.isnan(dense.half):
                axes.axhspan(dense.low, dense.high, color=BLUE, alpha=0.12, linewidth=0)
        else:
            band(axes, np.array(x), found, look, arm)
    axes.set_xlabel("million MACs per graph")
    axes.set_ylabel(label)
    light_grid(axes)


@house_style()
def comparison_plot(rows: Rows) -> Figure:
    """Error against MACs, one line per arm through its sparsities.

    Bands are the mean ± the 95 % t-interval over seeds; with one seed there are none. The second
    panel shows the NLL, or the OOD error when no row has an NLL.
    """
    rows = _checked(rows)
    has_nll = any(math.isfinite(number(row.get("nll"))) for row in rows)
    figure = new_figure(height=4.2)
    first, second = figure.subplots(1, 2)
    _curves(first, rows, "test_mae", _in_unit("test MAE", rows))
    if has_nll:
        _curves(second, rows, "nll", "NLL, test (nats)")
    else:
        _curves(second, rows, "ood_mae", _in_unit("OOD MAE", rows))
    legend_below(figure, first, columns=6, size=9.5)
    figure.suptitle("Error and likelihood against cost" if has_nll else "Error against cost")
    counts = [
        len(values(rows, "seed", arm=arm, sparsity=sparsity))
        for arm in values(rows, "arm")
        for sparsity in values(rows, "sparsity", arm=arm)
    ]
    few, many = min(counts), max(counts)
    seeds = str(many) if few == many else f"{few} to {many}"
    note = f"band: 95 % interval over {seeds} seeds" if many > 1 else "one seed"
    second.set_title(note, loc="right", fontsize=8.5, fontweight="normal", color=GREY)
    return figure
