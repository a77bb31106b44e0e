"""Which graphs to fine-tune on: strategies against random ones, paired by seed.

A row describes one fine-tuned model: ``seed``, ``strategy``, ``replay`` (share of the draws from
graphs that were not selected), ``test_mae`` and, where there is such a split, ``ood_mae``.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from egnn_prune.report.common.formatting import text_table
from egnn_prune.report.common.plots import interval_note, legend_below, line, zero
from egnn_prune.report.common.statistics import (
    Rows,
    by_seed,
    paired,
    paired_text,
    spread_text,
    summarise,
    values,
)
from egnn_prune.report.common.style import house_style, light_grid, looks, new_figure

RANDOM = "random"
SPLITS = {"test_mae": "test", "ood_mae": "OOD"}


def splits_of(rows: Rows) -> list[str]:
    """The keys of :data:`SPLITS` that the rows have numbers for."""
    return [key for key in SPLITS if any(row.get(key) is not None for row in rows)]


def selection_table(rows: Rows, unit: str = "") -> str:
    """Mean ± standard deviation over seeds, and the paired difference to random [95 %].

    A negative difference says that the strategy beats random selection with the same replay; an
    interval that holds 0 says that these seeds cannot tell.

    Args:
        rows: see the module's description.
        unit: of the errors.

    Returns:
        Several lines of plain text without a trailing newline.
    """
    keys = splits_of(rows)
    body = []
    for replay in values(rows, "replay"):
        for strategy in values(rows, "strategy"):
            cell = {"strategy": strategy, "replay": replay}
            found = {key: by_seed(rows, key, **cell) for key in keys}
            row = [strategy, f"{replay:g}", str(max(map(len, found.values())))]
            for key in keys:
                random = by_seed(rows, key, strategy=RANDOM, replay=replay)
                row.append(spread_text(summarise(found[key].values())))
                row.append("" if strategy == RANDOM else paired_text(found[key], random))
            body.append(row)
    header = ["strategy", "replay", "seeds"]
    for key in keys:
        error = f"{SPLITS[key]} MAE{f' ({unit})' if unit else ''}"
        header += [error, "difference to random [95 %]"]
    return text_table(header, body)


@house_style()
def selection_plot(rows: Rows, unit: str = "", steps: int | None = None) -> Figure:
    """A forest plot: every strategy's paired difference to random selection, test beside OOD.

    Args:
        rows: see the module's description.
        unit: of the errors.
        steps: optimiser steps of the fine-tuning, for the title.

    Returns:
        A figure with one panel per split; dots are means over the seeds, bars 95 % t-intervals.
    """
    strategies = [s for s in values(rows, "strategy") if s != RANDOM]
    replays = {f"replay {replay:g}": replay for replay in values(rows, "replay")}
    keys = splits_of(rows)
    figure = new_figure(height=1.7 + 0.4 * max(2, len(strategies)))
    panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for axes, key in zip(panels, keys, strict=True):
        for k, (name, look) in enumerate(looks([*replays]).items()):
            found = {
                s: by_seed(rows, key, strategy=s, replay=replays[name])
                for s in [RANDOM, *strategies]
            }
            line(
                axes,
                np.arange(len(strategies)) + 0.22 * (k - (len(replays) - 1) / 2),
                [paired(found[s], found[RANDOM]) for s in strategies],
                look,
                name,
                style="none",
                horizontal=True,
            )
        zero(axes, vertical=True)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_title(f"{SPLITS[key]}: left of 0 beats random")
        axes.set_xlabel(f"MAE minus that of random{f' ({unit})' if unit else ''}")
        light_grid(axes, "x")
    panels[0].set_yticks(range(len(strategies)), strategies)
    panels[0].invert_yaxis()
    legend_below(figure, panels[0])
    after = f"{steps} steps each; " if steps else ""
    figure.suptitle(f"Which graphs to fine-tune on?  ({after}{interval_note(rows, 'bars')})")
    return figure
