"""What the figures of image experiments share: names, colours, intervals and direct labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from egnn_prune.report.common.statistics import Summary
from egnn_prune.report.common.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
)

_NAMES = {
    "one_shot": "one-shot",
    "rewound": "rewound to its initial weights",
    "reinitialised": "randomly re-initialised",
    "shuffled": "as many, but others",
    "trained_on": "dense, trained on",
    "dense_longer": "dense, trained longer",
    "top": "most uncertain",
    "least": "least uncertain",
    "all": "all images",
    "scratch": "from scratch",
}
_LOOKS = {
    "dense": (BLUE, "o"),
    "baseline": (BLUE, "o"),
    "trained_on": (SKY, "X"),
    "dense_longer": (SKY, "X"),
    "one_shot": (VERMILION, "s"),
    "rewound": (BLUE, "o"),
    "reinitialised": (ORANGE, "^"),
    "iterative": (GREEN, "D"),
    "shuffled": (BLACK, "v"),
    "magnitude": (VERMILION, "s"),
    "neurons": (VERMILION, "s"),
    "connections": (GREEN, "D"),
    "random": (ORANGE, "^"),
    "scratch": (GREEN, "D"),
    "taylor": (PURPLE, "v"),
    "top": (VERMILION, "s"),
    "least": (BLUE, "o"),
    "all": (GREEN, "D"),
}
_TITLE = 90
"""Characters of a figure's title that fit on one line."""
_SPARE = ((PURPLE, "P"), (BLACK, "h"), (SKY, "p"), (GREEN, "*"), (BLUE, "<"))


def name(key: str) -> str:
    """An arm or a strategy in words."""
    return _NAMES.get(key, key.replace("_", " "))


