"""Criteria against each other over seeds and sparsities: CSV, summary table and plot.

A row describes one trained model: ``seed``, ``arm`` (``dense`` or a pruning criterion),
``sparsity`` (fraction of channels removed), ``test_mae`` and ``ood_mae`` in ``unit``,
``macs_per_graph``, ``params``, ``latency_ms``, ``nll`` and ``spearman_error_uncertainty``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from egnn_prune.report.common.csv_file import write_rows
from egnn_prune.report.common.files import number
from egnn_prune.report.common.formatting import MISSING, significant, text_table
from egnn_prune.report.common.statistics import Summary, summarise
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

ComparisonRow = Mapping[str, Any]

DENSE = "dense"
COLUMNS = (
    "seed",
    "arm",
    "sparsity",
    "test_mae",
    "ood_mae",
    "unit",
    "macs_per_graph",
    "params",
    "latency_ms",
    "nll",
    "spearman_error_uncertainty",
)
_REQUIRED = ("seed", "arm", "test_mae", "macs_per_graph")
_COLOURS = {
    "uncertainty": VERMILION,
    "magnitude": ORANGE,
    "random": SKY,
    "scratch": GREEN,
    "taylor": PURPLE,
}
_SPARE_COLOURS = (PURPLE, GREEN, BLACK, ORANGE, SKY, VERMILION)
_MARKERS = "os^Dvph"


def _sparsity(row: ComparisonRow) -> float:
    """Sparsity of a row; the dense model has none, however the job filled the field."""
    return 0.0 if row["arm"] == DENSE else number(row.get("sparsity"))


def _check(rows: Sequence[ComparisonRow]) -> str:
    """Checks the rows and returns their common unit."""
    if not rows:
        raise ValueError("comparison: there are no rows")
    seen = set()
    for i, row in enumerate(rows):
        missing = [key for key in _REQUIRED if row.get(key) is None]
        if missing:
            raise ValueError(f"comparison: row {i} lacks {', '.join(missing)}")
        if row["arm"] != DENSE and not math.isfinite(_sparsity(row)):
            raise ValueError(f"comparison: row {i} ({row['arm']}) needs a finite sparsity")
        key = (row["arm"], _sparsity(row), row["seed"])
        if key in seen:
            raise ValueError(
                f"comparison: arm {key[0]!r}, sparsity {key[1]:g}, seed {key[2]} is there twice"
            )
        seen.add(key)
    units = {str(row.get("unit") or "") for row in rows}
    if len(units) > 1:
        raise ValueError(f"comparison: rows have different units: {', '.join(sorted(units))}")
    return units.pop()


def _cells(rows: Sequence[ComparisonRow]) -> dict[str, dict[float, list[ComparisonRow]]]:
    """Rows by arm, then by sparsity: dense first, other arms in order of appearance."""
    arms: dict[str, dict[float, list[ComparisonRow]]] = {}
    for row in sorted(rows, key=lambda row: (row["arm"] != DENSE, _sparsity(row))):
        arms.setdefault(str(row["arm"]), {}).setdefault(_sparsity(row), []).append(row)
    order = [DENSE, *(str(row["arm"]) for row in rows)]
    return {arm: arms[arm] for arm in dict.fromkeys(order) if arm in arms}


def _summary(rows: Sequence[ComparisonRow], key: str) -> Summary:
    return summarise([number(row.get(key)) for row in rows])


def write_csv(rows: Sequence[ComparisonRow], path: Path) -> Path:
    """Writes the rows as CSV, atomically; missing and NaN values become empty cells.

    Args:
        rows: One mapping per trained model. Keys beyond `COLUMNS` become further columns.
        path: Where to write.

    Returns:
        `path`.

    Raises:
        ValueError: If the rows are malformed.
    """
    _check(rows)
    return write_rows(rows, path, COLUMNS)


def _spread(summary: Summary) -> str:
    if math.isnan(summary.sd):
        return significant(summary.mean)
    # The last digit of the spread lines up with that of the mean.
    text = significant(summary.mean)
    decimals = len(text.partition(".")[2]) if "e" not in text else 0
    return f"{text} ± {summary.sd:.{decimals}f}"


def _paired(
    rows: Sequence[ComparisonRow], dense: Mapping[Any, ComparisonRow], key: str
) -> tuple[Summary, float]:
    """Difference to dense over the seeds both have, and the dense mean over these seeds."""
    pairs = [
        (number(row.get(key)), number(dense[row["seed"]].get(key)))
        for row in rows
        if row["seed"] in dense
    ]
    pairs = [(new, old) for new, old in pairs if math.isfinite(new) and math.isfinite(old)]
    return summarise([new - old for new, old in pairs]), summarise([old for _, old in pairs]).mean


def _paired_text(summary: Summary, reference: float) -> str:
    if summary.n == 0:
        return MISSING
    # Three significant digits of the dense error; the difference and its interval share them.
    places = max(0, 2 - math.floor(math.log10(reference))) if reference > 0 else 4
    percent = f" ({100 * summary.mean / reference:+.1f} %)" if reference > 0 else ""
    if math.isnan(summary.half):
        return f"{summary.mean:+.{places}f}{percent}"
    low, high = summary.mean - summary.half, summary.mean + summary.half
    return f"{summary.mean:+.{places}f}{percent} [{low:+.{places}f}, {high:+.{places}f}]"


def summary_table(rows: Sequence[ComparisonRow]) -> str:
    """Mean ± standard deviation over seeds for every arm and sparsity, as a terminal table.

    The difference to dense is paired by seed, because runs of one seed have much in common
    (split, initialisation) that cancels in the difference; its 95 % interval is a t-interval over
    seeds. With one seed there is neither a spread nor an interval.

    Args:
        rows: One mapping per trained model, see the module's description.

    Returns:
        Several lines of plain text without a trailing newline.

    Raises:
        ValueError: If the rows are malformed.
    """
    unit = _check(rows)
    cells = _cells(rows)
    dense_rows = cells.get(DENSE, {}).get(0.0, [])
    dense = {row["seed"]: row for row in dense_rows}
    dense_macs = _summary(dense_rows, "macs_per_graph").mean
    body = []
    for arm, by_sparsity in cells.items():
        for sparsity, members in by_sparsity.items():
            macs = _summary(members, "macs_per_graph").mean / dense_macs
            body.append(
                [
                    arm,
                    f"{sparsity:g}",
                    str(len(members)),
                    f"{100 * macs:.0f} %" if math.isfinite(macs) else MISSING,
                    _spread(_summary(members, "test_mae")),
                    "" if arm == DENSE else _paired_text(*_paired(members, dense, "test_mae")),
                    _spread(_summary(members, "ood_mae")),
                    _spread(_summary(members, "nll")),
                ]
            )
    error = f" ({unit})" if unit else ""
    header = [
        "arm",
        "sparsity",
        "seeds",
        "MACs",
        f"test MAE{error}",
        f"difference to dense{error} [95 %]",
        f"OOD MAE{error}",
        "NLL",
    ]
    return text_table(header, body)


def _colours(arms: Sequence[str]) -> dict[str, str]:
    """A fixed colour for every known arm and a spare one, not yet taken, for the others."""
    chosen = {arm: _COLOURS[arm] for arm in arms if arm in _COLOURS}
    for i, arm in enumerate(arm for arm in arms if arm not in _COLOURS and arm != DENSE):
        free = [colour for colour in _SPARE_COLOURS if colour not in chosen.values()]
        chosen[arm] = free[0] if free else _SPARE_COLOURS[i % len(_SPARE_COLOURS)]
    return chosen


def _curves(axes: Axes, cells: Mapping[str, Mapping[float, list[ComparisonRow]]], key: str) -> None:
    """Draws `key` against MACs: a line with a band per arm, dense as a marker with a band."""
    colours = _colours(list(cells))
    for i, (arm, by_sparsity) in enumerate(cells.items()):
        x = np.array([_summary(m, "macs_per_graph").mean / 1e6 for m in by_sparsity.values()])
        summaries = [_summary(m, key) for m in by_sparsity.values()]
        mean = np.array([summary.mean for summary in summaries])
        half = np.array([summary.half for summary in summaries])
        if not np.isfinite(mean).any():
            continue
        banded = bool(np.isfinite(half).any())
        marker = _MARKERS[i % len(_MARKERS)]
        if arm == DENSE:
            axes.axhline(mean[0], color=BLUE, linestyle="--", linewidth=1)
            axes.plot(x, mean, color=BLUE, marker=marker, linestyle="none", label=arm, zorder=3)
            if banded:
                axes.axhspan(
                    mean[0] - half[0], mean[0] + half[0], color=BLUE, alpha=0.12, linewidth=0
                )
            continue
        order = np.argsort(x, kind="stable")
        x, mean, half = x[order], mean[order], half[order]
        axes.plot(x, mean, color=colours[arm], marker=marker, label=arm, zorder=3)
        if banded and x.size > 1:
            axes.fill_between(
                x, mean - half, mean + half, color=colours[arm], alpha=0.15, linewidth=0
            )
        elif banded:
            axes.errorbar(x, mean, yerr=half, color=colours[arm], capsize=3, linewidth=1)
    axes.set_xlabel("million MACs per graph")
    light_grid(axes)


def comparison_plot(rows: Sequence[ComparisonRow]) -> Figure:
    """Error against MACs, one line per arm through its sparsities.

    Bands are the mean ± the 95 % t-interval over seeds; with one seed there are none. The second
    panel shows the NLL, or the OOD error when no row has an NLL.

    Args:
        rows: One mapping per trained model, see the module's description.

    Returns:
        A figure with two axes.

    Raises:
        ValueError: If the rows are malformed.
    """
    unit = _check(rows)
    cells = _cells(rows)
    error = f" ({unit})" if unit else ""
    has_nll = any(math.isfinite(number(row.get("nll"))) for row in rows)
    second = ("nll", "NLL, test (nats)") if has_nll else ("ood_mae", f"OOD MAE{error}")
    counts = [len(members) for arm in cells.values() for members in arm.values()]
    few, many = min(counts), max(counts)
    seeds = str(many) if few == many else f"{few} to {many}"
    with house_style():
        figure = new_figure(height=4.2)
        panels = figure.subplots(1, 2)
        for axes, (key, label) in zip(
            panels, (("test_mae", f"test MAE{error}"), second), strict=True
        ):
            _curves(axes, cells, key)
            axes.set_ylabel(label)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=max(1, min(len(labels), 6)),
            fontsize=9.5,
        )
        figure.suptitle("Error and likelihood against cost" if has_nll else "Error against cost")
        note = f"band: 95 % interval over {seeds} seeds" if many > 1 else "one seed"
        panels[1].set_title(note, loc="right", fontsize=8.5, fontweight="normal", color=GREY)
    return figure
