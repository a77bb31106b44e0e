"""Panels about error bars of forces: promised and held shares, and errors of single atoms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from egnn_prune.report.common.files import CALIBRATED
from egnn_prune.report.common.plots import diagonal, plain_log
from egnn_prune.report.common.style import (
    BLACK,
    GREY,
    LIGHT_TO_DARK,
    house_style,
    light_grid,
    new_figure,
)
from egnn_prune.report.run.calibration_panels import AFTER, BEFORE, MODEL_LOOKS
from egnn_prune.report.run.force_bars import ForceBars, Shares, coverages

Array = NDArray[np.float64]

QUANTILES = (0.5, 0.9)
"""Of the errors of atoms with error bars of one length."""
_BINS, _CELLS = 10, (24, 60)
_ATOMS = 20
"""In a bin, at least."""


def held_against_promised(
    axes: Axes,
    models: Mapping[str, Mapping[str, Any]],
    prefix: str,
    halves: Mapping[str, Shares] | None = None,
) -> None:
    """Share that intervals hold against the share that they promise, raw and calibrated.

    Args:
        axes: Where.
        models: Of ``metrics.json``, by name.
        prefix: Of their keys, such as ``force_``.
        halves: Half widths of 95 % intervals of the final shares, by model.
    """
    diagonal(axes, "-")
    for i, (name, model) in enumerate(models.items()):
        colour, marker = MODEL_LOOKS[name]
        beside = 0.004 * (i - (len(models) - 1) / 2)  # so that intervals do not hide each other
        look: dict[str, Any] = {"color": colour, "marker": marker}
        raw, calibrated = coverages(model, prefix), coverages(model, prefix, CALIBRATED)
        for shares, style, final in ((raw, BEFORE, not calibrated), (calibrated, AFTER, True)):
            if shares:
                x, y = [p / 100 for p in shares], list(shares.values())
                axes.plot(x, y, **look, **(AFTER if final else style), zorder=3)
        known = (halves or {}).get(name, {})
        for p, share in (calibrated or raw).items():
            if p in known:
                ends = share - known[p], share + known[p]
                axes.vlines(p / 100 + beside, *ends, color=colour, linewidth=1.2)
    axes.set(
        xlim=(0.45, 1.0), ylim=(0, 1.03), xticks=(0.5, 0.8, 0.9, 0.95), yticks=(0, 0.5, 0.8, 0.9)
    )
    axes.set_xticklabels(["50", "80", "90", "95"])
    axes.set_yticklabels(["0", "50", "80", "90"])
    light_grid(axes)


@house_style()
def atom_errors(bars: Mapping[str, ForceBars], labels: Mapping[str, str], unit: str) -> Figure:
    """Error of single atoms against their error bars: a density with lines of quantiles.

    Args:
        bars: By model, a panel each.
        labels: Titles of the panels.
        unit: Of forces.
    """
    points = {name: _usable(each) for name, each in bars.items()}
    points = {name: each for name, each in points.items() if each[0].size}
    figure = new_figure(3.6)
    panels = np.atleast_1d(
        np.array(figure.subplots(1, max(1, len(points)), sharex=True, sharey=True))
    )
    figure.suptitle("Errors of the forces on single atoms, by the length of their error bars")
    if not points:
        return figure
    fewest = min(each[0].size for each in points.values())
    cells = int(np.clip(np.sqrt(fewest), *_CELLS))
    edges = [
        np.geomspace(*_range(np.concatenate([each[i] for each in points.values()])), cells + 1)
        for i in (0, 1)
    ]
    for axes, (name, (std, size)) in zip(panels, points.items(), strict=True):
        inside = [np.clip(v, e[0], e[-1]) for v, e in zip((std, size), edges, strict=True)]
        count = np.histogram2d(*inside, bins=edges)[0]
        axes.pcolormesh(
            *(edges[0], edges[1], np.ma.masked_equal(count.T, 0)),
            norm=LogNorm(1, max(2.0, count.max())),
            cmap=LIGHT_TO_DARK,
            alpha=0.75,
            rasterized=True,
        )
        for (q, found), style in zip(_lines(std, size).items(), ("-", (0, (1, 1))), strict=True):
            # with a white edge, to be seen on the density
            halo = [Stroke(linewidth=3.5, foreground="white"), Normal()]
            axes.plot(*found, color=BLACK, linestyle=style, label=f"{q:.0%}", path_effects=halo)
        axes.set(xscale="log", yscale="log", xlim=edges[0][[0, -1]], ylim=edges[1][[0, -1]])
        diagonal(axes)
        for axis, ends in ((axes.xaxis, edges[0]), (axes.yaxis, edges[1])):
            plain_log(axis, (1, 2, 5) if ends[-1] / ends[0] < 30 else (1, 3))
        light_grid(axes)
        axes.set_title(labels[name])
        axes.set_xlabel(f"error bar ({unit})")
    panels[0].set_ylabel(f"error of the atom ({unit})")
    texts = {"-": "half of the atoms lie below", (0, (1, 1)): "90 % of the atoms lie below"}
    handles = [Line2D([], [], color=BLACK, linestyle=s, label=t) for s, t in texts.items()]
    handles.append(Line2D([], [], color=GREY, linestyle="--", lw=1, label="as long as the error"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _usable(bars: ForceBars) -> tuple[Array, Array]:
    """Error bars and errors that are numbers above zero."""
    std, size = bars.atoms.final, bars.size
    known = np.isfinite(std) & np.isfinite(size) & (std > 0) & (size > 0)
    return std[known], size[known]


def _range(values: Array) -> tuple[float, float]:
    """Where nearly all points are; the few beyond are drawn at the edge."""
    low, high = np.percentile(values, [0.5, 99.9])
    return 0.9 * float(low), 1.15 * float(max(high, 1.01 * low))


def _lines(std: Array, size: Array) -> dict[float, tuple[Array, Array]]:
    """Quantiles of the errors in bins of equal count: median error bar and quantile of each."""
    order = np.argsort(std, kind="stable")
    parts = np.array_split(order, max(1, min(_BINS, len(order) // _ATOMS)))
    x = np.array([np.median(std[part]) for part in parts])
    return {q: (x, np.array([np.quantile(size[p], q) for p in parts])) for q in QUANTILES}
