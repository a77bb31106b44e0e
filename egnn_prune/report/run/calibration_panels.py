"""What figures of calibration share: curves before and after, numbers in a corner, the legend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from egnn_prune.report.common.files import CALIBRATED, Metrics, number
from egnn_prune.report.common.formatting import MISSING
from egnn_prune.report.common.rows import arrow, fixed
from egnn_prune.report.common.style import GREY, LOOKS, MODEL_COLOURS, MODEL_MARKERS
from egnn_prune.report.run.calibration import Curve
from egnn_prune.report.run.error_bars import COMPARED, ErrorBars

Array = NDArray[np.float64]
Bars = Mapping[str, Mapping[str, ErrorBars]]
"""By panel and model."""

MODEL_LOOKS = LOOKS | {name: (MODEL_COLOURS[name], MODEL_MARKERS[name]) for name in MODEL_COLOURS}
"""Colour and marker of every model of every kind of run."""
BEFORE: dict[str, Any] = {
    "linestyle": (0, (4, 2)),
    "linewidth": 1.1,
    "markerfacecolor": "white",
    "markersize": 4,
}
AFTER: dict[str, Any] = {"linestyle": "-", "linewidth": 1.9, "markersize": 4.5}
REFERENCE: dict[str, Any] = {"color": GREY, "linestyle": "-", "linewidth": 0.8, "zorder": 1}


def write_numbers(axes: Axes, metrics: Metrics, key: str, label: str, corner: str) -> None:
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


def draw_curves(
    panels: Iterable[Any],
    bars: Bars,
    curve: Callable[[Array, Array], Curve],
    markers: bool = False,
    oracles: Sequence[str] = (),
) -> list[Curve]:
    """Draws a curve of each model before and after calibration, one panel each.

    Without calibration there is one line, drawn as the main one.

    Args:
        panels: The axes.
        bars: What to draw, one mapping a panel.
        curve: From errors and standard deviations to x and y; empty or NaN: nothing is drawn.
        markers: Whether points are marked.
        oracles: Models of which to draw the curve of a score that knows the errors, too.

    Returns:
        What was drawn, oracles aside.
    """
    drawn = []
    for axes, models in zip(panels, bars.values(), strict=True):
        for name, each in models.items():
            colour, marker = MODEL_LOOKS[name]
            look: dict[str, Any] = {"color": colour} | ({"marker": marker} if markers else {})
            if name in oracles:
                ideal = curve(each.error, np.abs(each.error))
                axes.plot(*ideal, **look, linestyle=":", linewidth=1.3)
            if each.calibrated is not None:
                drawn.append(curve(each.error, each.std))
                axes.plot(*drawn[-1], **look, **BEFORE)
            drawn.append(curve(each.error, each.final))
            axes.plot(*drawn[-1], **look, **AFTER)
    return drawn


def style_legend(
    figure: Figure,
    names: Mapping[str, str],
    calibrated: bool,
    oracle: bool = True,
    reference: str = "ideal (right: no information)",
) -> None:
    """One legend for all panels: colours are models, dashes tell what was done.

    Args:
        figure: Where.
        names: Words for the models.
        calibrated: Whether lines are drawn before and after.
        oracle: Whether a dotted line is drawn.
        reference: What the thin grey line is.
    """
    handles = [
        Line2D([], [], color=MODEL_LOOKS[name][0], marker=MODEL_LOOKS[name][1], label=label)
        for name, label in names.items()
    ]
    if calibrated:
        grey: dict[str, Any] = {"color": "#333333", "marker": "o"}
        handles += [
            Line2D([], [], **grey, **BEFORE, label="before calibration"),
            Line2D([], [], **grey, **AFTER, label="calibrated"),
        ]
    handles.append(Line2D([], [], **REFERENCE, label=reference))
    if oracle:
        handles.append(Line2D([], [], color="#333333", linestyle=":", label="oracle"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9)
