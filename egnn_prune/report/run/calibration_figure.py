"""Small multiples of calibration: three views of the error bars, test above OOD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from egnn_prune.report.common.files import RECALIBRATED, Metrics, Predictions, number
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
from egnn_prune.report.run.calibration import LEVELS, coverage, reliability, sparsification
from egnn_prune.report.run.error_bars import COMPARED, ErrorBars, error_bars, splits_present

Array = NDArray[np.float64]
Bars = dict[tuple[str, str], ErrorBars]  # by split and model

_BEFORE: dict[str, Any] = {
    "linestyle": (0, (4, 2)),
    "linewidth": 1.1,
    "markerfacecolor": "white",
    "markersize": 4,
}
_AFTER: dict[str, Any] = {"linestyle": "-", "linewidth": 1.9, "markersize": 4.5}
_REFERENCE: dict[str, Any] = {"color": GREY, "linestyle": "-", "linewidth": 0.8, "zorder": 1}


def _stds(bars: ErrorBars) -> list[tuple[Array, dict[str, Any]]]:
    """Error bars before and after recalibration with the look of their line.

    Without recalibration there is one line, drawn as the main one.
    """
    if bars.recalibrated is None:
        return [(bars.std, _AFTER)]
    return [(bars.std, _BEFORE), (bars.recalibrated, _AFTER)]


def _numbers(axes: Axes, metrics: Metrics, key: str, label: str, corner: str) -> None:
    """Writes a quantity for each model in the model's colour, before → after recalibration."""
    lines = []
    for name in COMPARED:
        model = metrics["models"][name]
        text = arrow(fixed(number(model.get(key))), fixed(number(model.get(key + RECALIBRATED))))
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


def _reliability_panels(panels: NDArray[Any], bars: Bars, splits: Sequence[str]) -> None:
    drawn: list[Array] = []
    for axes, split in zip(panels, splits, strict=True):
        diagonal(axes, "-")
        for name in COMPARED:
            each, marker = bars[split, name], MODEL_MARKERS[name]
            for std, look in _stds(each):
                curve = reliability(each.error, std)
                axes.plot(*curve, color=MODEL_COLOURS[name], marker=marker, **look)
                drawn += curve
    square(panels, np.concatenate(drawn))


def _coverage_panel(axes: Axes, bars: Bars, split: str) -> None:
    diagonal(axes, "-")
    for name in COMPARED:
        each = bars[split, name]
        for std, look in _stds(each):
            # Error bars of zero width everywhere have no coverage: nothing is drawn.
            observed = coverage(each.error, std)
            axes.plot(LEVELS, observed, color=MODEL_COLOURS[name], **look)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 0.9), yticks=(0, 0.5, 0.9))


def _sparsification_top(bars: Bars) -> float:
    """Upper end of the sparsification axes: above 1 where the uncertain molecules are the good."""
    curves = [sparsification(each.error, std) for each in bars.values() for std, _ in _stds(each)]
    highest = max((left[removed <= 0.9].max(initial=1.0) for removed, left in curves), default=1.0)
    return max(1.2, 1.05 * float(highest))


def _sparsification_panel(axes: Axes, bars: Bars, split: str, top: float) -> None:
    axes.axhline(1, **_REFERENCE)
    for name in COMPARED:
        each, colour = bars[split, name], MODEL_COLOURS[name]
        oracle = sparsification(each.error, np.abs(each.error))
        axes.plot(*oracle, color=colour, linestyle=":", linewidth=1.3)
        for std, look in _stds(each):
            axes.plot(*sparsification(each.error, std), color=colour, **look)
    # A handful of molecules is left on the right, where the curve is noise.
    axes.set(xlim=(0, 0.9), ylim=(0, top), xticks=(0, 0.3, 0.6, 0.9), yticks=(0, 0.5, 1))


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
    splits = splits_present(predictions)
    bars = {
        (split, name): error_bars(predictions, split, name) for split in splits for name in COMPARED
    }
    top = _sparsification_top(bars)
    figure = new_figure(height=1.3 + 2.55 * len(splits))
    grid = figure.subplots(len(splits), 3, squeeze=False, sharex="col", sharey="col")
    _reliability_panels(grid[:, 0], bars, splits)
    for row, split in zip(grid, splits, strict=True):
        prefix = "" if split == "test" else "ood_"
        _coverage_panel(row[1], bars, split)
        _sparsification_panel(row[2], bars, split, top)
        _numbers(row[0], metrics, f"{prefix}ence", "ENCE", "lower right")
        area = f"{prefix}miscalibration_area"
        _numbers(row[1], metrics, area, "miscalibration area", "upper left")
        if split == "test":
            _numbers(row[2], metrics, "ause", "AUSE", "lower left")
        names = (f"RMS error ({unit})", "observed share", "RMSE left (relative)")
        for axes, name in zip(row, names, strict=True):
            axes.set_ylabel(f"{SPLIT_LABELS[split]}: {name}")
            light_grid(axes)
    heads = (
        ("Are the error bars as long\nas the errors?", f"predicted std ({unit})"),
        ("Do intervals hold the truth\nas often as they say?", "stated share of the interval"),
        ("Are the uncertain ones\nthe wrong ones?", "most uncertain taken out (share)"),
    )
    for column, (title, label) in zip(grid.T, heads, strict=True):
        column[0].set_title(title)
        column[-1].set_xlabel(label)
    _legend(figure, any(each.recalibrated is not None for each in bars.values()))
    return figure


def _legend(figure: Figure, recalibrated: bool) -> None:
    """One legend for all panels: colours are models, dashes tell what was done."""
    handles = [
        Line2D([], [], color=MODEL_COLOURS[name], marker=MODEL_MARKERS[name], label=name)
        for name in COMPARED
    ]
    if recalibrated:
        grey: dict[str, Any] = {"color": "#333333", "marker": "o"}
        handles += [
            Line2D([], [], **grey, **_BEFORE, label="as predicted"),
            Line2D([], [], **grey, **_AFTER, label="recalibrated"),
        ]
    handles += [
        Line2D([], [], **_REFERENCE, label="ideal (right: no information)"),
        Line2D([], [], color="#333333", linestyle=":", label="oracle"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=9)
