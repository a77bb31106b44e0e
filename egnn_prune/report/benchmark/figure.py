"""The benchmark as a figure: bars of whole cases, and curves over edges, depth, width and batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from egnn_prune.report.benchmark.tables import Row, network_name
from egnn_prune.report.common.formatting import significant
from egnn_prune.report.common.plots import plain_log
from egnn_prune.report.common.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    house_style,
    light_grid,
    new_figure,
)

COLOURS = {
    "textbook": GREY,
    "egnn-pytorch": ORANGE,
    "nequip": PURPLE,
    "ours": BLUE,
    "ours-recompute": BLACK,
    "ours-50": SKY,
    "ours-75": GREEN,
    "ours-90": VERMILION,
}
STYLES: dict[str, tuple[str, str]] = {
    "infer": ("-", "o"),
    "train": ("-.", "s"),
    "forces": (":", "^"),
}
BARS = (
    *(("qm9-128", "infer"), ("qm9-64", "infer"), ("n-body", "infer")),
    *(("qm9-128", "train"), ("atoms-2000", "forces"), ("irreps-32", "forces")),
)
"""Case and pass of each panel of bars."""
PANEL_HEIGHT = 2.5
_FLOOR: dict[str, Any] = {"color": BLACK, "linestyle": "--", "linewidth": 1, "zorder": 1}


def benchmark_figure(rows: Sequence[Row]) -> Figure | None:
    """All panels that the rows can fill, three in a line; ``None`` where there is none.

    Where rows have several threads or devices, those of the first are drawn.
    """
    timed = [row for row in rows if row["ms_median"] is not None]
    panels = _panels([r for r in timed if _where(r) == _where(timed[0])])
    if not panels:
        return None
    lines = (len(panels) + 2) // 3
    with house_style():
        figure = new_figure(PANEL_HEIGHT * lines + 0.6)
        for i, draw in enumerate(panels):
            draw(figure.add_subplot(lines, 3, i + 1))
        _legend(figure, timed)
    return figure


def _where(row: Row) -> tuple[str, int]:
    return row["device"], row["threads"]


def _panels(rows: Sequence[Row]) -> list[Callable[[Axes], None]]:
    panels: list[Callable[[Axes], None]] = []
    for case, name in BARS:
        found = [r for r in rows if r["case"] == case and r["pass"] == name]
        if len(found) > 1:
            panels.append(partial(_bars, rows=found))
    curves: tuple[tuple[str, str, str, str, Callable[[Row], float], tuple[str, ...]], ...] = (
        ("edges", "time per edge", "edges", "µs", _us_per_edge, ("infer", "train")),
        ("edges", "memory", "edges", "kB per edge", _kb_per_edge, ("train",)),
        ("depth", "memory", "layers", "kB per edge", _kb_per_edge, ("train",)),
        ("width", "time", "hidden width", "ms", _ms, ("infer", "train")),
        (
            "batch",
            "time per graph of 18 atoms",
            "graphs of 18 atoms",
            "ms",
            _per_graph,
            (*STYLES,),
        ),
    )
    for family, title, along, unit, value, names in curves:
        found = [r for r in rows if r["case"].startswith(f"{family}-") and r["pass"] in names]
        if len({r["case"] for r in found}) > 1:

            def draw(
                axes: Axes,
                found: list[Row] = found,
                title: str = f"{title} ({unit})",
                along: str = along,
                value: Callable[[Row], float] = value,
            ) -> None:
                _curves(axes, found, title, along, value)

            panels.append(draw)
    return panels


def _ms(row: Row) -> float:
    return float(row["ms_median"])


def _us_per_edge(row: Row) -> float:
    return 1e3 * float(row["ms_median"]) / float(row["edges"])


def _kb_per_edge(row: Row) -> float:
    return 1e3 * float(row["peak_mb"]) / float(row["edges"])


def _per_graph(row: Row) -> float:
    return float(row["ms_median"]) / size_of(row["case"])


def size_of(case: str) -> float:
    """The number behind a case's name, such as 1000 of ``edges-1e3``."""
    found = re.search(r"[\de]+$", case)
    return float(found[0]) if found else 0.0


