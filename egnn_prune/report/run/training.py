"""How the validation errors of a run's models fell while they were trained."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from egnn_prune.errors import DataError
from egnn_prune.report.common.files import Metrics
from egnn_prune.report.common.plots import plain_log
from egnn_prune.report.common.style import MODEL_COLOURS, house_style, light_grid, new_figure
from egnn_prune.report.common.wording import words

Curve = Mapping[str, np.ndarray]

FOLDER = "curves"
#: File of a fit: its label, its colour, whether it is dashed, and the fit whose steps it continues.
FITS: dict[str, tuple[str, str, str, str | None]] = {
    "dense": ("dense", MODEL_COLOURS["dense"], "-", None),
    "baseline": ("dense, extra steps", MODEL_COLOURS["dense"], ":", "dense"),
    "pruned": ("pruned and fine-tuned", MODEL_COLOURS["pruned"], "-", "dense"),
    "scratch": ("same shape from scratch", MODEL_COLOURS["scratch"], "-", None),
    "scratch_continued": ("", MODEL_COLOURS["scratch"], "-", "scratch"),
}


def load_curves(run: Path) -> dict[str, Curve]:
    """The learning curves of a run by the name of the fit; empty for runs that kept none.

    Args:
        run: folder with ``curves/FIT.csv``, columns ``step``, ``seconds``, ``val_mae`` ...

    Returns:
        Columns by name, each ``[validations]``.

    Raises:
        DataError: a file is malformed.
    """
    found: dict[str, Curve] = {}
    for name in FITS:
        path = run / FOLDER / f"{name}.csv"
        if not path.is_file():
            continue
        found[name] = read_curve(path, "val_mae")
    return found


def read_curve(path: Path, needed: str) -> Curve:
    """The columns of one learning curve, which must hold ``step`` and the one `needed`.

    Raises:
        DataError: the file is malformed.
    """
    with path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    try:
        columns = {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}
        columns["step"], columns[needed]
    except (IndexError, KeyError, TypeError, ValueError):
        raise DataError(
            f"{path} is no learning curve with numbers for step and {needed}; delete it or "
            "train again"
        ) from None
    return columns


@house_style()
def training_figure(metrics: Metrics, curves: Mapping[str, Curve]) -> Figure | None:
    """Validation error against optimiser steps; of forces too, and squared ones of positions.

    Args:
        metrics: the checked content of ``metrics.json``.
        curves: see :func:`load_curves`.

    Returns:
        The figure; None without curves.
    """
    if not curves:
        return None
    dataset = metrics["dataset"]
    unit = dataset.get("unit") or ""
    target = str(dataset.get("target") or "value").replace("_", " ")
    panels = {"val_mae": ("MAE", target, unit)}
    if words(metrics).positions:
        panels["val_mse"] = ("MSE", target, f"{unit}²")  # what the field reports of positions
    if any("val_force_mae" in curve for curve in curves.values()):
        panels["val_force_mae"] = ("MAE", "forces", f"{unit}/Å")
    figure = new_figure(3.6)
    for axes, (key, (error, what, scale)) in zip(
        np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True
    ):
        _panel(axes, curves, key)
        axes.set_title(f"Validation {error} of the {what}")
        axes.set_ylabel(f"{error} ({scale})" if unit else error)
    figure.axes[0].legend()
    return figure


def _panel(axes: Axes, curves: Mapping[str, Curve], key: str) -> None:
    for name, curve in curves.items():
        if key not in curve:
            continue
        label, colour, style, before = FITS[name]
        steps, values = curve["step"], curve[key]
        start = curves.get(before or "", {})
        if key in start:  # join the lines
            steps = np.concatenate([[0.0], steps]) + start["step"][-1]
            values = np.concatenate([start[key][-1:], values])
        axes.plot(steps, values, style, color=colour, linewidth=1.4, label=label or None)
    axes.set_yscale("log")
    plain_log(axes.yaxis, (1, 2, 3, 5))
    axes.set_xlabel("optimiser steps")
    axes.set_xlim(left=0)
    light_grid(axes)
