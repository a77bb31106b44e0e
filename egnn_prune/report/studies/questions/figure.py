"""One figure of the study: a panel a question."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from ase.data import chemical_symbols
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from egnn_prune.report.common.answers import Comparison
from egnn_prune.report.common.plots import line, plain_log, zero
from egnn_prune.report.common.statistics import Rows, by_seed, over_seeds, summarise, values
from egnn_prune.report.common.style import house_style, light_grid, looks, new_figure
from egnn_prune.report.studies.questions.primary import (
    at_best_rate,
    freezing,
    losses,
    on_the_rest,
    uncertainty,
)


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
    """Errors against the share of the teacher's time that was measured, compensated."""
    rows = [row for row in rows if row["part"] == "fit"]
    sizes = sorted(values(rows, "budget"))
    for name, look in looks(values(rows, "score")).items():
        cells = [{"score": name, "compensated": True, "budget": b} for b in sizes]
        errors = [by_seed(rows, "force_rmse", **cell).values() for cell in cells]
        found = [summarise(math.log(error) for error in cell) for cell in errors]
        times = [100 * over_seeds(rows, "time", **cell).mean for cell in cells]
        line(axes, times, found, look, name, "-", np.exp)
    axes.set(xlabel="time, % of the teacher's", ylabel="force RMSE (meV/Å)", yscale="log")
    plain_log(axes.yaxis, (1, 2, 3, 5))
    axes.set_title("2. Scores at equal time, fine-tuned")


def calibration(axes: Axes, rows: Rows) -> None:
    """Losses against the share of the copies, of the first system."""
    found = losses([row for row in rows if row["method"] == "last_layer"])
    system = values(found, "system")[0]
    shares = [share for share in values(found, "share", system=system) if share]
    shown = {
        "accuracy": ("accuracy_loss", "recalibrated"),
        "calibration, fine-tuned": ("calibration_loss", "old calibration"),
        "calibration, recalibrated": ("calibration_loss", "recalibrated"),
    }
    names = looks(list(shown))
    for text, (key, point) in shown.items():
        cells = [{"system": system, "share": share, "point": point} for share in shares]
        points = [over_seeds(found, key, **cell) for cell in cells]
        line(axes, 100 * np.array(shares), points, names[text], text)
    cut = [
        over_seeds(found, "calibration_loss", point="right after", system=system, share=s)
        for s in shares
    ]
    low, high = (end(one.mean for one in cut) for end in (min, max))
    axes.plot([], [], " ", label=f"(right after the cut {low:.0f} to {high:.0f})")
    zero(axes)
    axes.set(xlabel="copies removed (%)", ylabel="lost nats a component")
    axes.set_title(f"3. What is lost ({system})")


def forgetting(axes: Axes, rows: Rows) -> None:
    """By what factor errors grow, on kinds of frames and on elements."""
    rows = [row for row in rows if row["part"] == "damage" and row["network"] != "cut"]
    kinds = {"test": "ordinary", "hot": "hot"}
    kinds |= {z: chemical_symbols[int(z)] for z in rows[0]["elements"]}
    shown = looks(values(rows, "network"))
    for beside, (name, look) in enumerate(shown.items()):
        own = [row for row in rows if row["network"] == name]
        found = []
        for kind in kinds:
            pairs = [row[kind] if kind in row else row["elements"][kind] for row in own]
            found.append(summarise(math.log(now / was) for was, now in pairs))
        places = np.arange(len(kinds)) + 0.15 * (beside - (len(shown) - 1) / 2)
        line(axes, places, found, look, name, "none", np.exp)
    axes.axhline(1, color="#999999", linewidth=0.8)
    axes.set_xticks(range(len(kinds)), list(kinds.values()))
    axes.set_ylabel("error / the full network's")
    axes.set_title(f"4. What is forgotten ({rows[0]['system']})")


def uncertain(axes: Axes, rows: Rows) -> None:
    """Primary ratios of question 5, and those on the ordinary frames."""
    shown = {c.label.split(": uncertain")[0]: c for c in uncertainty(rows) if c.ratio}
    names = [text.replace("what to ", "").replace(", ", "\n", 1) for text in shown]
    _ratios(axes, list(shown.values()), names, "", "asked for")
    _ratios(axes, on_the_rest(rows), names, "", "on ordinary frames", beside=-0.15)
    axes.set_title("5. Uncertain against random")


def frozen(axes: Axes, rows: Rows) -> None:
    """Primary ratios of question 6."""
    found = freezing(rows)
    names = [c.label.replace(" against nothing", "").replace(" frozen, ", "\n", 1) for c in found]
    _ratios(axes, found, names, "6. Frozen against not")


def _ratios(
    axes: Axes,
    comparisons: Sequence[Comparison],
    names: Sequence[str],
    title: str,
    label: str = "",
    beside: float = 0.0,
) -> None:
    places = np.arange(len(comparisons))[::-1]
    found = [summarise(c.by_seed.values()) for c in comparisons]
    look = looks(["asked for", "on ordinary frames"])[label or "asked for"]
    line(axes, places + beside, found, look, label, "none", np.exp, horizontal=True)
    axes.axvline(1, color="#999999", linewidth=0.8)
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
            axes.legend(fontsize=7, frameon=True, framealpha=0.7, edgecolor="none")
    for axes in panels[len(asked) :]:
        axes.axis("off")
    return figure