def _bars(axes: Axes, rows: Sequence[Row]) -> None:
    """One bar a network, compiled ones hatched, quartiles as error bars, the floor as a line."""
    longest = max(row["ms_median"] for row in rows)
    for y, row in enumerate(rows):
        ms = row["ms_median"]
        look: dict[str, Any] = {"color": COLOURS.get(row["variant"], BLACK)}
        if row["compiled"]:
            look |= {"hatch": "////", "edgecolor": "white", "linewidth": 0}
        axes.barh(y, ms, height=0.8, **look)
        axes.errorbar(ms, y, xerr=row["ms_iqr"] / 2, color=BLACK, elinewidth=1)
        fresh = row["fresh_ms"]
        if fresh is not None:
            axes.plot(fresh, y, marker="|", color=BLACK, markersize=8, markeredgewidth=1.4)
        end = max(ms + row["ms_iqr"] / 2, fresh or 0.0)
        axes.annotate(
            *(significant(ms), (end, y), (4, 0)), textcoords="offset points", va="center", size=7.5
        )
        longest = max(longest, end)
    floors = [r["floor_ms"] for r in rows if r["variant"] == "ours" and r["floor_ms"]]
    if floors:
        axes.axvline(floors[0], **_FLOOR)
    axes.set_yticks(range(len(rows)), [network_name(row) for row in rows], fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlim=(0, 1.22 * longest), xlabel="ms")
    axes.set_title(f"{rows[0]['case']}, {rows[0]['pass']}")
    light_grid(axes, "x")


def _curves(
    axes: Axes, rows: Sequence[Row], title: str, along: str, value: Callable[[Row], float]
) -> None:
    """A line for each network and pass, and the floor of what ours computes."""
    kinds = {(r["variant"], r["compiled"], r["pass"]): None for r in rows}
    for variant, compiled, name in kinds:
        line = [
            r for r in rows if (r["variant"], r["compiled"], r["pass"]) == (variant, compiled, name)
        ]
        line.sort(key=_along)
        style, marker = STYLES[name]
        look: dict[str, Any] = {
            "color": COLOURS.get(variant, BLACK),
            "linestyle": style,
            "marker": marker,
        }
        axes.plot([_along(r) for r in line], [value(r) for r in line], markersize=4, **look)
        floors = [r | {"ms_median": r["floor_ms"]} for r in line if r["floor_ms"]]
        if variant == "ours" and not compiled and value is not _kb_per_edge:
            axes.plot([_along(r) for r in floors], [value(r) for r in floors], **_FLOOR)
    axes.set(xscale="log", yscale="log", xlabel=along)
    axes.set_title(title)
    low, high = axes.get_ylim()
    if high / low < 30:  # so that flat lines look flat
        middle = (low * high) ** 0.5
        axes.set_ylim(middle / 30**0.5, middle * 30**0.5)
    if not rows[0]["case"].startswith("edges-"):  # the few sizes that there are
        sizes = sorted({_along(row) for row in rows})
        axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
    plain_log(axes.yaxis, (1, 3))
    light_grid(axes)


def _along(row: Row) -> float:
    return float(row["edges"]) if row["case"].startswith("edges-") else size_of(row["case"])


def _legend(figure: Figure, rows: Sequence[Row]) -> None:
    """Under all panels: what of it the rows have."""

    def line(label: str, **look: Any) -> Line2D:
        return Line2D([], [], markersize=4, label=label, **look)

    seen = {row["variant"] for row in rows}
    handles: list[Any] = [Patch(color=c, label=v) for v, c in COLOURS.items() if v in seen]
    if any(row["compiled"] for row in rows):
        handles.append(Patch(facecolor=GREY, hatch="////", edgecolor="white", label="compiled"))
    handles.append(line("floor of ours", color=BLACK, linestyle="--"))
    if any(row["fresh_ms"] is not None for row in rows):
        handles.append(line("fresh process", color=BLACK, marker="|", linestyle=""))
    for name, (style, marker) in STYLES.items():
        if any(row["pass"] == name for row in rows):
            handles.append(line(name, color=GREY, linestyle=style, marker=marker))
    figure.legend(handles=handles, loc="outside lower center", ncols=7, fontsize=8)
