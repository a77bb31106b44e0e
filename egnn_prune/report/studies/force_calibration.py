"""Error bars of forces by what a network learned: energies, forces at the end, or both throughout.

A row describes one kind of error bars of one network: ``network``, ``seed``, ``arm``, ``size``
(``dense`` or ``pruned``), ``source`` (``distance`` or ``members``), its errors
``force_rmse_mev_per_angstrom`` and ``energy_mae_mev``, ``val_force_nll``, ``stretched_auroc`` and
the scores of forces, such as ``force_coverage_90``, each also with the suffix ``_calibrated``.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from egnn_prune.report.common.formatting import text_table
from egnn_prune.report.common.plots import interval_note, legend_below, line
from egnn_prune.report.common.statistics import (
    Rows,
    by_seed,
    interval_text,
    over_seeds,
    paired,
    spread_text,
    values,
)
from egnn_prune.report.common.style import GREY, house_style, light_grid, looks, new_figure

PERCENT = (50, 80, 90)
RMSE, COVERAGE, SPEARMAN = (
    *("force_rmse_mev_per_angstrom", "force_coverage_90"),
    "force_spearman_atoms_calibrated",
)
AUROC = "stretched_auroc"
BASELINE = "energies"


def force_calibration_table(rows: Rows) -> str:
    """Errors and error bars of every cell, then what forces change, paired by seed.

    Args:
        rows: see the module's description.

    Returns:
        Several lines of plain text without a trailing newline.
    """
    header = ["arm", "size", "bars from", "force RMSE", "energy MAE", "raw 50/80/90 %"]
    header += ["calibrated", "ENCE raw", "calibrated", "Spearman, atoms", "AUROC stretched"]
    blocks = []
    for network in values(rows, "network"):
        inside = [row for row in rows if row["network"] == network]
        cells = cells_of(inside)
        body = [[c["arm"], c["size"], c["source"], *_numbers(inside, c)] for c in cells]
        title = f"{network}: meV/Angstrom, meV; mean ± sd over seeds (coverages: mean, %)"
        changes = [_change(inside, c) for c in cells if c["arm"] != BASELINE]
        change = text_table(
            ["arm", "size", "bars from", "RMSE", "Spearman, atoms", "AUROC stretched"], changes, 3
        )
        blocks += [
            f"{title}\n{text_table(header, body, 3)}",
            f"{network}: less {BASELINE}, paired by seed [95 %]\n{change}",
            likelier_text(inside, network),
        ]
    return "\n\n".join(blocks)


def cells_of(rows: Rows) -> list[dict[str, Any]]:
    """Arms, sizes and sources, in the order in which they were found."""
    keys = ("arm", "size", "source")
    found = dict.fromkeys(tuple(row[key] for key in keys) for row in rows)
    return [dict(zip(keys, cell, strict=True)) for cell in found]


def _numbers(rows: Rows, cell: dict[str, Hashable]) -> list[str]:
    def text(key: str) -> str:
        return spread_text(over_seeds(rows, key, **cell))

    def coverages(suffix: str) -> str:
        keys = (f"force_coverage_{percent}{suffix}" for percent in PERCENT)
        return "/".join(f"{100 * over_seeds(rows, key, **cell).mean:.0f}" for key in keys)

    ence = [text("force_ence"), text("force_ence_calibrated")]
    first = [text(RMSE), text("energy_mae_mev"), coverages(""), coverages("_calibrated")]
    return [*first, *ence, text(SPEARMAN), text(AUROC)]


def _change(rows: Rows, cell: dict[str, Any]) -> list[str]:
    changes = []
    for key, places in ((RMSE, 1), (SPEARMAN, 3), (AUROC, 3)):
        new, old = (by_seed(rows, key, **c) for c in (cell, cell | {"arm": BASELINE}))
        changes.append(interval_text(paired(new, old), places))
    return [cell["arm"], cell["size"], cell["source"], *changes]


def likelier_text(rows: Rows, network: str) -> str:
    """How often validation takes the members' spread, and whether test agrees."""
    keys = {"validation": "val_force_nll", "test": "force_nll_calibrated"}
    chosen: list[dict[str, Any]] = []
    for cell in (c for c in cells_of(rows) if c["source"] == "distance"):
        scores = {
            split: [by_seed(rows, key, **cell | {"source": s}) for s in ("distance", "members")]
            for split, key in keys.items()
        }
        for seed in scores["validation"][0]:
            told = {s: m.get(seed, 0.0) < d[seed] for s, (d, m) in scores.items() if seed in d}
            chosen.append(told)
    members = sum(told["validation"] for told in chosen)
    agree = sum(told["validation"] == told.get("test") for told in chosen)
    return (
        f"{network}: validation takes the members' spread in {members} of {len(chosen)} networks, "
        f"the distance in the others; test agrees in {agree}"
    )


@house_style()
def force_calibration_plot(rows: Rows) -> Figure:
    """Error, coverage before and after calibration, and ranking by arm; a network in each row.

    Args:
        rows: see the module's description.

    Returns:
        A figure; dots are means over the seeds, bars 95 % t-intervals.
    """
    networks = values(rows, "network")
    panels = {
        "force RMSE (meV/Å)": RMSE,
        "coverage of 90 %, raw": COVERAGE,
        "calibrated": f"{COVERAGE}_calibrated",
        "Spearman, atoms": SPEARMAN,
    }
    figure = new_figure(height=1.2 + 2.2 * len(networks))
    grid = figure.subplots(len(networks), len(panels), squeeze=False, sharex=True)
    for network, line_of_panels in zip(networks, grid, strict=True):
        inside = [row for row in rows if row["network"] == network]
        for axes, (title, key) in zip(line_of_panels, panels.items(), strict=True):
            _panel(axes, inside, key)
            axes.set_title(title if network == networks[0] else "")
            if key.startswith(COVERAGE):
                axes.axhline(0.9, color=GREY, linestyle="--", linewidth=1)
        line_of_panels[0].set_ylabel(network)
    legend_below(figure, grid[0, -1])
    figure.suptitle(f"Error bars of forces by what was learned  ({interval_note(rows, 'bars')})")
    return figure


def _panel(axes: Axes, rows: Rows, key: str) -> None:
    arms = values(rows, "arm")
    sizes = looks(values(rows, "size"))
    sources = ["distance"] if key == RMSE else values(rows, "source")  # one error for both
    shift = 0.0
    for size, look in sizes.items():
        for source, style in zip(sources, ("-", ":"), strict=False):
            found = [over_seeds(rows, key, arm=arm, size=size, source=source) for arm in arms]
            at = [k + shift for k in range(len(arms))]
            line(axes, at, found, look, f"{size}, {source}", style=style)
            shift += 0.06
    short = [arm.replace(", then ", "\nthen ") for arm in arms]
    axes.set_xticks(range(len(arms)), short, rotation=30, ha="right")
    light_grid(axes, "y")
