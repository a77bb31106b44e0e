"""Error against the number of labelled graphs, for several ways to choose what to label next.

A row describes one trained model: ``seed``, ``strategy``, ``labelled`` (graphs that it was trained
on), ``test_mae`` and, where there is such a split, ``ood_mae``.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from egnn_prune.report.common.formatting import text_table
from egnn_prune.report.common.plots import band, interval_note, legend_below
from egnn_prune.report.common.statistics import (
    Rows,
    Summary,
    by_seed,
    over_seeds,
    paired_text,
    spread_text,
    values,
)
from egnn_prune.report.common.style import house_style, light_grid, looks, new_figure
from egnn_prune.report.studies.selection import RANDOM, SPLITS, splits_of


def curve(rows: Rows, strategy: str, key: str) -> dict[int, Summary]:
    """Mean and spread over the seeds at every number of labelled graphs, in ascending order."""
    counts = sorted(values(rows, "labelled", strategy=strategy))
    return {n: over_seeds(rows, key, strategy=strategy, labelled=n) for n in counts}


@house_style()
def learning_curve_plot(rows: Rows, unit: str = "", steps: int | None = None) -> Figure:
    """Learning curves: mean and 95 % band over the seeds, one panel per split.

    Args:
        rows: see the module's description.
        unit: of the errors.
        steps: optimiser steps of every training, for the title.
    """
    keys = splits_of(rows)
    figure = new_figure(height=4.0)
    panels = figure.subplots(1, len(keys), squeeze=False)[0]
    for axes, key in zip(panels, keys, strict=True):
        for strategy, look in looks(values(rows, "strategy")).items():
            points = curve(rows, strategy, key)
            band(axes, [*points], [*points.values()], look, strategy)
        axes.set_title(SPLITS[key])
        axes.set_xticks(sorted(values(rows, "labelled")))
        axes.set_xlabel("labelled graphs")
        axes.set_ylabel(f"MAE ({unit})" if unit else "MAE")
        light_grid(axes)
    legend_below(figure, panels[0])
    after = f"{steps} steps each; " if steps else ""
    figure.suptitle(f"Which graphs to label next?  ({after}{interval_note(rows, 'band')})")
    return figure


def learning_curve_table(rows: Rows, unit: str = "") -> str:
    """Mean ± standard deviation, then the paired difference to random [95 %], for every split.

    Strategies of a seed start from the same labels, so what they share cancels in the difference.

    Args:
        rows: see the module's description.
        unit: of the errors.

    Returns:
        Several lines of plain text without a trailing newline.
    """
    counts, strategies = sorted(values(rows, "labelled")), values(rows, "strategy")
    others = [s for s in strategies if s != RANDOM] if RANDOM in strategies else []
    header = [f"{n} graphs" for n in counts]
    tables = []
    for key in splits_of(rows):
        title = f"{SPLITS[key]} MAE{f' ({unit})' if unit else ''}"
        cells = {
            (s, n): by_seed(rows, key, strategy=s, labelled=n) for s in strategies for n in counts
        }
        means = [
            [s, *(spread_text(over_seeds(rows, key, strategy=s, labelled=n)) for n in counts)]
            for s in strategies
        ]
        tables.append(text_table([title, *header], means))
        changes = [
            [s, *(paired_text(cells[s, n], cells[RANDOM, n]) for n in counts)] for s in others
        ]
        if changes:
            tables.append(text_table([f"{title} minus random [95 %]", *header], changes))
    return "\n\n".join(tables)
