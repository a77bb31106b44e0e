"""The calibration study: what pruning does to errors and to error bars, in tables and a figure.

A row describes one estimator of one network on one split after one calibration: ``seed``,
``estimator``, ``sparsity`` (0 for dense), ``calibration`` (``none``, ``dense``, or the name of
a calibration), ``split``, ``unit`` and the scores.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

from egnn_prune.report.common.formatting import text_table
from egnn_prune.report.common.plots import band, interval_note, legend_below
from egnn_prune.report.common.statistics import (
    Rows,
    Summary,
    by_seed,
    differences,
    interval_text,
    over_seeds,
    paired,
    spread_text,
    summarise,
    values,
)
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

_SCORES = ("mae", "nll", "crps", "ence", "miscalibration_area", "coverage_90", "ause", "ood_auroc")
#: Lines of the figure: quantity, calibration, colour, line style, label.
_LINES = (
    ("accuracy_nats", "none", GREY, "-", "errors and ranking"),
    ("miscalibration_nats", "none", VERMILION, "-", "size of error bars, as they are"),
    ("miscalibration_nats", "dense", GREEN, ":", "the same, one factor fitted before pruning"),
    ("miscalibration_nats", "robust", BLUE, "--", "the same, factor fitted again after it"),
)
#: Lines of the coverage panels: split, calibration, colour, line style, label.
_COVERAGE = (
    ("test", "none", BLACK, "-", "coverage on test, as it is"),
    ("test", "robust", BLUE, "--", "coverage on test, one factor"),
    ("ood", "none", ORANGE, "-", "coverage out of distribution, as it is"),
    ("ood", "robust", PURPLE, "--", "coverage out of distribution, one factor"),
)


def study_table(rows: Rows, split: str) -> str:
    """Mean and spread over seeds of every score, before and after calibration.

    Args:
        rows: See the module's description.
        split: ``test`` or ``ood``.

    Returns:
        Plain text; empty if there are no rows of the split.
    """
    rows = [row for row in rows if row["split"] == split]
    if not rows:
        return ""
    body = []
    for estimator in values(rows, "estimator"):
        for sparsity in sorted(values(rows, "sparsity", estimator=estimator)):
            cell = {"estimator": estimator, "sparsity": sparsity}
            for how in values(rows, "calibration", **cell):
                seeds = len(values(rows, "seed", **cell, recalibration=how))
                scores = [over_seeds(rows, key, **cell, recalibration=how) for key in _SCORES]
                name = [estimator, f"{sparsity:g}", how, str(seeds)]
                body.append([*name, *(spread_text(score, 3) for score in scores)])
    unit = rows[0]["unit"]
    header = ["estimator", "sparsity", "calibrated", "seeds", f"MAE ({unit})", "NLL (nats)"]
    header += [f"CRPS ({unit})", "ENCE", "miscal. area", "coverage 90 %", "AUSE", "OOD AUROC"]
    title = "Test split" if split == "test" else "Out-of-distribution split"
    return f"{title}: mean ± standard deviation over seeds\n\n" + text_table(header, body, left=3)


def answer_table(rows: Rows) -> str:
    """What pruning costs against the dense network of the same seed, in nats of likelihood.

    For every split, estimator and sparsity the paired changes with 95 % t-intervals: of the part
    of the negative log-likelihood that errors and ranking cause, and of the part that wrongly sized
    error bars cause (as they are, calibrated before pruning, calibrated again after it). The last
    column compares the first with the part calibrated before, paired by seed: "calibration" or
    "accuracy" where that one was harmed and the interval of their difference excludes zero,
    "neither" where neither interval holds any harm, else it cannot be told.
    """
    body = []
    for split in values(rows, "split"):
        for estimator in values(rows, "estimator", split=split):
            cell = {"split": split, "estimator": estimator}
            dense = over_seeds(rows, "mae", **cell, sparsity=0.0, recalibration="none").mean
            for sparsity in sorted(values(rows, "sparsity", **cell)):
                if sparsity == 0:
                    continue
                errors = _changes(rows, sparsity, "mae", "none", **cell).values()
                changes = [_changes(rows, sparsity, key, how, **cell) for key, how, *_ in _LINES]
                found = [summarise(change.values()) for change in changes]
                more = paired(changes[2], changes[0])
                body.append(
                    [
                        *(split, estimator, f"{sparsity:g}", str(more.n)),
                        interval_text(summarise(100 * e / dense for e in errors), 1, " %"),
                        *(interval_text(each, 3) for each in found),
                        _verdict(found[0], found[2], more),
                    ]
                )
    header = ["split", "estimator", "sparsity", "seeds", "MAE", "accuracy (nats)"]
    header += ["uncalibrated (nats)", "calibrated before (nats)", "again after (nats)"]
    header += ["harmed more"]
    return (
        "Cost of pruning: change of each part of the negative log-likelihood against the dense "
        "network\nof the same seed [95 % interval]; sizes of the error bars as the method states "
        "them, with the\nfactor fitted before pruning, and with a factor fitted again after it\n\n"
        + text_table(header, body, left=2)
    )


@house_style()
def study_plot(rows: Rows) -> Figure:
    """What pruning costs against sparsity, one column an estimator, and what coverage is left.

    Upper rows: change of each part of the likelihood against the dense network, one row a split,
    on an axis that is linear near zero and logarithmic beyond. Last row: how often the 90 %
    interval holds the truth. Bands are 95 % t-intervals over seeds.
    """
    splits, estimators = values(rows, "split"), values(rows, "estimator")
    sparsities = sorted(values(rows, "sparsity"))
    figure = new_figure(height=2.0 + 2.1 * (len(splits) + 1))
    panels = figure.subplots(
        len(splits) + 1, len(estimators), sharex=True, sharey="row", squeeze=False
    )

    def draw(axes: Axes, found: list[Summary], colour: str, style: str, label: str) -> None:
        band(axes, range(len(sparsities)), found, (colour, "o"), label, style, markersize=3)

    for column, estimator in zip(panels.T, estimators, strict=True):
        column[0].set_title(estimator.replace(" ", "\n", 1), fontsize=9)
        for axes, split in zip(column[:-1], splits, strict=True):
            axes.axhline(0, color=BLACK, linewidth=0.8)
            axes.set_yscale("symlog", linthresh=1.0, linscale=2.5)
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.2g}"))
            for key, how, *look in _LINES:
                cell = {"split": split, "estimator": estimator}
                changes = [_changes(rows, s, key, how, **cell).values() for s in sparsities]
                draw(axes, [summarise(change) for change in changes], *look)
        column[-1].axhline(0.9, color=BLACK, linewidth=0.8)
        for split, how, *look in _COVERAGE:
            cell = {"split": split, "estimator": estimator, "calibration": how}
            if split in splits:
                found = [over_seeds(rows, "coverage_90", sparsity=s, **cell) for s in sparsities]
                draw(column[-1], found, *look)
        for axes in column:
            axes.set_xticks(
                range(len(sparsities)),
                [f"{s:g}".lstrip("0") or "0" for s in sparsities],
                fontsize=8.5,
            )
            light_grid(axes)
    for axes, split in zip(panels[:-1, 0], splits, strict=True):
        axes.set_ylabel(f"{'test' if split == 'test' else 'OOD'}: cost (nats)")
    panels[-1, 0].set_ylabel("90 % interval holds")
    panels[-1, 0].set_ylim(0.0, 1.02)
    panels[-1, len(estimators) // 2].set_xlabel("fraction of channels removed")
    legend_below(figure, panels[0, 0], panels[-1, 0], columns=2)
    note = interval_note(rows, "bands")
    figure.suptitle(f"What pruning costs, against dense ({note})", fontsize=11)
    return figure


def _changes(rows: Rows, sparsity: float, key: str, how: str, **cell: Hashable) -> dict[Any, float]:
    """Pruned minus dense, for every seed that has both."""
    pruned, dense = (
        by_seed(rows, key, sparsity=s, recalibration=how, **cell) for s in (sparsity, 0.0)
    )
    return differences(pruned, dense)


def _verdict(accuracy: Summary, calibration: Summary, more: Summary) -> str:
    """Which of the two was harmed more, where the intervals say so."""
    if math.isnan(more.half):
        return "cannot be told (one seed)"
    if more.low > 0 and calibration.low > 0:
        return "calibration"
    if more.high < 0 and accuracy.low > 0:
        return "accuracy"
    if max(accuracy.high, calibration.high) <= 0:
        return "neither"
    return "cannot be told"
