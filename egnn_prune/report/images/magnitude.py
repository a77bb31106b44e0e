"""S2: weights removed by magnitude, fine-tuned, beside random ones and the network trained longer.

A row has ``arm``: ``dense``, ``dense_longer``, ``magnitude`` or ``random``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from egnn_prune.report.common.formatting import significant
from egnn_prune.report.common.statistics import summarise
from egnn_prune.report.common.style import GREY, house_style, light_grid, new_figure
from egnn_prune.report.common.tables import Table, without_empty
from egnn_prune.report.images import drawing
from egnn_prune.report.images.drawing import halves, looks, name, reference
from egnn_prune.report.images.history import curve, epochs
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
    ratio_words,
    seeds_note,
    spread_text,
    summary,
    untold,
    values,
)

REQUIRED = ("accuracy",)
CELL = ("arm",)

DENSE = "dense"
_FILE = Quantity("file_mb", "file (MB)", places=2)
_PACKED = Quantity("compressed_mb", "compressed (MB)", places=2)
_LATENCY = Quantity("latency_ms", "forward pass (ms)", places=1)
_COLUMNS = (
    Quantity("sparsity", "sparsity", places=2),
    ACCURACY,
    NLL,
    ECE,
    Quantity("nonzero", "weights not 0", places=0),
    _FILE,
    _PACKED,
    _LATENCY,
    Quantity("epochs", "epochs", places=1),
    Quantity("seconds_per_epoch", "s per epoch", places=2),
)
HONEST = (
    "Weights that are zero but stored make neither the file nor the forward pass smaller: only "
    "compression makes the file smaller, and only removing whole channels saves time."
)


def figures(metrics: Metrics) -> dict[str, tuple[Figure, str]]:
    """Figures by file name, each with its caption."""
    rows = metrics["rows"]
    with house_style():
        figure = new_figure(height=6.4)
        upper, lower = figure.subfigures(2, 1, height_ratios=(3.2, 2.6), squeeze=False).flat
        _histories(upper.subplots(1, 2), rows)
        accuracy, size, time = lower.subplots(1, 3, sharey=True)
        arms = values(rows, "arm")
        _accuracies(accuracy, rows, arms)
        _sizes(size, rows, arms)
        _bars(time, rows, arms, _LATENCY, "ms")
        time.set_title("Forward pass  ← better")
        accuracy.set_yticks(range(len(arms)), [name(arm) for arm in arms])
        accuracy.invert_yaxis()
        drawing.title(figure, _title(metrics), seeds_note(rows))
    return {
        "magnitude": (
            figure,
            "Top: validation accuracy by epoch, a thin line per seed and their mean. Bottom: test "
            "accuracy (dots: seeds, bars: 95 % t-intervals), size of the saved network as it is "
            "and compressed, and time of a forward pass.",
        )
    }


def _title(metrics: Metrics) -> str:
    found = [row["sparsity"] for row in metrics["rows"] if row.get("sparsity")]
    share = f"{100 * max(found):g} % of the convolution weights" if found else "Weights"
    network = (metrics.get("network") or {}).get("name")
    return f"{share}{f' of {network}' if network else ''} removed, then fine-tuned"


def _histories(panels: np.ndarray, rows: Sequence[Row]) -> None:
    arms = values(rows, "arm")
    sides = ([arm for arm in arms if arm == DENSE], [arm for arm in arms if arm != DENSE])
    titles = ("Training the dense network", "Fine-tuning from it")
    for axes, side, title in zip(panels, sides, titles, strict=True):
        for arm in side:
            colour, marker = looks(arms)[arm]
            inside = [row for row in rows if row["arm"] == arm]
            for row in inside:
                found = curve([row], "val_accuracy", 100)
                axes.plot(
                    [*found], [s.mean for s in found.values()], color=colour, lw=0.6, alpha=0.5
                )
            found = curve(inside, "val_accuracy", 100)
            if found:
                axes.plot(
                    [*found],
                    [s.mean for s in found.values()],
                    color=colour,
                    marker=marker,
                    markersize=4,
                    label=name(arm),
                )
        axes.set_title(title)
        if DENSE not in side:
            ends = [epochs(row, "val_accuracy") for row in rows if row["arm"] == DENSE]
            best = [100 * max(one.values(), default=math.nan) for one in ends]
            reference(axes, summarise(best), "dense, best epoch")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        light_grid(axes)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="lower right")
        else:
            axes.text(0.5, 0.5, "no history", transform=axes.transAxes, ha="center", color=GREY)
    panels[0].set_ylabel("validation accuracy (%)")


def _accuracies(axes: Axes, rows: Sequence[Row], arms: Sequence[str]) -> None:
    for k, arm in enumerate(arms):
        inside = [100 * row["accuracy"] for row in rows if row["arm"] == arm]
        found = summary(rows, ACCURACY, arm=arm)
        colour, marker = looks(arms)[arm]
        axes.errorbar(
            [found.mean], [k], xerr=halves([found]), color=colour, marker=marker, capsize=3
        )
        axes.plot(inside, [k + 0.22] * len(inside), "o", color=colour, alpha=0.45, markersize=3.5)
        axes.annotate(
            f"{found.mean:.2f}",
            (found.mean, k),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
        )
    axes.set_title("Accuracy (%)  → better")
    axes.set_ylim(-0.6, len(arms) - 0.4)
    axes.margins(x=0.12)
    axes.locator_params(axis="x", nbins=5)
    light_grid(axes, "x")


def _bars(
    axes: Axes,
    rows: Sequence[Row],
    arms: Sequence[str],
    quantity: Quantity,
    unit: str,
    aside: float = 0.0,
    thick: float = 0.5,
    filled: bool = True,
    word: str = "",
) -> None:
    for k, arm in enumerate(arms):
        found = summary(rows, quantity, arm=arm)
        if found.n == 0:
            continue
        colour = looks(arms)[arm][0]
        axes.barh(
            k + aside,
            found.mean,
            thick,
            color=colour if filled else "none",
            edgecolor=colour,
            xerr=halves([found]) if not math.isnan(found.half) and found.half else None,
            error_kw={"elinewidth": 0.9, "capsize": 2},
        )
        end = found.mean + halves([found])[0]
        axes.annotate(
            f"{significant(found.mean)} {unit}{word}",
            (end, k + aside),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.margins(x=0.45)
    axes.set_xlim(left=0)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)


def _sizes(axes: Axes, rows: Sequence[Row], arms: Sequence[str]) -> None:
    _bars(axes, rows, arms, _FILE, "MB", -0.2, 0.34)
    _bars(axes, rows, arms, _PACKED, "MB", 0.2, 0.34, filled=False, word=" compressed")
    axes.set_title("Saved file  ← better")


def tables(metrics: Metrics) -> list[Table]:
    """One row per arm, and its paired difference of accuracy to the dense network."""
    rows = metrics["rows"]
    body = []
    for arm in values(rows, "arm"):
        numbers = [spread_text(summary(rows, q, arm=arm), q.places) for q in _COLUMNS]
        change = difference(rows, ACCURACY, {"arm": arm}, {"arm": DENSE})
        body.append([name(arm), *numbers, "" if arm == DENSE else difference_text(change, 2)])

    header, body = without_empty(
        ["arm", *(q.name for q in _COLUMNS), "points minus dense [95 %]"], body
    )
    return [Table(f"Magnitude pruning: {means_note(rows)}", header, body, note=HONEST)]


def headline(metrics: Metrics) -> str:
    """Accuracy, file and time of the magnitude arm against the dense network."""
    rows = metrics["rows"]
    arms = [arm for arm in ("magnitude", "random", *values(rows, "arm")) if arm != DENSE]
    arm = next((arm for arm in arms if summary(rows, ACCURACY, arm=arm).n), None)
    if arm is None or summary(rows, ACCURACY, arm=DENSE).n == 0:
        found = summary(rows, ACCURACY)
        return f"Test accuracy {found.mean:.2f} %; nothing to compare with"
    new, old = {"arm": arm}, {"arm": DENSE}
    sparsity = summary(rows, _COLUMNS[0], **new).mean
    share = "" if math.isnan(sparsity) else f"{100 * sparsity:g} % of the weights removed, "
    change = difference(rows, ACCURACY, new, old)
    parts = [f"{difference_text(change, 2)} points of accuracy{untold(change)}"]
    packed = difference(rows, _PACKED, new, old, ratios=True)
    if packed.n:
        parts.append(f"the compressed file is {ratio_words(packed, 'smaller', 'larger')}")
    time = difference(rows, _LATENCY, new, old, ratios=True)
    if time.n:
        parts.append(f"a forward pass is {ratio_words(time, 'faster', 'slower', measured=True)}")
    return f"{share}{name(arm)} against dense: {', '.join(parts)}"
