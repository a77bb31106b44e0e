"""S0 in a table and a figure: pruned on uncertain or random graphs, paired with the baseline.

A row describes one trained network: ``seed``, ``steps`` (of each half), ``arm``, ``sparsity``,
``trunk_parameters``, ``test_mse`` and ``ood_mse``, ``test_still`` and ``ood_still``.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from matplotlib.figure import Figure

from egnn_prune.report.common.formatting import significant, text_table
from egnn_prune.report.common.plots import interval_note, legend_below, line, zero
from egnn_prune.report.common.statistics import (
    Rows,
    by_seed,
    differences,
    interval_text,
    over_seeds,
    paired,
    spread_text,
    summarise,
    values,
)
from egnn_prune.report.common.style import house_style, light_grid, looks, new_figure

BASELINE = "baseline"
SPLITS = {"test": "6 nodes (test)", "ood": "12 nodes (OOD)"}


def centroid_table(rows: Rows) -> str:
    """Errors, and their differences to the baseline and to random graphs, paired by seed.

    ``n/N`` counts the seeds in which the difference is negative.

    Args:
        rows: see the module's description.

    Returns:
        Several lines of plain text without a trailing newline; squared errors times 1,000.
    """
    blocks = []
    for steps in values(rows, "steps"):
        inside = [row for row in rows if row["steps"] == steps]
        lines = [f"{steps} + {steps} steps, MSE of a coordinate x 1000 (mean ± sd over seeds)"]
        for split, name in SPLITS.items():
            still = summarise(_errors(inside, f"{split}_still", arm=BASELINE).values())
            lines.append(f"\n{name}; nothing moves: {significant(still.mean)}")
            header = ["arm", "sparsity", "weights", "MSE", "minus baseline [95 %]", "<0"]
            lines.append(text_table([*header, "minus random [95 %]"], _body(inside, split)))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _body(rows: Rows, split: str) -> list[list[str]]:
    key = f"{split}_mse"
    baseline = _errors(rows, key, arm=BASELINE)
    body = []
    for arm in values(rows, "arm"):
        for sparsity in values(rows, "sparsity", arm=arm):
            cell = {"arm": arm, "sparsity": sparsity}
            error = _errors(rows, key, **cell)
            weights = over_seeds(rows, "trunk_parameters", **cell).mean
            better = sum(change < 0 for change in differences(error, baseline).values())
            random = _errors(rows, key, arm="random", sparsity=sparsity)
            changes = [
                interval_text(paired(error, baseline), 3),
                f"{better}/{len(error)}",
                "" if arm == "random" else interval_text(paired(error, random), 3),
            ]
            mean = spread_text(summarise(error.values()))
            changes = [""] * 3 if arm == BASELINE else changes
            body.append([arm, f"{sparsity:g}", f"{weights:,.0f}", mean, *changes])
    return body


@house_style()
def centroid_plot(rows: Rows) -> Figure:
    """Paired difference to the baseline over the sparsity: budgets side by side, splits below.

    Args:
        rows: see the module's description.

    Returns:
        A figure; dots are means over the seeds, bars 95 % t-intervals.
    """
    budgets = values(rows, "steps")
    arms = [arm for arm in values(rows, "arm") if arm != BASELINE]
    figure = new_figure(height=5.6)
    panels = figure.subplots(len(SPLITS), len(budgets), squeeze=False, sharex=True)
    for column, steps in zip(panels.T, budgets, strict=True):
        for axes, (split, name) in zip(column, SPLITS.items(), strict=True):
            key = f"{split}_mse"
            baseline = _errors(rows, key, arm=BASELINE, steps=steps)
            for k, (arm, look) in enumerate(looks(arms).items()):
                at = values(rows, "sparsity", arm=arm, steps=steps)
                found = [
                    paired(_errors(rows, key, arm=arm, steps=steps, sparsity=s), baseline)
                    for s in at
                ]
                x = [s + 0.012 * (2 * k - 1) for s in at]
                line(axes, x, found, look, f"{arm} graphs")
            zero(axes)
            axes.set_title(f"{name}, {steps} + {steps} steps")
            light_grid(axes, "y")
        column[-1].set_xlabel("share of the channels removed")
    for axes in panels[:, 0]:
        axes.set_ylabel("MSE minus baseline (x 1000)")
    legend_below(figure, panels[0, 0])
    figure.suptitle(f"Below 0: better than ordinary training  ({interval_note(rows, 'bars')})")
    return figure


def _errors(rows: Rows, key: str, **cell: Hashable) -> dict[Any, float]:
    return {seed: 1000 * value for seed, value in by_seed(rows, key, **cell).items()}
