"""What the figures are made of: lines with intervals, bands, bars, diagonals, axes, legends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

from egnn_prune.report.common.statistics import Rows, Summary, values
from egnn_prune.report.common.style import GREY, MODEL_COLOURS, light_grid

Look = tuple[str, str]
"""Colour and marker."""


def halves(found: Sequence[Summary]) -> list[float]:
    """Half widths of intervals to draw; 0 where there is none."""
    return [0.0 if math.isnan(s.half) else s.half for s in found]


def line(
    axes: Axes,
    x: ArrayLike,
    found: Sequence[Summary],
    look: Look,
    label: str,
    style: str = "-",
    scale: Callable[[Any], Any] = np.asarray,
    horizontal: bool = False,
) -> None:
    """Means, joined by a line, each with its 95 % interval.

    Args:
        axes: Where.
        x: ``[points]``; their heights for `horizontal` ones.
        found: What to draw, one a point.
        look: Colour and marker.
        label: Name in the legend.
        style: Of the line, ``none`` for no line.
        scale: From the numbers summarised to those drawn, such as ``np.exp`` for logarithms.
        horizontal: Whether means and intervals lie along x, as in a forest plot.
    """
    mean = np.array([s.mean for s in found])
    half = np.array(halves(found))
    ends = np.stack([scale(mean) - scale(mean - half), scale(mean + half) - scale(mean)])
    error: dict[str, Any] = {"xerr" if horizontal else "yerr": ends} if half.any() else {}
    x, y = (scale(mean), x) if horizontal else (x, scale(mean))
    axes.errorbar(
        x,
        y,
        **error,
        color=look[0],
        marker=look[1],
        linestyle=style,
        markersize=4.5,
        capsize=2,
        elinewidth=1.0,
        zorder=3,
        label=label,
    )


def band(
    axes: Axes,
    x: ArrayLike,
    found: Sequence[Summary],
    look: Look,
    label: str,
    style: str = "-",
    markersize: float = 5,
) -> None:
    """Means as a line and their 95 % intervals as a band; as a bar where there is one point."""
    mean, half = np.array([s.mean for s in found]), np.array(halves(found))
    if len(found) == 1 and half.any():
        line(axes, x, found, look, label)
        return
    colour, marker = look
    axes.plot(
        x, mean, style, color=colour, marker=marker, markersize=markersize, label=label, zorder=3
    )
    if half.any():
        axes.fill_between(x, mean - half, mean + half, color=colour, alpha=0.14, linewidth=0)


def diagonal(axes: Axes, style: str = "--", label: str | None = None) -> None:
    """Where x and y are equal, on linear and on logarithmic axes."""
    axes.axline((1, 1), (2, 2), color=GREY, linestyle=style, linewidth=1, label=label, zorder=1)


def zero(axes: Axes, vertical: bool = False) -> None:
    """The reference line of no difference."""
    (axes.axvline if vertical else axes.axhline)(0, color=GREY, linestyle="--", linewidth=1)


def plain_log(axis: Axis, steps: Sequence[float]) -> None:
    """Ticks of a logarithmic axis at `steps` in each decade, as plain numbers."""
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


_WIDE_RANGE = 4.0
"""Ratio of largest to smallest value from which the axes of :func:`square` are logarithmic."""


def square(panels: Iterable[Axes], points: NDArray[np.float64]) -> tuple[float, float, bool]:
    """Gives x and y the same limits, logarithmic where the points need it.

    Args:
        panels: Where.
        points: All that is shown, of both axes.

    Returns:
        Lower and upper limit, and whether they are logarithmic.
    """
    low, high = float(points.min()), float(points.max())
    logarithmic = low > 0 and high / low >= _WIDE_RANGE
    low, high = (low / 1.25, 1.25 * high) if logarithmic else (0.0, 1.08 * high)
    for axes in panels:
        if logarithmic:
            axes.set(xscale="log", yscale="log")
            for axis in (axes.xaxis, axes.yaxis):
                plain_log(axis, (1, 2, 5) if high / low < 30 else (1, 3))
        axes.set(xlim=(low, high), ylim=(low, high))
    return low, high, logarithmic


_TAIL = 0.3
"""Percent of points at each end that may set the axis range only if they are not far out."""


def limits_without_outliers(values: NDArray[np.float64]) -> tuple[float, float]:
    """Axis range that holds every point unless a few are so far out that they hide the rest."""
    if values.size == 0:
        return -1.0, 1.0
    low, high = np.percentile(values, [_TAIL, 100 - _TAIL])
    margin = 0.25 * (high - low) or 1.0
    low, high = max(low - margin, values.min()), min(high + margin, values.max())
    pad = 0.04 * (high - low) or 1.0
    return float(low - pad), float(high + pad)


def model_bars(
    axes: Axes,
    groups: Sequence[str],
    lengths: Mapping[str, Sequence[float]],
    texts: Mapping[str, Sequence[str]],
    errors: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Horizontal bars, which leave room to write each number behind its bar.

    Args:
        axes: Where.
        groups: Names of the groups, from the top.
        lengths: Of the bars by model, one a group; NaN: no bar.
        texts: What to write behind each.
        errors: Half widths of intervals; NaN: none.
    """
    height = 0.8 / len(lengths)
    extents = [1e-9]
    for i, name in enumerate(lengths):
        for j, value in enumerate(lengths[name]):
            if not math.isfinite(value):
                continue
            y = j + (i - (len(lengths) - 1) / 2) * height
            axes.barh(y, value, height=0.9 * height, color=MODEL_COLOURS[name])
            end = value
            if errors and math.isfinite(errors[name][j]):
                axes.errorbar(value, y, xerr=errors[name][j], color="black", lw=1, capsize=2)
                end += errors[name][j]
            axes.annotate(
                *(texts[name][j], (end, y), (4, 0)),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
            )
            extents.append(end)
    axes.set_yticks(range(len(groups)), groups)
    axes.tick_params(axis="y", length=0)
    axes.set(ylim=(len(groups) - 0.5, -0.5), xlim=(0, 1.35 * max(extents)))
    light_grid(axes, "x")


def legend_below(figure: Figure, *axes: Axes, columns: int = 7, size: float = 8.5) -> None:
    """One legend under all panels, of what the given ones show."""
    shown = [both for each in axes for both in zip(*each.get_legend_handles_labels(), strict=True)]
    handles, labels = zip(*shown, strict=True)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=size)


def interval_note(rows: Rows, what: str) -> str:
    """For the title of a figure: what its bars or bands are, and over how many seeds."""
    seeds = len(values(rows, "seed"))
    return f"{what}: 95 % interval over {seeds} seeds" if seeds > 1 else "one seed"
