"""What the figures share: bars named at their side, points outside of the axes, labels."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.axes import Axes

from egnn_prune.report.common.formatting import MISSING
from egnn_prune.report.common.style import GREY, LOOKS, light_grid
from egnn_prune.report.specialise.files import LABELS
from egnn_prune.report.specialise.intervals import Ends


def named_bars(
    axes: Axes,
    lengths: Mapping[str, float],
    texts: Mapping[str, str],
    ends: Mapping[str, Ends] | None = None,
    start: float = 0.0,
) -> float:
    """One bar a model with its name beside it, so that no colour has to be told from another.

    Args:
        axes: Where.
        lengths: Of the bars by model; NaN: none.
        texts: What stands behind each.
        ends: Lower and upper end of an interval of each.
        start: Where bars begin, above 0 on logarithmic axes.

    Returns:
        How far bars and intervals reach.
    """
    reach = start
    for i, (name, length) in enumerate(lengths.items()):
        known = math.isfinite(length)
        tip = max(length, start) if known else start
        if known:
            axes.barh(i, tip - start, left=start, height=0.7, color=LOOKS[name][0])
        low, high = (ends or {}).get(name, (math.nan, math.nan))
        if known and math.isfinite(low) and math.isfinite(high):
            axes.plot([low, high], [i, i], color="black", marker="|", lw=1.0, markersize=5)
            tip = max(tip, high)
        axes.annotate(
            *(texts[name] if known else MISSING, (tip, i), (4, 0)),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
        reach = max(reach, tip)
    axes.set_yticks(range(len(lengths)), [LABELS[name] for name in lengths])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(lengths) - 0.5, -0.5)
    light_grid(axes, "x")
    return reach


def note_inside(axes: Axes, text: str, va: str = "bottom") -> None:
    """A small grey note in the right corner of a panel."""
    axes.text(
        *(0.97, 0.03 if va == "bottom" else 0.97, text),
        transform=axes.transAxes,
        ha="right",
        va=va,
        color=GREY,
        fontsize=8,
        bbox={"facecolor": "white", "linewidth": 0, "pad": 1},
    )
