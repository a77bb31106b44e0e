"""One figure of the study: a panel a question."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from egnn_prune.report.common.answers import Comparison
from egnn_prune.report.common.plots import line, plain_log, zero
from egnn_prune.report.common.statistics import Rows, over_seeds, summarise, values
from egnn_prune.report.common.style import house_style, light_grid, looks, new_figure
from egnn_prune.report.studies.questions.primary import at_best_rate, freezing, losses, uncertainty


def scratch(axes: Axes, rows: Rows) -> None:
    """Errors against processor time, for the size that rates were chosen for."""
    rows = at_best_rate(rows)
    size = values(rows, "size")[0]
    steps = values(rows, "steps", size=size)
    for name, look in looks(values(rows, "arm")).items():
        cells = [{"size": size, "arm": name, "steps": s} for s in steps]
        found = [over_seeds(rows, "force_rmse", **cell) for cell in cells]
        seconds = [over_seeds(rows, "seconds", **cell).mean for cell in cells]
        line(axes, seconds, found, look, name)
    axes.set(xscale="log", yscale="log", ylabel="force RMSE (meV/Å)")
    axes.set_xlabel(f"processor seconds of {', '.join(f'{n:,}' for n in steps)} steps")
    plain_log(axes.xaxis, (1, 2, 5))
    plain_log(axes.yaxis, (1, 2, 3, 5))
    axes.set_title(f"1. From scratch? {size:,} structures")


def budgets(axes: Axes, rows: Rows) -> None:
    """Errors against the share of the teacher's time, compensated."""
    rows = [row for row in rows if row["part"] == "fit"]
    sizes = sorted(values(rows, "budget"))
    for name, look in looks(values(rows, "score")).items():
        cells = [{"score": name, "compensated": True, "budget": b} for b in sizes]
        found = [over_seeds(rows, "force_rmse", **cell) for cell in cells]
        line(axes, 100 * np.array(sizes), found, look, name)
    axes.set(xlabel="time, % of the teacher's", ylabel="force RMSE (meV/Å)", yscale="log")
    plain_log(axes.yaxis, (1, 2, 3, 5))
    axes.set_title("2. Scores at equal time, fine-tuned")


def calibration(axes: Axes, rows: Rows) -> None:
    """Losses against the share of the copies, of the first system."""
    found = losses([row for row in rows if row["method"] == "last_layer"])
    system = values(found, "system")[0]
    shares = [share for share in values(found, "share", system=system) if share]
    shown = [("accuracy_loss", "recalibrated", "accuracy")]
    shown += [
        ("calibration_loss", point, f"calibration, {text}")
        for point, text in (
            ("right after", "right after the cut"),
            ("old calibration", "fine-tuned"),
            ("recalibrated", "recalibrated"),
        )
    ]
    names = looks([text for *_, text in shown])
    axes.set_yscale("symlog", linthresh=0.02)
    for key, point, text in shown:
        cells = [{"system": system, "share": share, "point": point} for share in shares]
        points = [over_seeds(found, key, **cell) for cell in cells]
        line(axes, 100 * np.array(shares), points, names[text], text)
    zero(axes)
    axes.set(xlabel="copies removed (%)", ylabel="nats a component")
    axes.set_title(f"3. What is lost ({system})")


def forgetting(axes: Axes, rows: Rows) -> None:
    """What damage goes with."""
    keys = ("error_bar", "distance", "strain")
    shown = looks(values(rows, "network", part="damage"))
    for beside, (name, look) in enumerate(shown.items(), -(len(shown) // 2)):
        found = [over_seeds(rows, key, part="damage", network=name) for key in keys]
        line(axes, np.arange(len(keys)) + 0.12 * beside, found, look, name, style="none")
    zero(axes)
    axes.set_xticks(range(len(keys)), ["error bar", "distance", "strain"])
    axes.set_ylabel("rank correlation with damage")
    axes.set_title("4. What is forgotten")


def uncertain(axes: Axes, rows: Rows) -> None:
    """Primary ratios of question 5."""
    _ratios(axes, [c for c in uncertainty(rows) if c.ratio], "5. Uncertain against random")


def frozen(axes: Axes, rows: Rows) -> None:
    """Primary ratios of question 6."""
    _ratios(axes, freezing(rows), "6. Frozen against not")


def _ratios(axes: Axes, comparisons: Sequence[Comparison], title: str) -> None:
    places = np.arange(len(comparisons))[::-1]
    found = [summarise(c.by_seed.values()) for c in comparisons]
    line(axes, places, found, looks(["a"])["a"], "", "none", np.exp, horizontal=True)
    axes.axvline(1, color="#999999", linewidth=0.8)
    texts = [c.label.replace(" against nothing", "").split(": uncertain")[0] for c in comparisons]
    names = [text.replace(", ", "\n", 1) for text in texts]
    axes.set_yticks(places, names)
    axes.set_ylim(-0.6, len(places) - 0.4)
    axes.set_xlabel("ratio of force RMSE (below 1: better)")
    axes.set_title(title)


PANELS: dict[str, Callable[[Axes, Rows], None]] = {
    "scratch": scratch,
    "budgets": budgets,
    "calibration": calibration,
    "forgetting": forgetting,
    "uncertainty": uncertain,
    "freezing": frozen,
}


@house_style()
def questions_plot(rows: Rows) -> Figure:
    """A panel for each question that has rows; means and 95 % t-intervals over the seeds."""
    asked = [name for name in PANELS if any(row["question"] == name for row in rows)]
    figure = new_figure(height=3.2 * max(1, -(-len(asked) // 2)))
    panels = figure.subplots(max(1, -(-len(asked) // 2)), 2, squeeze=False).ravel()
    for name, axes in zip(asked, panels, strict=False):
        PANELS[name](axes, [row for row in rows if row["question"] == name])
        light_grid(axes)
        if len(axes.get_legend_handles_labels()[1]) > 1:
            where = {"loc": "upper left", "bbox_to_anchor": (0, 0.88)}  # between the lines
            chosen = where if name == "calibration" else {}
            axes.legend(fontsize=7, frameon=True, framealpha=0.7, edgecolor="none", **chosen)
    for axes in panels[len(asked) :]:
        axes.axis("off")
    return figure