def looks(keys: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of arms or strategies: the same in every figure where they are known."""
    unknown = [key for key in keys if key not in _LOOKS]
    spare = {key: _SPARE[i % len(_SPARE)] for i, key in enumerate(unknown)}
    return {key: _LOOKS.get(key) or spare[key] for key in keys}


def halves(found: Sequence[Summary]) -> list[float]:
    """Half widths of intervals to draw; 0 where there is none."""
    return [0.0 if math.isnan(s.half) else s.half for s in found]


def line(
    axes: Axes,
    x: Sequence[float],
    found: Sequence[Summary],
    look: tuple[str, str],
    label: str,
    style: str = "-",
) -> None:
    """Means with 95 % intervals against `x`, joined by a line."""
    points = [(at, s) for at, s in zip(x, found, strict=True) if s.n]
    if points:
        axes.errorbar(
            [at for at, _ in points],
            [s.mean for _, s in points],
            yerr=halves([s for _, s in points]),
            color=look[0],
            marker=look[1],
            linestyle=style,
            markersize=4.5,
            capsize=2,
            elinewidth=0.9,
            label=label,
        )


def reference(axes: Axes, found: Summary, label: str) -> None:
    """A dashed horizontal line at a mean, with its 95 % interval as a band."""
    if found.n == 0:
        return
    axes.axhline(found.mean, color=GREY, linestyle="--", linewidth=1.2, label=label, zorder=1)
    if not math.isnan(found.half):
        low, high = found.mean - found.half, found.mean + found.half
        axes.axhspan(low, high, color=GREY, alpha=0.12, linewidth=0, zorder=0)


def band(axes: Axes, x: Sequence[float], found: Sequence[Summary], colour: str, label: str) -> None:
    """Means against `x` as a line, and their 95 % intervals as a band."""
    mean = np.array([s.mean for s in found])
    half = np.array(halves(found))
    axes.plot(x, mean, color=colour, label=label)
    if half.any():
        axes.fill_between(x, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)


def frame(axes: Axes, found: Sequence[Summary], floor: float = 0.0, more: float = 0.6) -> None:
    """Limits of y around the means, so that one huge interval does not flatten all lines.

    Args:
        axes: Where.
        found: All that is drawn.
        floor: Nothing is shown below it.
        more: How far an interval may reach beyond the means, as a share of their range.
    """
    seen = [s for s in found if s.n]
    if not seen:
        return
    low, high = min(s.mean for s in seen), max(s.mean for s in seen)
    room = max(more * (high - low), 0.02 * abs(high), 1e-9)
    wide = halves(seen)
    bottom = max(low - room, min(s.mean - h for s, h in zip(seen, wide, strict=True)))
    top = min(high + room, max(s.mean + h for s, h in zip(seen, wide, strict=True)))
    margin = 0.06 * (top - bottom) or 0.05 * abs(top) or 0.05
    axes.set_ylim(max(floor, bottom - margin), top + margin)


def legend(figure: Figure, panels: Iterable[Axes], most: int) -> None:
    """One legend below the figure for all its `panels`, each name once, in up to `most` columns."""
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    columns = min(most, len(found) or 1)
    figure.legend([*found.values()], [*found], loc="outside lower center", ncols=columns)


def title(figure: Figure, text: str, *asides: str) -> None:
    """The title of a figure at its left, with remarks in brackets behind it."""
    aside = f"({', '.join(filter(None, asides))})"
    between = "  " if len(text + aside) <= _TITLE else "\n"
    figure.suptitle(f"{text}{between}{aside}", x=0.01, ha="left")


def dots(
    axes: Axes,
    found: Sequence[Summary],
    at: Sequence[float],
    look: tuple[str, str],
    label: str,
    logarithmic: bool = False,
) -> list[float]:
    """Means with 95 % intervals along x at the heights `at`; where they are drawn.

    Args:
        axes: Where.
        found: What was measured, all of it; of logarithms of what is drawn if `logarithmic`.
        at: A height for each.
        look: Colour and marker.
        label: In the legend.
        logarithmic: Whether `found` holds logarithms.
    """
    wide = np.array(halves(found))
    centre = np.array([s.mean for s in found])
    bars = np.array([wide, wide])
    if logarithmic:
        centre = np.exp(centre)
        bars = centre * np.array([1 - np.exp(-wide), np.exp(np.minimum(wide, 5)) - 1])
    axes.errorbar(
        centre,
        at,
        xerr=bars,
        color=look[0],
        marker=look[1],
        linestyle="none",
        capsize=2.5,
        elinewidth=1.2,
        label=label,
    )
    return centre.tolist()


def published(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    label: str,
    marker: str = "o",
    size: float = 6,
) -> None:
    """Open grey markers at published numbers."""
    axes.plot(
        *zip(*points, strict=True),
        linestyle="none",
        marker=marker,
        markerfacecolor="none",
        markeredgecolor=GREY,
        markersize=size,
        zorder=4,
        label=label,
    )


def end_labels(
    axes: Axes, heights: Sequence[float], texts: Sequence[str], colours: Sequence[str]
) -> None:
    """Names lines at their right ends, moved apart where they would overlap.

    Args:
        axes: Where; its limits and its size must be final.
        heights: Where each line ends.
        texts: Their names.
        colours: Their colours.
    """
    low, high = axes.get_ylim()
    inches = axes.get_window_extent().height / axes.figure.dpi
    apart = 0.16 / inches
    order = np.argsort(heights)
    at = [min(1.0, max(0.0, (heights[i] - low) / (high - low))) for i in order]
    for _ in range(100):  # neighbours push each other away until all have room
        for k in range(1, len(at)):
            push = max(0.0, apart - (at[k] - at[k - 1])) / 2
            at[k - 1], at[k] = at[k - 1] - push, at[k] + push
    for k, i in enumerate(order):
        axes.annotate(
            texts[i],
            (1.01, at[k]),
            xycoords="axes fraction",
            color=colours[i],
            fontsize=8.5,
            fontweight="bold",
            va="center",
        )
