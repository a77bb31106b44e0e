"""Which graphs to fine-tune on: strategies against random ones, paired by seed.

A row describes one fine-tuned model: ``seed``, ``strategy``, ``replay`` (share of the draws from
graphs that were not selected), ``test_mae`` and, where there is such a split, ``ood_mae``.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from egnn_prune.report.common.files import number
from egnn_prune.report.common.formatting import MISSING, significant, text_table
from egnn_prune.report.common.statistics import Summary, summarise
from egnn_prune.report.common.style import (
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

StudyRow = Mapping[str, Any]

RANDOM = "random"
SPLITS = {"test_mae": "test", "ood_mae": "OOD"}
_COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE)
_MARKERS = "osD^v"


def by_seed(rows: Sequence[StudyRow], key: str, **cell: Hashable) -> dict[Any, float]:
    """One number per seed, of the rows that have the values in `cell`; NaN is left out."""
    inside = (row for row in rows if cell.items() <= row.items())
    found = {row["seed"]: number(row.get(key)) for row in inside}
    return {seed: value for seed, value in found.items() if math.isfinite(value)}


def paired(new: Mapping[Any, float], old: Mapping[Any, float]) -> Summary:
    """Mean and 95 % t-interval of the differences ``new - old`` of the seeds that both have."""
    return summarise([new[seed] - old[seed] for seed in new if seed in old])


def spread_text(summary: Summary) -> str:
    """``mean ± standard deviation``; the mean alone where there is one seed."""
    text = significant(summary.mean)
    if math.isnan(summary.sd) or text == MISSING:
        return text
    return f"{text} ± {summary.sd:.{len(text.partition('.')[2])}f}"


def paired_text(new: Mapping[Any, float], old: Mapping[Any, float]) -> str:
    """``difference (percent) [95 % interval]`` in the unit of the numbers."""
    difference = paired(new, old)
    reference = summarise([old[seed] for seed in old if seed in new]).mean
    if difference.n == 0 or not reference > 0:
        return MISSING
    # four significant digits of the reference: differences are a few percent of it
    places = max(0, 3 - math.floor(math.log10(reference)))
    text = f"{difference.mean:+z.{places}f} ({100 * difference.mean / reference:+z.1f} %)"
    if math.isnan(difference.half):
        return text
    low, high = difference.mean - difference.half, difference.mean + difference.half
    return f"{text} [{low:+z.{places}f}, {high:+z.{places}f}]"


def selection_table(rows: Sequence[StudyRow], unit: str = "") -> str:
    """Mean ± standard deviation over seeds, and the paired difference to random [95 %].

    A negative difference says that the strategy beats random selection with the same replay; an
    interval that holds 0 says that these seeds cannot tell.

    Args:
        rows: see the module's description.
        unit: of the errors.

    Returns:
        Several lines of plain text without a trailing newline.
    """
    error = f" ({unit})" if unit else ""
    keys = _keys(rows)
    body = []
    for replay in _values(rows, "replay"):
        for strategy in _values(rows, "strategy"):
            cell = {"strategy": strategy, "replay": replay}
            values = {key: by_seed(rows, key, **cell) for key in keys}
            line = [strategy, f"{replay:g}", str(max(map(len, values.values())))]
            for key in keys:
                random = by_seed(rows, key, strategy=RANDOM, replay=replay)
                line.append(spread_text(summarise(list(values[key].values()))))
                line.append("" if strategy == RANDOM else paired_text(values[key], random))
            body.append(line)
    header = ["strategy", "replay", "seeds"]
    for key in keys:
        header += [f"{SPLITS[key]} MAE{error}", "difference to random [95 %]"]
    return text_table(header, body)


def selection_plot(rows: Sequence[StudyRow], unit: str = "", steps: int | None = None) -> Figure:
    """A forest plot: every strategy's paired difference to random selection, test beside OOD.

    Args:
        rows: see the module's description.
        unit: of the errors.
        steps: optimiser steps of the fine-tuning, for the title.

    Returns:
        A figure with one panel per split; dots are means over the seeds, bars 95 % t-intervals.
    """
    strategies = [s for s in _values(rows, "strategy") if s != RANDOM]
    replays = _values(rows, "replay")
    keys = _keys(rows)
    seeds = len({row["seed"] for row in rows})
    with house_style():
        figure = new_figure(height=1.7 + 0.4 * max(2, len(strategies)))
        panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
        for axes, key in zip(panels, keys, strict=True):
            for k, replay in enumerate(replays):
                random = by_seed(rows, key, strategy=RANDOM, replay=replay)
                found = [
                    paired(by_seed(rows, key, strategy=s, replay=replay), random)
                    for s in strategies
                ]
                axes.errorbar(
                    [difference.mean for difference in found],
                    np.arange(len(strategies)) + 0.22 * (k - (len(replays) - 1) / 2),
                    xerr=[0.0 if math.isnan(d.half) else d.half for d in found],
                    color=_COLOURS[k % len(_COLOURS)],
                    marker=_MARKERS[k % len(_MARKERS)],
                    linestyle="none",
                    capsize=2.5,
                    elinewidth=1.2,
                    label=f"replay {replay:g}",
                )
            axes.axvline(0, color=GREY, linestyle="--", linewidth=1)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.set_title(f"{SPLITS[key]}: left of 0 beats random")
            axes.set_xlabel(f"MAE minus that of random{f' ({unit})' if unit else ''}")
            light_grid(axes, "x")
        panels[0].set_yticks(range(len(strategies)), strategies)
        panels[0].invert_yaxis()
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=max(1, len(labels)))
        after = f"{steps} steps each; " if steps else ""
        note = f"bars: 95 % interval over {seeds} seeds" if seeds > 1 else "one seed"
        figure.suptitle(f"Which graphs to fine-tune on?  ({after}{note})")
    return figure


def _values(rows: Sequence[StudyRow], key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))


def _keys(rows: Sequence[StudyRow]) -> list[str]:
    return [key for key in SPLITS if any(row.get(key) is not None for row in rows)]
