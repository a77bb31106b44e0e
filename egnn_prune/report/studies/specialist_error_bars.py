"""Tables and figure of the study of error bars of specialised potentials.

Every row has ``part``, ``system`` and ``seed``. Of ``calibration``: ``method``, ``point``, scores
of test structures with the prefixes ``energy_`` and ``force_``; of ``flag``: ``method``, ``kind``,
``structures``, shares ``passed_old``, ``passed_new``, ``passed_both``, ``auroc_energy``,
``auroc_domain``, ``auroc_distance``, ``auroc_force``, ``named``, ``named_by_chance``; of ``new
species``: ``refused``; of ``cost``: ``method``, ``atoms``, ``latency_ms``. Any may be missing.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from egnn_prune.report.common.formatting import text_table
from egnn_prune.report.common.plots import diagonal, halves, interval_note, legend_below, line
from egnn_prune.report.common.statistics import (
    Rows,
    by_seed,
    interval_text,
    over_seeds,
    paired,
    spread_text,
    values,
)
from egnn_prune.report.common.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILION,
    house_style,
    light_grid,
    new_figure,
)

CELL = ("system", "method", "point")
PERCENT = (50, 80, 90)
LOOKS = {
    "dense": (BLUE, "o"),
    "cut": (ORANGE, "D"),
    "fine-tuned": (VERMILION, "s"),
    "recalibrated": (GREEN, "^"),
}
FLAGS = {"old": ("old flag", GREY), "new": ("new flag", BLUE), "both": ("both", GREEN)}
INGREDIENTS = ("energy", "domain", "distance", "force")


def error_bars_table(rows: Rows) -> str:
    """Calibration of forces and energies, the flag, and times: those that there are rows of.

    Args:
        rows: see the module's description.

    Returns:
        Several lines of plain text without a trailing newline.
    """
    parts = {"calibration": (_forces, _energies, _kept), "flag": (_passed, _told)}
    parts |= {"new species": (_refused,), "cost": (_cost,)}
    found = []
    for part, tables in parts.items():
        inside = [row for row in rows if row["part"] == part]
        found += [table(inside) for table in tables if inside]
    return "\n\n".join(found)


def _cells(rows: Rows, *names: str) -> list[dict[str, str]]:
    """The different values of these columns, in order of appearance."""
    return [dict(zip(names, key, strict=True)) for key in _keys(rows, names)]


def _keys(rows: Rows, names: Sequence[str]) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(tuple(row[name] for name in names) for row in rows))


def _table(rows: Rows, names: Sequence[str], columns: dict[str, str], places: int = 2) -> str:
    """A line for each cell: mean and deviation over the seeds of every column."""
    body = []
    for cell in _cells(rows, *names):
        found = [over_seeds(rows, column, **cell) for column in columns.values()]
        texts = [spread_text(one, places) if one.n else "" for one in found]
        body.append([*cell.values(), *texts, str(len(values(rows, "seed", **cell)))])
    return text_table([*names, *columns, "seeds"], body, left=len(names))


def _forces(rows: Rows) -> str:
    columns = {"RMSE meV/A": "force_rmse_mev_per_angstrom"}
    columns |= {f"{p} %": f"force_coverage_{p}" for p in PERCENT}
    columns |= {"ENCE": "force_ence", "NLL": "force_nll", "rank atoms": "force_spearman_atoms"}
    columns |= {"rank structures": "force_spearman_structures", "AUROC": "force_ood_auroc"}
    columns |= {"hotter: 90 %": "force_hotter_coverage_90"}
    title = "Forces (eV/A): coverages, calibration, rank correlation, AUROC against unlike ones"
    return f"{title}; mean ± sd over seeds\n{_table(rows, CELL, columns)}"


def _energies(rows: Rows) -> str:
    columns = {"RMSE meV": "energy_rmse_mev"}
    columns |= {f"{p} %": f"energy_coverage_{p}" for p in PERCENT}
    columns |= {"ENCE": "energy_ence", "NLL": "energy_nll", "rank": "energy_spearman"}
    columns |= {"AUROC": "energy_ood_auroc"}
    return f"Energies (eV), as above\n{_table(rows, CELL, columns)}"


def _kept(rows: Rows) -> str:
    """Old laws against own ones, paired by seed."""
    body = []
    for cell in _cells(rows, "system", "method"):
        for point in ("cut", "fine-tuned"):
            for what in ("force", "energy"):
                key = f"{what}_coverage_90"
                own = by_seed(rows, key, **cell, point="recalibrated")
                found = paired(by_seed(rows, key, **cell, point=point), own)
                if found.n:
                    body.append([*cell.values(), point, what, interval_text(found, 3)])
    header = ["system", "method", "point", "of", "less recalibrated"]
    title = "Coverage of 90 % intervals with old laws, less that of own ones [95 %], paired by seed"
    return f"{title}\n{text_table(header, body, left=4)}"


def _passed(rows: Rows) -> str:
    names = ("system", "method", "kind")
    columns = {f"{flag} flag" if flag != "both" else flag: f"passed_{flag}" for flag in FLAGS}
    columns |= {name: f"passed_{name}" for name in INGREDIENTS}
    title = "Share that passes as in distribution, by flag and by ingredient"
    return f"{title}\n{_table(rows, names, columns)}"


def _told(rows: Rows) -> str:
    names = ("system", "method", "kind")
    columns = {name: f"auroc_{name}" for name in INGREDIENTS}
    columns |= {"right atom": "named", "by chance": "named_by_chance"}
    unlike = [row for row in rows if row["kind"] != "test"]
    title = "AUROC against test structures, by ingredient; the atom farthest away is a changed one"
    return f"{title}\n{_table(unlike, names, columns)}"


def _refused(rows: Rows) -> str:
    refused = sum(bool(row["refused"]) for row in rows)
    return f"A new element was refused in {refused} of {len(rows)} cases"


def _cost(rows: Rows) -> str:
    body = []
    for cell in _cells(rows, "atoms", "method"):
        time = over_seeds(rows, "latency_ms", **cell).mean
        plain = over_seeds(rows, "latency_ms", **cell | {"method": "energies and forces"}).mean
        body.append([str(cell["atoms"]), cell["method"], f"{time:.1f}", f"{time / plain:.2f}x"])
    return "Time of one pass\n" + text_table(["atoms", "", "ms", "to no error bar"], body, left=2)


@house_style()
def error_bars_plot(rows: Rows) -> Figure:
    """Coverage promised against observed at the points; share that passes of each kind.

    Args:
        rows: see the module's description.

    Returns:
        A figure with a column for each system; of the first method, which is there for all.
    """
    calibration = [row for row in rows if row["part"] == "calibration"]
    flags = [row for row in rows if row["part"] == "flag"]
    drawn = [part for part in (calibration, flags) if part]
    figure = new_figure(height=0.4 + 3.0 * max(1, len(drawn)))
    if not drawn:
        return figure
    method = values(drawn[0], "method")[0]
    systems = values([*calibration, *flags], "system")
    places = figure.subfigures(len(drawn), 1, squeeze=False).flat
    for place, part in zip(places, drawn, strict=True):
        grid = place.subplots(1, len(systems), squeeze=False, sharey=part is calibration)[0]
        for axes, system in zip(grid, systems, strict=True):
            own = [r for r in part if (r["system"], r["method"]) == (system, method)]
            (_draw_coverage if part is calibration else _draw_passed)(axes, own)
            axes.set_title(system, fontweight="normal")
        what = "Force intervals" if part is calibration else "Taken for in distribution"
        place.suptitle(f"{what} ({method})", x=0.01, ha="left", fontsize=10.5)
        if grid[0].get_legend_handles_labels()[0]:
            legend_below(place, grid[0])
    figure.suptitle(f"Error bars of specialised potentials ({interval_note(rows, 'bars')})")
    return figure


def _draw_coverage(axes: Axes, rows: Rows) -> None:
    for point in values(rows, "point"):
        keys = [f"force_coverage_{p}" for p in PERCENT]
        found = [over_seeds(rows, key, point=point) for key in keys]
        line(axes, PERCENT, found, LOOKS[point], point, scale=lambda share: 100 * share)
    diagonal(axes)
    axes.set(xlabel="promised (%)", ylabel="observed (%)", xlim=(40, 100), ylim=(0, 100))
    light_grid(axes)


def _draw_passed(axes: Axes, rows: Rows) -> None:
    kinds, height = values(rows, "kind"), 0.8 / len(FLAGS)
    for place, (flag, (label, colour)) in enumerate(FLAGS.items()):
        found = [over_seeds(rows, f"passed_{flag}", kind=kind) for kind in kinds]
        y = [k + (place - 1) * height for k in range(len(kinds))]
        share = [100 * one.mean for one in found]
        ends = [100 * half for half in halves(found)]
        axes.barh(y, share, 0.9 * height, xerr=ends, color=colour, label=label, error_kw={"lw": 1})
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set(xlabel="share that passes (%)", xlim=(0, 105), ylim=(len(kinds) - 0.5, -0.5))
    light_grid(axes, "x")
