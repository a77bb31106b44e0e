"""S0 in a table and a figure: pruned on uncertain or random graphs, paired with the baseline.

A row describes one trained network: ``seed``, ``steps`` (of each half), ``arm``, ``sparsity``,
``trunk_parameters``, ``test_mse`` and ``ood_mse``, ``test_still`` and ``ood_still``.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from egnn_prune.report.common.formatting import significant, text_table
from egnn_prune.report.common.statistics import summarise
from egnn_prune.report.common.style import (
    BLUE,
    GREY,
    VERMILION,
    house_style,
    light_grid,
    new_figure,
)
from egnn_prune.report.studies.selection import by_seed, paired, spread_text

StudyRow = Mapping[str, Any]

BASELINE = "baseline"
SPLITS = {"test": "6 nodes (test)", "ood": "12 nodes (OOD)"}
_COLOURS, _MARKERS = (VERMILION, BLUE), "so"


def centroid_table(rows: Sequence[StudyRow]) -> str:
    """Errors, and their differences to the baseline and to random graphs, paired by seed.

    ``n/N`` counts the seeds in which the difference is negative.

    Args:
        rows: see the module's description.

    Returns:
        Several lines of plain text without a trailing newline; squared errors times 1,000.
    """
    blocks = []
    for steps in _values(rows, "steps"):
        inside = [row for row in rows if row["steps"] == steps]
        title = f"{steps} + {steps} steps, MSE of a coordinate x 1000 (mean ± sd over seeds)"
        lines = [title]
        for split, name in SPLITS.items():
            still = summarise(list(_errors(inside, f"{split}_still", arm=BASELINE).values()))
            lines.append(f"\n{name}; nothing moves: {significant(still.mean)}")
            header = ["arm", "sparsity", "weights", "MSE", "minus baseline [95 %]", "<0"]
            lines.append(text_table([*header, "minus random [95 %]"], _body(inside, split)))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _body(rows: Sequence[StudyRow], split: str) -> list[list[str]]:
    key = f"{split}_mse"
    baseline = _errors(rows, key, arm=BASELINE)
    body = []
    for arm in _values(rows, "arm"):
        for sparsity in _values([r for r in rows if r["arm"] == arm], "sparsity"):
            cell = {"arm": arm, "sparsity": sparsity}
            error = _errors(rows, key, **cell)
            weights = summarise(list(by_seed(rows, "trunk_parameters", **cell).values())).mean
            line = [
                arm,
                f"{sparsity:g}",
                f"{weights:,.0f}",
                spread_text(summarise([*error.values()])),
            ]
            if arm == BASELINE:
                body.append([*line, "", "", ""])
                continue
            negative = sum(error[s] < baseline[s] for s in error if s in baseline)
            line += [_difference(error, baseline), f"{negative}/{len(error)}"]
            random = _errors(rows, key, arm="random", sparsity=sparsity)
            body.append([*line, "" if arm == "random" else _difference(error, random)])
    return body


def centroid_plot(rows: Sequence[StudyRow]) -> Figure:
    """Paired difference to the baseline over the sparsity: budgets side by side, splits below.

    Args:
        rows: see the module's description.

    Returns:
        A figure; dots are means over the seeds, bars 95 % t-intervals.
    """
    budgets = _values(rows, "steps")
    arms = [arm for arm in _values(rows, "arm") if arm != BASELINE]
    seeds = len({row["seed"] for row in rows})
    with house_style():
        figure = new_figure(height=5.6)
        panels = figure.subplots(len(SPLITS), len(budgets), squeeze=False, sharex=True)
        for column, steps in enumerate(budgets):
            inside = [row for row in rows if row["steps"] == steps]
            for axes, (split, name) in zip(panels[:, column], SPLITS.items(), strict=True):
                baseline = _errors(inside, f"{split}_mse", arm=BASELINE)
                for k, arm in enumerate(arms):
                    at = _values([r for r in inside if r["arm"] == arm], "sparsity")
                    found = [
                        paired(_errors(inside, f"{split}_mse", arm=arm, sparsity=s), baseline)
                        for s in at
                    ]
                    axes.errorbar(
                        [s + 0.012 * (2 * k - 1) for s in at],
                        [difference.mean for difference in found],
                        yerr=[0.0 if math.isnan(d.half) else d.half for d in found],
                        color=_COLOURS[k % len(_COLOURS)],
                        marker=_MARKERS[k % len(_MARKERS)],
                        capsize=2.5,
                        elinewidth=1.2,
                        label=f"{arm} graphs",
                    )
                axes.axhline(0, color=GREY, linestyle="--", linewidth=1)
                axes.set_title(f"{name}, {steps} + {steps} steps")
                light_grid(axes, "y")
        for axes in panels[-1]:
            axes.set_xlabel("share of the channels removed")
        for axes in panels[:, 0]:
            axes.set_ylabel("MSE minus baseline (x 1000)")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        note = f"95 % intervals over {seeds} seeds" if seeds > 1 else "one seed"
        figure.suptitle(f"Below 0: better than ordinary training  ({note})")
    return figure


def _errors(rows: Sequence[StudyRow], key: str, **cell: Hashable) -> dict[Any, float]:
    return {seed: 1000 * value for seed, value in by_seed(rows, key, **cell).items()}


def _difference(new: Mapping[Any, float], old: Mapping[Any, float]) -> str:
    difference = paired(new, old)
    text = f"{difference.mean:+.3f}"
    if math.isnan(difference.half):
        return text
    low, high = difference.mean - difference.half, difference.mean + difference.half
    return f"{text} [{low:+.3f}, {high:+.3f}]"


def _values(rows: Sequence[StudyRow], key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))
