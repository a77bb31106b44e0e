"""ResNets with fewer channels: accuracy against MACs, beside published numbers.

A row has ``arm`` (``dense``, ``dense_longer``, ``scratch`` or a criterion) and ``factor``, by which
MACs were asked to be fewer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from egnn_prune.report.common.files import number
from egnn_prune.report.common.formatting import factor as factor_text
from egnn_prune.report.common.statistics import Summary
from egnn_prune.report.common.style import GREY, house_style, light_grid, new_figure
from egnn_prune.report.common.tables import Table, without_empty
from egnn_prune.report.images import drawing
from egnn_prune.report.images.drawing import frame, line, looks, name, reference
from egnn_prune.report.images.rows import (
    ACCURACY,
    ECE,
    NLL,
    Metrics,
    Quantity,
    Row,
    difference,
    difference_text,
    fraction,
    means_note,
    seeds_note,
    spread_text,
    summary,
    untold,
    values,
)

REQUIRED = ("accuracy", "macs")
CELL = ("arm", "factor")

DENSE = "dense"
_OPEN = "osD^v"
_MACS = Quantity("macs", "MACs (M)", scale=1e-6, places=2)
_COLUMNS = (
    _MACS,
    Quantity("parameters", "parameters", places=0),
    ACCURACY,
    NLL,
    ECE,
    Quantity("latency_ms", "forward pass (ms)", places=2),
    Quantity("epochs", "epochs", places=1),
)


def fewer(rows: Sequence[Row], cell: Row) -> float:
    """By which factor a cell has fewer MACs than dense; the factor asked for without dense."""
    found = difference(rows, _MACS, {"arm": DENSE}, cell, ratios=True)
    return math.exp(found.mean) if found.n else float(cell["factor"])


def _cells(rows: Sequence[Row], arm: str) -> list[dict[str, Any]]:
    found = sorted({float(row["factor"]) for row in rows if row["arm"] == arm})
    return [{"arm": arm, "factor": one} for one in found]


def _changes(rows: Sequence[Row], arm: str) -> list[tuple[float, Summary]]:
    cells = _cells(rows, arm)
    return [(fewer(rows, c), difference(rows, ACCURACY, c, {"arm": DENSE})) for c in cells]


def published(metrics: Metrics) -> list[tuple[str, float, float]]:
    """Label, factor and change of accuracy in points of the published numbers."""
    found = [
        (
            str(row.get("label", "published")),
            number(row.get("macs_factor")),
            100 * (fraction(row.get("accuracy")) - fraction(row.get("dense_accuracy"))),
        )
        for row in metrics.get("published") or []
    ]
    return [point for point in found if math.isfinite(point[1] + point[2])]


def figures(metrics: Metrics) -> dict[str, tuple[Figure, str]]:
    """Figures by file name, each with its caption."""
    rows = metrics["rows"]
    points = published(metrics)
    with house_style():
        figure = new_figure(height=4.9)
        left, right = figure.subplots(1, 2)
        _accuracy(left, rows)
        _change(right, rows, points)
        drawing.legend(figure, (left, right), 3)
        network = (metrics.get("network") or {}).get("name") or "network"
        drawing.title(figure, f"A smaller {network}", seeds_note(rows))
    caption = (
        "Left: test accuracy against the multiply-accumulate operations that are left. Right: "
        "change of accuracy to the own dense network, paired by seed. Bars are 95 % t-intervals"
    )
    caption += "; open grey markers are published results, of other networks." if points else "."
    return {"macs": (figure, caption)}


def _accuracy(axes: Axes, rows: Sequence[Row]) -> None:
    arms = [arm for arm in values(rows, "arm") if arm != DENSE]
    dense = summary(rows, ACCURACY, arm=DENSE)
    reference(axes, dense, "dense")
    drawn = [dense]
    for k, arm in enumerate(arms):
        cells = _cells(rows, arm)
        found = [summary(rows, ACCURACY, **cell) for cell in cells]
        x = [100 / fewer(rows, cell) + 0.5 * (k - (len(arms) - 1) / 2) for cell in cells]
        line(axes, x, found, looks(arms)[arm], name(arm))
        drawn += found
    frame(axes, drawn)
    axes.invert_xaxis()
    axes.margins(x=0.12)
    axes.set_title(ACCURACY.title())
    axes.set_xlabel("MACs left (% of dense; cheaper →)")
    light_grid(axes)


def _change(axes: Axes, rows: Sequence[Row], points: Sequence[tuple[str, float, float]]) -> None:
    arms = [arm for arm in values(rows, "arm") if arm != DENSE]
    axes.axhline(0, color=GREY, linestyle="--", linewidth=1.2)
    drawn = []
    for k, arm in enumerate(arms):
        changes = _changes(rows, arm)
        x = [at + 0.03 * (k - (len(arms) - 1) / 2) for at, _ in changes]
        line(axes, x, [change for _, change in changes], looks(arms)[arm], name(arm))
        drawn += [change for _, change in changes]
    labels = list(dict.fromkeys(label for label, *_ in points))
    for marker, label in zip(_OPEN * len(labels), labels, strict=False):
        here = [(at, change) for own, at, change in points if own == label]
        drawing.published(axes, here, label, marker, 7)
    others = [Summary(1, y, math.nan, math.nan) for *_, y in points]
    frame(axes, [*drawn, *others, Summary(1, 0.0, math.nan, math.nan)], floor=-math.inf)
    axes.margins(x=0.08)
    axes.set_title("Change to the own dense network  ↑ better")
    axes.set_ylabel("accuracy (points)")
    axes.set_xlabel("times fewer MACs")
    light_grid(axes)


def tables(metrics: Metrics) -> list[Table]:
    """One row per arm and factor, then the published numbers."""
    rows = metrics["rows"]
    body = []
    for arm in values(rows, "arm"):
        for cell in _cells(rows, arm):
            numbers = [spread_text(summary(rows, q, **cell), q.places) for q in _COLUMNS]
            change = difference(rows, ACCURACY, cell, {"arm": DENSE})
            text = "" if arm == DENSE else difference_text(change, 2)
            body.append([name(arm), f"{fewer(rows, cell):.2f}x", *numbers, text])

    header = ["arm", "fewer MACs", *(q.name for q in _COLUMNS), "points minus dense [95 %]"]
    made = [Table(f"Structured pruning: {means_note(rows)}", *without_empty(header, body))]
    if metrics.get("published"):
        body = [_published_row(row) for row in metrics["published"]]
        header = ["published", "fewer MACs", "dense (%)", "accuracy (%)", "points minus dense"]
        made.append(Table("Published", header, body))
    return made


def _published_row(row: Row) -> list[str]:
    dense, found = (100 * fraction(row.get(key)) for key in ("dense_accuracy", "accuracy"))
    fewer_macs = f"{number(row.get('macs_factor')):.2f}x"
    return [
        str(row.get("label", "")),
        fewer_macs,
        f"{dense:.2f}",
        f"{found:.2f}",
        f"{found - dense:+.2f}",
    ]


def headline(metrics: Metrics) -> str:
    """The best criterion at the largest factor, against dense and against scratch."""
    rows = metrics["rows"]
    controls = {DENSE, "dense_longer", "scratch"}
    cells = [c for arm in values(rows, "arm") if arm not in controls for c in _cells(rows, arm)]
    base = summary(rows, ACCURACY, arm=DENSE)
    if not cells or base.n == 0:
        return f"Test accuracy {summary(rows, ACCURACY).mean:.2f} %; nothing to compare with"
    most = max(cell["factor"] for cell in cells)
    ends = [cell for cell in cells if cell["factor"] == most]
    best = max(ends, key=lambda cell: summary(rows, ACCURACY, **cell).mean)
    change = difference(rows, ACCURACY, best, {"arm": DENSE})
    text = (
        f"With {factor_text(fewer(rows, best))} fewer MACs the best criterion "
        f"({name(str(best['arm']))}) changes accuracy by {difference_text(change, 2)} points "
        f"from {base.mean:.2f} %{untold(change)}"
    )
    scratch = difference(rows, ACCURACY, best, {"arm": "scratch", "factor": most})
    if scratch.n:
        text += f", {difference_text(scratch, 2)} against the same shape trained from scratch"
        text += untold(scratch)
    return text
