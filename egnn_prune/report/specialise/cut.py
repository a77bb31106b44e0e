"""What was cut: copies of each irrep and paths of each layer, kept and removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from egnn_prune.report.common.files import Metrics
from egnn_prune.report.common.style import BLUE, GREY, house_style, new_figure
from egnn_prune.report.specialise.files import kept_of

Path = Mapping[str, Any]
_LIGHT = "#DDDDDD"
_CELL = 0.19
"""Inches of the figure's height for one irrep."""


def layers_of(metrics: Metrics) -> list[Mapping[str, Any]]:
    """What was cut in each layer; empty where the run does not say."""
    return list((metrics.get("cut") or {}).get("layers") or [])


def degree(irrep: object) -> int:
    """The l of an irrep such as ``1o``."""
    return int(str(irrep)[:-1])


def is_odd(path: Path) -> bool:
    """Whether l1 + l2 + l3 of a path is odd."""
    return (degree(path["source"]) + int(path["l"]) + degree(path["target"])) % 2 == 1


@house_style()
def what_was_cut(metrics: Metrics) -> Figure | None:
    """One row a layer: bars of copies kept per irrep, and a grid of paths; None without layers."""
    layers = layers_of(metrics)
    if not layers:
        return None
    tallest = max(
        max(len(_irreps(layer)), len(_targets(layer.get("paths") or []))) for layer in layers
    )
    height = max(0.62, _CELL * tallest + 0.12)
    figure = new_figure(1.15 + len(layers) * (height + 0.22))
    panels = figure.subplots(len(layers), 3, width_ratios=(1.0, 1.0, 2.6), squeeze=False)
    sources = _sources(layers)
    for t, (layer, row) in enumerate(zip(layers, panels, strict=True)):
        _copies(row[0], layer.get("conv") or {})
        _copies(row[1], layer.get("stream") or {})
        _paths(row[2], layer.get("paths") or [], sources, named=t == 0)
        for axes in row:
            axes.set_ylim(tallest - 0.4, -0.6)
        row[0].set_ylabel(f"layer {t}", rotation=0, ha="right", va="center", fontweight="bold")
    for axes, title in zip(
        panels[0],
        ("Convolution copies", "Stream copies", "Paths: source × l2 → target"),
        strict=True,
    ):
        axes.set_title(title, pad=28 if axes is panels[0][2] else 6)
    if not sources:  # a network that lists no paths
        for axes in panels[:, 2]:
            axes.set_visible(False)
    figure.legend(
        handles=_legend() if sources else [], loc="outside lower center", ncols=4, fontsize=8.5
    )
    figure.suptitle("What was kept and what was cut")
    return figure


def _irreps(layer: Mapping[str, Any]) -> list[str]:
    return sorted({*(layer.get("conv") or {}), *(layer.get("stream") or {})}, key=_order)


def _targets(paths: Sequence[Path]) -> list[str]:
    return sorted({str(path["target"]) for path in paths}, key=_order)


def _sources(layers: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """What stands left of the arrow in any layer, in order: the columns of every grid."""
    paths = [path for layer in layers for path in layer.get("paths") or []]
    found = {(str(path["source"]), int(path["l"])) for path in paths}
    return sorted(found, key=lambda each: (*_order(each[0]), each[1]))


def _order(irrep: str) -> tuple[int, str]:
    return degree(irrep), irrep[-1]


def _copies(axes: Axes, irreps: Mapping[str, Any]) -> None:
    names = sorted(irreps, key=_order)
    for i, name in enumerate(names):
        kept, total = kept_of(irreps[name], name)
        share = kept / total if total else 0.0
        axes.barh(i, 1.0, height=0.72, color="white", edgecolor=GREY, linewidth=0.7)
        axes.barh(i, share, height=0.72, color=BLUE, edgecolor=GREY, linewidth=0.7)
        axes.annotate(
            *(f"{kept}/{total}", (1.0, i), (4, 0)),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlim(0, 1.55)
    _bare(axes)


def _paths(
    axes: Axes, paths: Sequence[Path], columns: Sequence[tuple[str, int]], named: bool
) -> None:
    rows = _targets(paths)
    for path in paths:
        x = columns.index((str(path["source"]), int(path["l"])))
        axes.plot(
            *(x, rows.index(str(path["target"]))),
            marker="D" if is_odd(path) else "s",
            markersize=6.5 if is_odd(path) else 8,
            color=BLUE,
            markerfacecolor=BLUE if path["kept"] else "white",
            markeredgecolor=BLUE if path["kept"] else GREY,
            clip_on=False,
        )
    axes.set_yticks(range(len(rows)), [f"→ {row}" for row in rows], fontsize=8)
    axes.set_xlim(-0.6, len(columns) - 0.4)
    for x in range(len(columns)):
        axes.axvline(x, color=_LIGHT, linewidth=0.6, zorder=0)
    _bare(axes)
    if named:
        axes.set_xticks(range(len(columns)), [f"{a}\n×{b}" for a, b in columns], fontsize=7.5)
        axes.xaxis.tick_top()
        axes.tick_params(axis="x", length=0, pad=2)


def _bare(axes: Axes) -> None:
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    axes.tick_params(length=0, pad=2)


def _legend() -> list[Line2D]:
    def look(marker: str, kept: bool, label: str) -> Line2D:
        return Line2D(
            *([], []),
            marker=marker,
            linestyle="none",
            markersize=7,
            markerfacecolor=BLUE if kept else "white",
            markeredgecolor=BLUE if kept else GREY,
            label=label,
        )

    return [
        look("s", True, "kept"),
        look("s", False, "cut"),
        look("D", True, "odd l1+l2+l3, kept"),
        look("D", False, "odd l1+l2+l3, cut"),
    ]
