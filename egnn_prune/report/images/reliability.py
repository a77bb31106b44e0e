"""Reliability diagrams as sparsity grows: is a network right as often as it says?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from egnn_prune.errors import InputError
from egnn_prune.report.common.style import (
    BLACK,
    BLUE,
    GREY,
    VERMILION,
    house_style,
    light_grid,
    new_figure,
)
from egnn_prune.report.images import drawing
from egnn_prune.report.images.lottery_rows import described, path_of_one
from egnn_prune.report.images.rows import ECE, Metrics, Row, summary, values

_MOST = 6


def figures(metrics: Metrics) -> dict[str, tuple[Figure, str]]:
    """``reliability``, where rows hold reliability diagrams."""
    rows = metrics["rows"]
    path = path_of_one(rows, "reliability")
    if not path:
        return {}
    kept = sorted({round(i) for i in np.linspace(0, len(path) - 1, min(_MOST, len(path)))})
    path = [path[i] for i in kept]
    across = min(3, len(path))
    down = -(-len(path) // across)
    with house_style():
        figure = new_figure(height=0.9 + 2.75 * down)
        panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
        for axes in panels.flat[len(path) :]:
            axes.set_axis_off()
        if len(path) < panels.size:
            _explain(panels.flat[len(path)])
        for axes, (sparsity, cell) in zip(panels.flat, path, strict=False):
            _diagram(axes, *pooled([row for row in rows if cell.items() <= row.items()]))
            ece = summary(rows, ECE, **cell)
            what = "dense" if sparsity == 0 else f"{100 * sparsity:g} % removed"
            axes.set_title(f"{what}:  ECE {ece.mean:.3f}" if ece.n else what)
        for axes in panels[:, 0]:
            axes.set_ylabel("share that is right")
        for axes in panels[-1]:
            axes.set_xlabel("confidence (largest probability)")
        for axes in panels.flat[len(path) - across : len(path)]:
            axes.xaxis.set_tick_params(labelbottom=True)
        seeds = len(values(rows, "seed"))
        over = f"pooled over {seeds} seeds" if seeds > 1 else "one seed"
        drawing.title(figure, "Is it right as often as it says?", described(path), over)
    return {
        "reliability": (
            figure,
            "Reliability diagrams: below the dashed diagonal a network is right less often than it "
            "says (orange: overconfident), above it more often (blue). The larger a dot, the more "
            "test images have this confidence. ECE is the mean gap, weighted by these counts.",
        )
    }


def pooled(rows: Sequence[Row]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Bins of several networks in one: weighted by the number of images.

    Args:
        rows: each with ``reliability``: ``confidence``, ``accuracy`` and ``count``, [bins].

    Returns:
        Mean confidence, accuracy and number of images of the bins that hold images.

    Raises:
        InputError: If the three lists are not equally long in every row.
    """
    found = [row["reliability"] for row in rows if row.get("reliability") is not None]
    try:
        columns = [
            np.array([[v or 0.0 for v in one[key]] for one in found], dtype=float)
            for key in ("confidence", "accuracy", "count")
        ]
        confidence, accuracy, count = columns
        if not confidence.shape == accuracy.shape == count.shape:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise InputError(
            "metrics: reliability must hold confidence, accuracy and count, lists of numbers with "
            "as many bins in every row"
        ) from None
    total = count.sum(0)
    full = total > 0
    weigh = [(column * count).sum(0)[full] / total[full] for column in (confidence, accuracy)]
    return weigh[0], weigh[1], total[full]


def _explain(axes: Axes) -> None:
    lines = (
        ("dashed: right as often as it says", GREY),
        ("below: overconfident", VERMILION),
        ("above: underconfident", BLUE),
        ("larger dot: more test images", BLACK),
        ("ECE: mean gap over these images", BLACK),
    )
    for k, (text, colour) in enumerate(lines):
        axes.text(0.04, 0.78 - 0.13 * k, text, color=colour, transform=axes.transAxes)


def _diagram(
    axes: Axes, confidence: NDArray[Any], accuracy: NDArray[Any], count: NDArray[Any]
) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    for where, colour in ((accuracy < confidence, VERMILION), (accuracy >= confidence, BLUE)):
        axes.fill_between(
            confidence,
            confidence,
            accuracy,
            where=where,
            interpolate=True,
            color=colour,
            alpha=0.25,
            linewidth=0,
        )
    axes.plot(confidence, accuracy, color=BLACK, linewidth=0.9)
    axes.scatter(confidence, accuracy, s=6 + 90 * count / count.max(), color=BLACK, zorder=3)
    gap = (count * (accuracy - confidence)).sum() / count.sum()
    # half the 95 % interval over the images, which are right or wrong at random in their bin
    half = 1.96 * math.sqrt((count * accuracy * (1 - accuracy)).sum()) / count.sum()
    words = "overconfident" if gap < 0 else "underconfident"
    if abs(gap) > max(0.01, half):
        axes.text(
            0.96,
            0.06,
            words,
            ha="right",
            color=VERMILION if gap < 0 else BLUE,
            fontweight="bold",
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    light_grid(axes)
