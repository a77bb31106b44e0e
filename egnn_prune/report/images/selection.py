"""Which training images to fine-tune on: strategies against random ones, paired by seed.

A row has ``strategy`` and ``sparsity``.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from egnn_prune.report.common.style import (
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
from egnn_prune.report.common.tables import Table, without_empty
from egnn_prune.report.images import drawing
from egnn_prune.report.images.drawing import name
from egnn_prune.report.images.rows import (
    ACCURACY,
    AUROC,
    ECE,
    NLL,
    Metrics,
    Quantity,
    Row,
    difference,
    difference_text,
    means_note,
    present,
    seeds_note,
    sign,
    spread_text,
    summary,
    untold,
    values,
)

REQUIRED = ("accuracy", "sparsity")
CELL = ("strategy", "sparsity")

RANDOM = "random"
_QUANTITIES = (ACCURACY, NLL, ECE, AUROC)
_TITLES = {"accuracy": "Accuracy", "nll": "NLL", "ece": "ECE", "auroc": "AUROC"}
_LOOKS = ((BLUE, "o"), (VERMILION, "s"), (GREEN, "D"), (ORANGE, "^"), (PURPLE, "v"))


def figures(metrics: Metrics) -> dict[str, tuple[Figure, str]]:
    """Figures by file name, each with its caption."""
    rows = metrics["rows"]
    others = _others(rows)
    shown = present(rows, _QUANTITIES)
    if not others or RANDOM not in values(rows, "strategy"):
        return {}
    with house_style():
        figure = new_figure(height=1.8 + 0.42 * max(2, len(others)))
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, quantity in zip(panels, shown, strict=True):
            _panel(axes, rows, quantity, others)
        panels[0].set_yticks(range(len(others)), [name(strategy) for strategy in others])
        panels[0].set_ylim(len(others) - 0.4, -0.6)
        sparsities = values(rows, "sparsity")
        if len(sparsities) > 1:
            drawing.legend(figure, [panels[0]], len(sparsities))
        steps = ", ".join(f"{s}" for s in dict.fromkeys(r.get("steps") for r in rows) if s)
        aside = "; ".join([*([f"{steps} steps each"] if steps else []), seeds_note(rows)])
        drawing.title(figure, "Which images to fine-tune on?", aside)
    return {
        "selection": (
            figure,
            "Difference to fine-tuning on random images with as many steps, paired by seed; dots "
            "are means, bars 95 % t-intervals. A bar that crosses the dashed line at 0 says that "
            "these seeds cannot tell.",
        )
    }


def _others(rows: Sequence[Row]) -> list[str]:
    return [strategy for strategy in values(rows, "strategy") if strategy != RANDOM]


def _panel(axes: Axes, rows: Sequence[Row], quantity: Quantity, others: Sequence[str]) -> None:
    sparsities = values(rows, "sparsity")
    for k, sparsity in enumerate(sparsities):
        random = {"strategy": RANDOM, "sparsity": sparsity}
        aside = 0.22 * (k - (len(sparsities) - 1) / 2)
        found = [
            (i, difference(rows, quantity, {**random, "strategy": s}, random))
            for i, s in enumerate(others)
        ]
        found = [(i, change) for i, change in found if change.n]
        drawing.dots(
            axes,
            [change for _, change in found],
            [i + aside for i, _ in found],
            _LOOKS[k % len(_LOOKS)],
            f"sparsity {sparsity:g}",
        )
    axes.axvline(0, color=GREY, linestyle="--", linewidth=1)
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    arrow = "→ better" if quantity.better == "higher" else "← better"
    axes.set_title(f"{_TITLES[quantity.key]}  {arrow}")
    axes.set_xlabel("points minus random" if quantity is ACCURACY else "minus random")
    light_grid(axes, "x")


def tables(metrics: Metrics) -> list[Table]:
    """Means ± sd, and the paired differences to random."""
    rows = metrics["rows"]
    shown = present(rows, _QUANTITIES)
    body = []
    for sparsity in values(rows, "sparsity"):
        random = {"strategy": RANDOM, "sparsity": sparsity}
        for strategy in values(rows, "strategy"):
            cell = {**random, "strategy": strategy}
            line = [name(strategy), f"{sparsity:g}"]
            for quantity in shown:
                line.append(spread_text(summary(rows, quantity, **cell), quantity.places))
                change = difference(rows, quantity, cell, random)
                line.append("" if strategy == RANDOM else difference_text(change, quantity.places))
            start = Quantity("start_accuracy", "", scale=100, places=2)
            body.append([*line, spread_text(summary(rows, start, **cell), 2)])
    header = ["strategy", "sparsity"]
    for quantity in shown:
        header += [quantity.name, "- random [95 %]"]
    title = f"Which images to fine-tune on: {means_note(rows)}"
    return [Table(title, *without_empty([*header, "before fine-tuning (%)"], body))]


def headline(metrics: Metrics) -> str:
    """The most uncertain images against random ones, and whether these seeds can tell."""
    rows = metrics["rows"]
    others = _others(rows)
    strategy = "top" if "top" in others else next(iter(others), None)
    if strategy is None or RANDOM not in values(rows, "strategy"):
        return f"Test accuracy {summary(rows, ACCURACY).mean:.2f} %; nothing to compare with"
    parts = []
    sparsity = values(rows, "sparsity")[-1]
    cells = {"strategy": strategy, "sparsity": sparsity}, {"strategy": RANDOM, "sparsity": sparsity}
    for quantity in (ACCURACY, NLL, ECE):
        change = difference(rows, quantity, *cells)
        if change.n == 0:
            continue
        unit = " points" if quantity is ACCURACY else ""
        word = "accuracy" if quantity is ACCURACY else quantity.name
        good = sign(change) * (1 if quantity.better == "higher" else -1)
        verdict = {1: ", better", -1: ", worse"}.get(good, "")
        number = difference_text(change, quantity.places)
        parts.append(f"{word} {number}{unit}{verdict or untold(change)}")
    images = f"{name(strategy)} images" if "images" not in name(strategy) else name(strategy)
    return f"Fine-tuned on the {images} instead of random ones: {'; '.join(parts)}"
