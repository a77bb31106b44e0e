"""Small multiples of calibration: three views of the error bars, test above OOD."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from egnn_prune.report.common.files import CALIBRATED, Metrics, Predictions, number
from egnn_prune.report.common.formatting import MISSING
from egnn_prune.report.common.plots import diagonal, square
from egnn_prune.report.common.rows import arrow, fixed
from egnn_prune.report.common.style import (
    GREY,
    MODEL_COLOURS,
    MODEL_MARKERS,
    SPLIT_LABELS,
    house_style,
    light_grid,
    new_figure,
)
from egnn_prune.report.run.calibration import LEVELS, Curve, coverage, reliability, sparsification
from egnn_prune.report.run.error_bars import COMPARED, ErrorBars, error_bars, splits_present

Array = NDArray[np.float64]
Bars = Mapping[str, Mapping[str, ErrorBars]]  # by split and model

_BEFORE: dict[str, Any] = {
    "linestyle": (0, (4, 2)),
    "linewidth": 1.1,
    "markerfacecolor": "white",
    "markersize": 4,
}
_AFTER: dict[str, Any] = {"linestyle": "-", "linewidth": 1.9, "markersize": 4.5}
_REFERENCE: dict[str, Any] = {"color": GREY, "linestyle": "-", "linewidth": 0.8, "zorder": 1}


def _numbers(axes: Axes, metrics: Metrics, key: str, label: str, corner: str) -> None:
    """Writes a quantity for each model in the model's colour, before → after calibration."""
    lines = []
    for name in COMPARED:
        model = metrics["models"][name]
        text = arrow(fixed(number(model.get(key))), fixed(number(model.get(key + CALIBRATED))))
        if text != MISSING:
            lines.append((text, MODEL_COLOURS[name], "bold"))
    if not lines:
        return
    lines.insert(0, (label, GREY, "normal"))
    vertical, side = corner.split()
    top = 0.97 if vertical == "upper" else 0.01 + 0.085 * len(lines)
    for i, (text, colour, weight) in enumerate(lines):
        axes.text(
            *(0.03 if side == "left" else 0.98, top - 0.085 * i, text),
            transform=axes.transAxes,
            ha=side,
            va="top",
            color=colour,
            fontweight=weight,
            fontsize=8.5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
            zorder=5,
        )


def _draw(
    panels: NDArray[Any],
    bars: Bars,
    curve: Callable[[Array, Array], Curve],
    markers: bool = False,
    oracle: bool = False,
) -> list[Curve]:
    """Draws a curve of each model before and after calibration, one panel a split.

    Without calibration there is one line, drawn as the main one.

    Args:
        panels: The axes, one a split.
        bars: What to draw.
        curve: From errors and standard deviations to x and y; empty or NaN: nothing is drawn.
        markers: Whether points are marked.
        oracle: Whether to draw the curve of a score that knows the errors, too.

    Returns:
        What was drawn, oracles aside.
    """
    drawn = []
    for axes, models in zip(panels, bars.values(), strict=True):
        for name, each in models.items():
            look: dict[str, Any] = {"color": MODEL_COLOURS[name]}
            if markers:
                look["marker"] = MODEL_MARKERS[name]
            if oracle:
                ideal = curve(each.error, np.abs(each.error))
                axes.plot(*ideal, **look, linestyle=":", linewidth=1.3)
            if each.calibrated is not None:
                drawn.append(curve(each.error, each.std))
                axes.plot(*drawn[-1], **look, **_BEFORE)
            drawn.append(curve(each.error, each.final))
            axes.plot(*drawn[-1], **look, **_AFTER)
    return drawn


@house_style()
def calibration_figure(metrics: Metrics, predictions: Predictions) -> Figure:
    """Reliability, coverage and sparsification of dense and pruned; a row per split.

    Rows share their axes, so that what happens out of distribution is seen by looking down.

    Args:
        metrics: The checked content of ``metrics.json``.
        predictions: The arrays of ``predictions.npz`` in ``dataset.unit``.

    Returns:
        A figure with three axes per split.

    Raises:
        DataError: If an array is missing or has the wrong length.
    """
    unit = metrics["dataset"]["unit"]
    bars = {
        split: {name: error_bars(predictions, split, name) for name in COMPARED}
        for split in splits_present(predictions)
    }
    figure = new_figure(height=1.3 + 2.55 * len(bars))
    grid = figure.subplots(len(bars), 3, squeeze=False, sharex="col", sharey="col")
    for row, split in zip(grid, bars, strict=True):
        diagonal(row[0], "-")
        diagonal(row[1], "-")
        row[2].axhline(1, **_REFERENCE)
        prefix = "" if split == "test" else "ood_"
        _numbers(row[0], metrics, f"{prefix}ence", "ENCE", "lower right")
        area = f"{prefix}miscalibration_area"
        _numbers(row[1], metrics, area, "miscalibration area", "upper left")
        if split == "test":
            _numbers(row[2], metrics, "ause", "AUSE", "lower left")
        names = (f"RMS error ({unit})", "observed share", "RMSE left (relative)")
        for axes, name in zip(row, names, strict=True):
            axes.set_ylabel(f"{SPLIT_LABELS[split]}: {name}")
            light_grid(axes)
    points = _draw(grid[:, 0], bars, reliability, markers=True)
    square(grid[:, 0], np.concatenate([values for curve in points for values in curve]))
    _draw(grid[:, 1], bars, lambda error, std: (LEVELS, coverage(error, std)))
    grid[0, 1].set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 0.9), yticks=(0, 0.5, 0.9))
    curves = _draw(grid[:, 2], bars, sparsification, oracle=True)
    # Above 1 where the uncertain molecules are the good ones. A handful of molecules is left on the
    # right, where the curve is noise.
    top = max(1.2, *(1.05 * left[out <= 0.9].max(initial=1.0) for out, left in curves))
    grid[0, 2].set(xlim=(0, 0.9), ylim=(0, top), xticks=(0, 0.3, 0.6, 0.9), yticks=(0, 0.5, 1))
    heads = (
        ("Are the error bars as long\nas the errors?", f"predicted std ({unit})"),
        ("Do intervals hold the truth\nas often as they say?", "stated share of the interval"),
        ("Are the uncertain ones\nthe wrong ones?", "most uncertain taken out (share)"),
    )
    for column, (title, label) in zip(grid.T, heads, strict=True):
        column[0].set_title(title)
        column[-1].set_xlabel(label)
    every = [each for models in bars.values() for each in models.values()]
    _legend(figure, any(each.calibrated is not None for each in every))
    return figure


def _legend(figure: Figure, calibrated: bool) -> None:
    """One legend for all panels: colours are models, dashes tell what was done."""
    handles = [
        Line2D([], [], color=MODEL_COLOURS[name], marker=MODEL_MARKERS[name], label=name)
        for name in COMPARED
    ]
    if calibrated:
        grey: dict[str, Any] = {"color": "#333333", "marker": "o"}
        handles += [
            Line2D([], [], **grey, **_BEFORE, label="as predicted"),
            Line2D([], [], **grey, **_AFTER, label="calibrated"),
        ]
    handles += [
        Line2D([], [], **_REFERENCE, label="ideal (right: no information)"),
        Line2D([], [], color="#333333", linestyle=":", label="oracle"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=9)
