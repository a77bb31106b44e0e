"""S3: neurons or connections removed during training, against ordinary training.

A row has ``arm``: ``baseline``, ``neurons`` or ``connections``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from egnn_prune.report.common.statistics import Summary, summarise
from egnn_prune.report.common.style import GREY, house_style, light_grid, new_figure
from egnn_prune.report.common.tables import Table, without_empty
from egnn_prune.report.images import drawing
from egnn_prune.report.images.drawing import band, end_labels, frame, looks, name
from egnn_prune.report.images.history import curve, rate
from egnn_prune.report.images.rows import (
    ACCURACY,
    ECE,
    NLL,
    Metrics,
    Quantity,
    Row,
    difference,
    difference_text,
    means_note,
    ratio_text,
    ratio_words,
    seeds_note,
    spread_text,
    summary,
    untold,
    values,
)

REQUIRED = ("accuracy",)
CELL = ("arm",)

BASELINE = "baseline"
_COSTS = (
    Quantity("parameters", "weights that are not 0", places=0),
    Quantity("stored", "weights stored", places=0),
    Quantity("macs", "MACs", places=0),
    Quantity("train_cpu_seconds", "training, processor time (s)", places=1),
    Quantity("train_seconds", "training, wall time (s)", places=1),
    Quantity("latency_ms", "inference (ms)", places=3),
    Quantity("peak_bytes", "activations (kB)", scale=1e-3, places=1),
    Quantity("resident_mb", "memory of the whole process (MB)", places=0),
)


def figures(metrics: Metrics) -> dict[str, tuple[Figure, str]]:
    """Figures by file name, each with its caption."""
    rows = metrics["rows"]
    drawn = {}
    if any(row.get("history") for row in rows):
        drawn["phases"] = (
            _phases(rows),
            "Mean over the seeds with its 95 % band after every epoch: weights that are left, "
            "processor time of the epoch, and validation accuracy.",
        )
    if _pruned(rows) and BASELINE in values(rows, "arm"):
        drawn["costs"] = (
            _costs(rows),
            "Left: difference of test accuracy to the baseline. Right: ratio of each cost to the "
            "baseline's. Paired by seed; bars are 95 % t-intervals.",
        )
    return drawn


def _pruned(rows: Sequence[Row]) -> list[str]:
    return [arm for arm in values(rows, "arm") if arm != BASELINE]


def _phases(rows: Sequence[Row]) -> Figure:
    arms = values(rows, "arm")
    with house_style():
        figure = new_figure(height=7.0)
        panels = figure.subplots(3, 1, sharex=True)
        titles = (
            "Weights left (thousands)",
            "Processor time per epoch (s)",
            "Validation accuracy (%)",
        )
        arrows = ("  ↓ smaller", "  ↓ cheaper", "  ↑ higher is better")
        for k, (axes, title, arrow) in enumerate(zip(panels, titles, arrows, strict=True)):
            ends = []
            for arm in arms:
                inside = [row for row in rows if row["arm"] == arm]
                found = (
                    curve(inside, "parameters", 1e-3),
                    rate(inside, "cpu_seconds"),
                    curve(inside, "val_accuracy", 100),
                )[k]
                if found:
                    colour = looks(arms)[arm][0]
                    band(axes, [*found], [*found.values()], colour, name(arm))
                    ends.append((arm, [*found.values()], colour))
            axes.set_title(title + arrow)
            axes.margins(x=0)
            light_grid(axes)
            if not ends:
                axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, color=GREY)
                continue
            if k == 2:  # the first epochs would flatten the rest
                late = [s for _, found, _ in ends for s in found[len(found) // 10 :]]
                frame(axes, late, more=0.3)
            else:
                axes.set_ylim(bottom=0)
            end_labels(
                axes,
                [found[-1].mean for _, found, _ in ends],
                [name(arm) for arm, _, _ in ends],
                [colour for *_, colour in ends],
            )
        panels[-1].set_xlabel("epoch")
        drawing.title(figure, "Pruned while training", seeds_note(rows))
    return figure


def _costs(rows: Sequence[Row]) -> Figure:
    arms = _pruned(rows)
    shown = [
        q for q in _COSTS if q.key != "resident_mb" and any(_ratio(rows, a, q).n for a in arms)
    ]
    with house_style():
        figure = new_figure(height=1.9 + 0.26 * max(3, len(shown)) * len(arms))
        left, right = figure.subplots(1, 2, width_ratios=(1, 2.2))
        for k, arm in enumerate(arms):
            aside = 0.3 * (k - (len(arms) - 1) / 2)
            look = looks(arms)[arm]
            change = difference(rows, ACCURACY, {"arm": arm}, {"arm": BASELINE})
            _dots(left, [change], [k], look, [f"{change.mean:+.2f}"], name(arm))
            found = [_ratio(rows, arm, q) for q in shown]
            at = [row + aside for row in range(len(shown))]
            _dots(
                right, found, at, look, [f"{math.exp(s.mean):.2f}x" for s in found], name(arm), True
            )
        left.axvline(0, color=GREY, linestyle="--", linewidth=1)
        left.set_yticks(range(len(arms)), [name(arm) for arm in arms])
        left.set_ylim(len(arms) - 0.4, -0.6)
        left.margins(x=0.25)
        left.set_title("Accuracy  → better")
        left.set_xlabel("points minus baseline")
        _ratio_axis(right)
        right.set_yticks(range(len(shown)), [_bare(q) for q in shown])
        right.set_ylim(len(shown) - 0.4, -0.6)
        right.set_title("Cost  ← cheaper than the baseline")
        right.set_xlabel("times the baseline's (dashed: the same)")
        for axes in (left, right):
            light_grid(axes, "x")
        drawing.legend(figure, [right], len(arms))
        drawing.title(figure, "What it costs and what it saves", seeds_note(rows))
    return figure


def _dots(
    axes: Axes,
    found: Sequence[Summary],
    at: Sequence[float],
    look: tuple[str, str],
    texts: Sequence[str],
    label: str,
    logarithmic: bool = False,
) -> None:
    """Means with intervals along x, each with its number above."""
    kept = [(s, y, t) for s, y, t in zip(found, at, texts, strict=True) if s.n]
    if not kept:
        return
    heights = [y for _, y, _ in kept]
    centre = drawing.dots(axes, [s for s, *_ in kept], heights, look, label, logarithmic)
    for x, (_, y, text) in zip(centre, kept, strict=True):
        axes.annotate(
            text,
            (x, y),
            xytext=(0, 4.5),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8,
            color=look[0],
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )


def _ratio_axis(axes: Axes) -> None:
    axes.axvline(1, color=GREY, linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.margins(x=0.08)
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, 0.01), min(high, 30))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}x"))


def _bare(quantity: Quantity) -> str:
    """A cost without its unit, which cancels in a ratio."""
    return quantity.name.split(" (")[0]


def _ratio(rows: Sequence[Row], arm: str, quantity: Quantity) -> Summary:
    if quantity.key == "latency_ms":  # measured beside the dense network, taking turns
        turns = [
            row["latency_ratio"] for row in rows if row["arm"] == arm and "latency_ratio" in row
        ]
        if turns:
            return summarise([math.log(value) for value in turns])
    return difference(rows, quantity, {"arm": arm}, {"arm": BASELINE}, ratios=True)


def tables(metrics: Metrics) -> list[Table]:
    """Means per arm, then differences and ratios to the baseline, paired by seed."""
    rows = metrics["rows"]
    quantities = (ACCURACY, NLL, ECE, *_COSTS)
    arms = values(rows, "arm")
    names = [q.name for q in quantities]
    body = [
        [name(a), *(spread_text(summary(rows, q, arm=a), q.places) for q in quantities)]
        for a in arms
    ]
    title = f"Incremental pruning: {means_note(rows)}"
    made = [Table(title, *without_empty(["arm", *names], body))]
    if BASELINE in arms and _pruned(rows):
        body = []
        for arm in _pruned(rows):
            cells = {"arm": arm}, {"arm": BASELINE}
            changes = [
                difference_text(difference(rows, q, *cells), q.places) for q in quantities[:3]
            ]
            body.append([name(arm), *changes, *(ratio_text(_ratio(rows, arm, q)) for q in _COSTS)])
        costs = [_bare(q) for q in _COSTS]
        header = ["arm", "accuracy (points)", "NLL", "ECE", *costs]
        made.append(
            Table(
                "Difference to the baseline, and costs as a share of its, paired by seed [95 %]",
                *without_empty(header, body),
            )
        )
    return made


def headline(metrics: Metrics) -> str:
    """Accuracy, parameters and training time of every pruned arm against the baseline."""
    rows = metrics["rows"]
    if BASELINE not in values(rows, "arm") or not _pruned(rows):
        return f"Test accuracy {summary(rows, ACCURACY).mean:.2f} %; nothing to compare with"
    network = (metrics.get("network") or {}).get("name")
    sentences = []
    for arm in _pruned(rows):
        change = difference(rows, ACCURACY, {"arm": arm}, {"arm": BASELINE})
        parts = [f"{difference_text(change, 2)} points of accuracy{untold(change)}"]
        for key, less, more, subject in (
            ("parameters", "fewer", "more", "{} parameters"),
            ("train_cpu_seconds", "faster", "slower", "training {}"),
            ("latency_ms", "faster", "slower", "inference {}"),
        ):
            quantity = next(q for q in _COSTS if q.key == key)
            found = _ratio(rows, arm, quantity)
            if found.n:
                parts.append(
                    subject.format(ratio_words(found, less, more, measured=key != "parameters"))
                )
        sentences.append(f"{name(arm)}: {', '.join(parts)}")
    return f"Pruned while training{f' ({network})' if network else ''}: " + "; ".join(sentences)
