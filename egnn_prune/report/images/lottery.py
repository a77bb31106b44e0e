"""S1: accuracy, calibration and epochs against sparsity, for every structure and strategy.

A row has ``structure``, ``strategy`` and ``sparsity``; the dense network is the strategy
``dense``, and ``trained_on`` the same network trained as long again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from egnn_prune.errors import InputError
from egnn_prune.report.common.files import number
from egnn_prune.report.common.statistics import Summary
from egnn_prune.report.common.style import PURPLE, house_style, light_grid, new_figure
from egnn_prune.report.common.tables import Table, without_empty
from egnn_prune.report.images import drawing, dropout, ood_classes, reliability
from egnn_prune.report.images.drawing import frame, line, looks, name, reference
from egnn_prune.report.images.lottery_rows import (
    DENSE,
    STRUCTURES,
    TRAINED_ON,
    sparsities,
    strategies,
    structures,
)
from egnn_prune.report.images.rows import (
    ACCURACY,
    AUROC,
    ECE,
    EPOCHS,
    NLL,
    PARAMETERS,
    UCE,
    Metrics,
    Quantity,
    Row,
    difference,
    difference_text,
    fraction,
    means_note,
    present,
    seeds_note,
    sign,
    spread_text,
    summary,
    untold,
)

REQUIRED = ("accuracy",)
CELL = ("structure", "strategy", "sparsity")

_PANELS = (ACCURACY, ECE, EPOCHS, NLL, UCE, AUROC)
_COLUMNS = (
    PARAMETERS,
    ACCURACY,
    ECE,
    Quantity("ece_scaled", "ECE after temperature", "lower"),
    UCE,
    NLL,
    AUROC,
    Quantity("epochs", "epochs", places=1),
)

_PUBLISHED = (
    "are of the study that this experiment repeats: not quoted from its text, but found by testing "
    "again the trained networks (checkpoints) that it left. Nothing of them was trained here."
)


def figures(metrics: Metrics) -> dict[str, tuple[Figure, str]]:
    """Figures by file name, each with its caption."""
    rows = metrics["rows"]
    drawn: dict[str, tuple[Figure, str]] = {}
    if structures(rows):
        drawn["sparsity"] = (
            _sparsity_figure(metrics),
            "Test images: mean over the seeds with 95 % t-intervals against the share of "
            "neurons, filters or weights that was removed; dashed, with band: the dense network."
            + (f" Open grey circles {_PUBLISHED}" if metrics.get("published") else ""),
        )
    for module in (reliability, dropout, ood_classes):
        drawn |= module.figures(metrics)
    return drawn


def _sparsity_figure(metrics: Metrics) -> Figure:
    rows, shown = metrics["rows"], present(metrics["rows"], _PANELS)
    columns = structures(rows)
    right = 100 * max(float(row["sparsity"]) for row in rows)
    with house_style():
        if len(columns) == 1:  # fill the page with quantities instead
            across = min(3, len(shown))
            down = math.ceil(len(shown) / across)
            figure = new_figure(height=1.1 + 2.35 * down)
            grid = figure.subplots(down, across, squeeze=False, sharex=True)
            places = [[axes] for axes in grid.flat]
            for axes in grid.flat[len(shown) :]:
                axes.set_visible(False)
            for axes in grid.flat[max(0, len(shown) - across) : len(shown)]:
                axes.xaxis.set_tick_params(labelbottom=True)
                axes.set_xlabel(f"{STRUCTURES[columns[0]]} removed (%)")
        else:
            figure = new_figure(height=1.1 + 1.85 * len(shown))
            places = figure.subplots(
                len(shown), len(columns), squeeze=False, sharex=True, sharey="row"
            ).tolist()
            for axes, structure in zip(places[-1], columns, strict=True):
                axes.set_xlabel(f"{STRUCTURES[structure]} removed (%)")
        for quantity, panels in zip(shown, places, strict=False):
            drawn: list[Summary] = []
            for axes, structure in zip(panels, columns, strict=True):
                drawn += _panel(axes, rows, structure, quantity)
                if structure == columns[0]:
                    drawn += _published(axes, metrics, quantity)
                aside = f"{structure}: " if len(columns) > 1 else ""
                axes.set_title(quantity.title(aside), fontsize=9.5)
                axes.set_xlim(-4, right + 6)
                light_grid(axes)
            frame(panels[0], drawn)
        drawing.legend(figure, [axes for panels in places for axes in panels], 4)
        of = (metrics.get("data") or {}).get("name")
        drawing.title(figure, f"What pruning does{f' on {of}' if of else ''}", seeds_note(rows))
    return figure


def _panel(axes: Axes, rows: Sequence[Row], structure: str, quantity: Quantity) -> list[Summary]:
    dense = summary(rows, quantity, strategy=DENSE)
    longer = summary(rows, quantity, strategy=TRAINED_ON)
    reference(axes, dense, "dense")
    if longer.n:
        axes.axhline(longer.mean, color=PURPLE, linestyle=":", label=name(TRAINED_ON), zorder=1)
    found = [dense, longer]
    kinds = strategies(rows, structure)
    for k, strategy in enumerate(kinds):
        at = sparsities(rows, structure, strategy)
        gap = min((b - a for a, b in pairwise(at)), default=0.1)
        aside = 0.1 * gap * (k - (len(kinds) - 1) / 2) * (dense.n != 1)  # so that bars can be told
        cells = [
            summary(rows, quantity, structure=structure, strategy=strategy, sparsity=s) for s in at
        ]
        look = looks(kinds)[strategy]
        line(axes, [100 * (s + aside) for s in at], cells, look, name(strategy))
        found += cells
    return found


def _published(axes: Axes, metrics: Metrics, quantity: Quantity) -> list[Summary]:
    rows = [row for row in metrics.get("published") or [] if "sparsity" in row]
    read = fraction if quantity.key == "accuracy" else number
    points = [(100 * number(row["sparsity"]), read(row.get(quantity.key))) for row in rows]
    points = [(x, quantity.scale * y) for x, y in points if math.isfinite(x + y)]
    if points:
        drawing.published(axes, points, str(rows[0].get("label", "published")))
    return [Summary(1, y, math.nan, math.nan) for _, y in points]


def tables(metrics: Metrics) -> list[Table]:
    """One row per structure, strategy and sparsity; published numbers at the end."""
    rows = metrics["rows"]
    order = {s: i for i, s in enumerate(("dense", *STRUCTURES))}
    cells = sorted(
        dict.fromkeys((row["structure"], row["strategy"], row["sparsity"]) for row in rows),
        key=lambda c: (c[1] not in (DENSE, TRAINED_ON), order.get(c[0], 9)),
    )
    by_strategy = list(dict.fromkeys(cell[:2] for cell in cells))
    cells.sort(key=lambda c: (by_strategy.index(c[:2]), c[2]))
    body = []
    for structure, strategy, sparsity in cells:
        cell = {"structure": structure, "strategy": strategy, "sparsity": sparsity}
        numbers = [spread_text(summary(rows, q, **cell), q.places) for q in _COLUMNS]
        kind = "" if strategy in (DENSE, TRAINED_ON) else structure
        body.append([kind, name(strategy), f"{sparsity:g}", *numbers])
    body += [_published_row(row) for row in metrics.get("published") or []]
    names = [q.name for q in _COLUMNS]
    header, body = without_empty(["structure", "strategy", "sparsity", *names], body)
    label = next((str(row.get("label", "")) for row in metrics.get("published") or []), "")
    note = f"Rows called “{label}” {_PUBLISHED}" if label else ""
    return [Table(f"Lottery tickets: {means_note(rows)}", header, body, left=2, note=note)]


def _published_row(row: Row) -> list[str]:
    cells = {"accuracy": 100 * fraction(row.get("accuracy")), "ece": number(row.get("ece"))}
    texts = []
    for quantity in _COLUMNS:
        value = cells.get(quantity.key, number(row.get(quantity.key)))
        texts.append("" if math.isnan(value) else f"{value:,.{quantity.places}f}")
    spread = number(row.get("accuracy_sd"))
    if math.isfinite(spread) and texts[1]:
        spread *= 1 if number(row["accuracy"]) > 1 else 100
        texts[1] += f" ± {spread:.2f}"
    return ["published", str(row.get("label", "")), f"{number(row.get('sparsity')):g}", *texts]


def headline(metrics: Metrics) -> str:
    """The largest sparsity whose best strategy is as accurate as dense, and what ECE does there."""
    rows = metrics["rows"]
    kinds = structures(rows)
    dense = {"strategy": DENSE}
    base = summary(rows, ACCURACY, **dense)
    if not kinds:
        return f"The dense network classifies {base.mean:.1f} % of the test images correctly"
    if base.n == 0:
        return "No dense network to compare the pruned ones with"
    structure = kinds[0]
    every = sorted({row["sparsity"] for row in rows if row["structure"] == structure}, reverse=True)
    for sparsity in every:
        best = _best(rows, structure, sparsity)
        change = difference(rows, ACCURACY, best, dense)
        one = math.isnan(change.half)
        if change.n and (change.mean >= -1.0 if one else sign(change) >= 0):
            seeds = "one seed, no interval" if one else f"{change.n} seeds"
            opening = "is within a point of" if one else "cannot be told from"
            return (
                f"At {100 * sparsity:g} % sparsity ({structure}, {name(str(best['strategy']))}) "
                f"accuracy {opening} that of the dense network: {difference_text(change, 2)} "
                f"points ({seeds}); {_what_ece_does(rows, best)}"
            )
    best = _best(rows, structure, every[-1])
    change = difference(rows, ACCURACY, best, dense)
    return (
        f"No sparsity keeps the accuracy of the dense network: at {100 * every[-1]:g} % "
        f"({structure}, {name(str(best['strategy']))}) it changes by {difference_text(change, 2)} "
        f"points{untold(change)}; {_what_ece_does(rows, best)}"
    )


def _best(rows: Sequence[Row], structure: str, sparsity: float) -> dict[str, Any]:
    cells = [
        {"structure": structure, "strategy": strategy, "sparsity": sparsity}
        for strategy in strategies(rows, structure)
    ]
    found = [(summary(rows, ACCURACY, **cell).mean, cell) for cell in cells]
    return max((pair for pair in found if not math.isnan(pair[0])), key=lambda pair: pair[0])[1]


def _what_ece_does(rows: Sequence[Row], best: Row) -> str:
    old, new = summary(rows, ECE, strategy=DENSE), summary(rows, ECE, **best)
    if old.n == 0 or new.n == 0:
        return "ECE was not measured"
    change = difference(rows, ECE, best, {"strategy": DENSE})
    if sign(change) == 0 and not math.isnan(change.half):
        return f"ECE does not change measurably ({old.mean:.3f} → {new.mean:.3f})"
    verb = "falls" if change.mean < 0 else "rises"
    remark = untold(change) or f" ({difference_text(change, 3)})"
    return f"ECE {verb} from {old.mean:.3f} to {new.mean:.3f}{remark}"


def check_structures(rows: Sequence[Row]) -> None:
    """Rejects structures that the figures do not know.

    Raises:
        InputError: naming the row.
    """
    for i, row in enumerate(rows):
        if row["structure"] not in (DENSE, *STRUCTURES):
            known = ", ".join((DENSE, *STRUCTURES))
            raise InputError(
                f"metrics: rows[{i}] has structure {row['structure']!r}; known are {known}"
            )
