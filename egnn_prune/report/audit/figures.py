"""What an audit shows of two calculators, A in blue and B in orange in every figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from egnn_prune.report.common.files import number
from egnn_prune.report.common.formatting import significant, with_error
from egnn_prune.report.common.plots import (
    diagonal,
    limits_without_outliers,
    plain_log,
    square,
    zero,
)
from egnn_prune.report.common.style import (
    BLUE,
    GREEN,
    GREY,
    VERMILION,
    house_style,
    light_grid,
    new_figure,
)

Report = Mapping[str, Any]

LOOKS = {"a": (BLUE, "o"), "b": (VERMILION, "s")}
_DECADES = 300
"""Errors of a structure that are so many times smaller than the largest are drawn there: one of the
two may have made the labels."""
VERDICTS = {"B is worse": VERMILION, "B is better": GREEN}


@house_style()
def structures(report: Report) -> Figure:
    """Every structure: its force error by A against that by B, and how both are distributed."""
    a, b = (np.array(report["structures"][who]) for who in ("a", "b"))
    labelled = "forces" in report["about"]["labels"]
    figure = new_figure(3.6)
    left, right = figure.subplots(1, 2)
    if labelled:
        least = max(a.max(), b.max(), 1e-3) / _DECADES
        a, b = np.maximum(a, least), np.maximum(b, least)
        square([left], np.concatenate([a, b]))
        diagonal(left)
        left.scatter(a, b, s=12, color=VERMILION, alpha=0.6, linewidths=0)
        worse = 100 * report["structures"]["share_worse"]
        left.set(title=f"Worse with B: {worse:.0f} % of the structures", ylabel="B (meV/Å)")
        left.set_xlabel("A: force RMSE of a structure (meV/Å)")
    else:
        left.hist(b, 30, color=VERMILION)
        left.set(title="How far B's forces are from A's", ylabel="structures")
        left.set_xlabel("RMS over a structure (meV/Å)")
    light_grid(left)
    energies = report["structures"]["energy_per_atom"]
    of_labels = "energy" in report["about"]["labels"]
    shown = {who: np.array(energies[who]) for who in (("a", "b") if of_labels else ("b",))}
    centred = {who: values - np.median(values) for who, values in shown.items()}
    low, high = limits_without_outliers(np.concatenate(list(centred.values())))
    for who, values in centred.items():
        right.hist(
            np.clip(values, low, high),
            np.linspace(low, high, 31).tolist(),
            histtype="step" if who == "b" else "stepfilled",
            color=LOOKS[who][0],
            alpha=1 if who == "b" else 0.45,
            linewidth=1.6,
            label=who.upper(),
        )
    right.set(title="Energies less their median difference", ylabel="structures")
    right.set_xlabel("predicted less labels (meV/atom)" if of_labels else "B less A (meV/atom)")
    right.legend()
    right.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    light_grid(right, "y")
    return figure


@house_style()
def groups(report: Report) -> Figure:
    """How much the force error changed on the atoms of each group, with its interval."""
    kinds = {kind: parts for kind, parts in report["groups"].items() if parts}
    rows = sum(len(parts) + 1 for parts in kinds.values())
    figure = new_figure(0.9 + 0.21 * rows)
    axes = figure.add_subplot()
    ticks: list[tuple[int, str]] = []
    y = 0
    for kind, parts in kinds.items():
        axes.text(0.005, y, kind, transform=axes.get_yaxis_transform(), va="center", weight="bold")
        y += 1
        for part in parts:
            colour = VERDICTS.get(part["verdict"], GREY)
            change, low, high = (number(part[key]) for key in ("change", "low", "high"))
            if math.isfinite(low) and math.isfinite(high):
                axes.plot([low, high], [y, y], color=colour, marker="|", markersize=5, lw=1.4)
            axes.plot(change, y, "o", color=colour, markersize=5)
            ticks.append((y, f"{part['name']}"))
            y += 1
    zero(axes, vertical=True)
    axes.set_yticks([t for t, _ in ticks], [name for _, name in ticks])
    axes.set_ylim(y - 0.4, -0.6)
    labelled = "forces" in report["about"]["labels"]
    axes.set_xlabel(
        "change of the force RMSE from A to B (meV/Å)" if labelled else "RMS of B less A (meV/Å)"
    )
    axes.set_title("Force error by group of atoms" if labelled else "Distance by group of atoms")
    light_grid(axes, "x")
    return figure


@house_style()
def smoothness(report: Report) -> Figure:
    """Along the worst line of each: the slope, and the energy less the integral of the slope."""
    figure = new_figure(4.4)
    panels = figure.subplots(2, 2, sharex="col")
    for column, row in zip(panels.T, report["smoothness"], strict=True):
        lines, (colour, _) = row["lines"], LOOKS[row["who"]]
        for line in lines:
            for axes, key in zip(column, ("slope", "rest"), strict=True):
                axes.plot(line["s"], line[key], color=colour, lw=1, marker=".", markersize=3)
        column[0].set_title(f"{row['who'].upper()}: slope of the energy by its forces")
        column[1].set_title(f"Energy less integral: {significant(row['slope_error'])} meV/Å")
        column[1].set_xlabel("length along the line (Å)")
        low, high = column[1].get_ylim()
        reach = max(abs(low), abs(high), 0.1)
        column[1].set_ylim(-reach, reach)
        for axes in column:
            light_grid(axes)
    panels[0, 0].set_ylabel("slope (meV/Å)")
    panels[1, 0].set_ylabel("rest (meV)")
    return figure


@house_style()
def dynamics(report: Report) -> Figure:
    """Total energy over time of both, each on a scale of its own."""
    figure = new_figure(2.8)
    panels = figure.subplots(1, 2, sharex=True)
    for axes, row in zip(panels, report["dynamics"], strict=True):
        axes.plot(row["time_ps"], row["total"], color=LOOKS[row["who"]][0], lw=0.8)
        drift = with_error(number(row["drift"]), number(row["drift_error"]))
        said = "ended early" if row["stopped"] else f"drift {drift} meV/atom/ps"
        axes.set(title=f"{row['who'].upper()}: {said}", xlabel="time (ps)")
        light_grid(axes)
    panels[0].set_ylabel("total energy less\nits start (meV/atom)")
    return figure


@house_style()
def speed(report: Report) -> Figure:
    """Time over the number of atoms, both axes logarithmic."""
    figure = new_figure(3.2)
    axes = figure.add_subplot()
    axes.set(xscale="log", yscale="log")
    for who, (colour, marker) in LOOKS.items():
        points = [(row["atoms"], row[who]) for row in report["speed"] if row[who]]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=who.upper())
    axes.set(xlabel="atoms", ylabel="energy and forces (ms)", title="Time for one structure")
    for axis in (axes.xaxis, axes.yaxis):
        plain_log(axis, (1, 2, 5))
    axes.legend()
    light_grid(axes)
    return figure


@house_style()
def calibration(report: Report) -> Figure:
    """Error against error bar, in parts of equal count by the error bar."""
    kinds = list(dict.fromkeys(row["quantity"] for row in report["calibration"]))
    figure = new_figure(3.8)
    for k, kind in enumerate(kinds):
        axes = figure.add_subplot(1, 2, k + 1)
        rows = [row for row in report["calibration"] if row["quantity"] == kind]
        points = np.concatenate([np.ravel(row["bins"]) for row in rows])
        square([axes], points)
        diagonal(axes)
        for row in rows:
            colour, marker = LOOKS[row["who"]]
            bars, errors = zip(*row["bins"], strict=True)
            axes.plot(bars, errors, color=colour, marker=marker, label=row["who"].upper())
        axes.set(title=f"Error bars of {kind}", xlabel=f"error bar ({rows[0]['unit']})")
        axes.set_ylabel(f"error, RMS ({rows[0]['unit']})")
        axes.legend()
        light_grid(axes)
    return figure


DRAWN: Sequence[tuple[str, Callable[[Report], Figure]]] = (
    ("structures", structures),
    ("groups", groups),
    ("smoothness", smoothness),
    ("dynamics", dynamics),
    ("speed", speed),
    ("calibration", calibration),
)
"""By the part of the report that each one shows; nothing is drawn of an empty part."""


def all_figures(report: Report) -> dict[str, Figure]:
    """Those that the report has numbers for."""
    found = {}
    for name, draw in DRAWN:
        part = report[name]
        if name == "speed":
            part = [row for row in part if row["a"] or row["b"]]
        if part:
            found[name] = draw(report)
    return found
