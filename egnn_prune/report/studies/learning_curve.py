"""Error against the number of labelled graphs, for several ways to choose what to label next.

A row describes one trained model: ``seed``, ``strategy``, ``labelled`` (graphs that it was trained
on), ``test_mae`` and, where there is such a split, ``ood_mae``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from egnn_prune.report.common.formatting import text_table
from egnn_prune.report.common.statistics import Summary, summarise
from egnn_prune.report.common.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILION,
    house_style,
    light_grid,
    new_figure,
)
from egnn_prune.report.studies.selection import RANDOM, SPLITS, by_seed, paired_text, spread_text

CurveRow = Mapping[str, Any]

_COLOURS = {RANDOM: GREY, "top": VERMILION, "diverse": BLUE, "proportional": PURPLE, "band": GREEN}
_SPARE_COLOURS = (ORANGE, BLACK, GREEN, PURPLE, BLUE)
_MARKERS = "osD^vPX"


def curve(rows: Sequence[CurveRow], strategy: str, key: str) -> dict[int, Summary]:
    """Mean and spread over the seeds at every number of labelled graphs, in ascending order."""
    counts = sorted({int(row["labelled"]) for row in rows if row["strategy"] == strategy})
    return {
        n: summarise(list(by_seed(rows, key, strategy=strategy, labelled=n).values()))
        for n in counts
    }


def learning_curve_plot(
    rows: Sequence[CurveRow], unit: str = "", steps: int | None = None
) -> Figure:
    """Learning curves: mean and 95 % band over the seeds, one panel per split.

    Args:
        rows: see the module's description.
        unit: of the errors.
        steps: optimiser steps of every training, for the title.
    """
    keys = _keys(rows)
    seeds = len({row["seed"] for row in rows})
    with house_style():
        figure = new_figure(height=4.0)
        panels = figure.subplots(1, len(keys), squeeze=False)[0]
        for axes, key in zip(panels, keys, strict=True):
            _curves(axes, rows, key)
            axes.set_title(SPLITS[key])
            axes.set_xticks(sorted({int(row["labelled"]) for row in rows}))
            axes.set_xlabel("labelled graphs")
            axes.set_ylabel(f"MAE ({unit})" if unit else "MAE")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=max(1, len(labels)))
        after = f"{steps} steps each; " if steps else ""
        note = f"band: 95 % interval over {seeds} seeds" if seeds > 1 else "one seed"
        figure.suptitle(f"Which graphs to label next?  ({after}{note})")
    return figure


def learning_curve_table(rows: Sequence[CurveRow], unit: str = "") -> str:
    """Mean ± standard deviation, then the paired difference to random [95 %], for every split.

    Strategies of a seed start from the same labels, so what they share cancels in the difference.

    Args:
        rows: see the module's description.
        unit: of the errors.

    Returns:
        Several lines of plain text without a trailing newline.
    """
    counts = sorted({int(row["labelled"]) for row in rows})
    strategies = _strategies(rows)
    tables = []
    for key in _keys(rows):
        title = f"{SPLITS[key]} MAE{f' ({unit})' if unit else ''}"
        cells = {
            (s, n): by_seed(rows, key, strategy=s, labelled=n) for s in strategies for n in counts
        }
        header = [f"{n} graphs" for n in counts]
        means = [
            [s, *(spread_text(summarise(list(cells[s, n].values()))) for n in counts)]
            for s in strategies
        ]
        tables.append(text_table([title, *header], means))
        differences = [
            [s, *(paired_text(cells[s, n], cells[RANDOM, n]) for n in counts)]
            for s in strategies
            if s != RANDOM and RANDOM in strategies
        ]
        if differences:
            tables.append(text_table([f"{title} minus random [95 %]", *header], differences))
    return "\n\n".join(tables)


def _curves(axes: Axes, rows: Sequence[CurveRow], key: str) -> None:
    spare = iter(_SPARE_COLOURS * len(rows))
    for k, strategy in enumerate(_strategies(rows)):
        points = curve(rows, strategy, key)
        x = np.array(list(points))
        mean = np.array([point.mean for point in points.values()])
        half = np.array([point.half for point in points.values()])
        colour = _COLOURS.get(strategy) or next(spare)
        axes.plot(x, mean, color=colour, marker=_MARKERS[k % len(_MARKERS)], label=strategy)
        if np.isfinite(half).any():
            axes.fill_between(x, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
    light_grid(axes)


def _strategies(rows: Sequence[CurveRow]) -> list[str]:
    return list(dict.fromkeys(str(row["strategy"]) for row in rows))


def _keys(rows: Sequence[CurveRow]) -> list[str]:
    return [key for key in SPLITS if any(row.get(key) is not None for row in rows)]
