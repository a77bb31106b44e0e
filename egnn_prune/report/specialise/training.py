"""How the validation errors fell while the models were trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from egnn_prune.report.common.plots import plain_log
from egnn_prune.report.common.style import LOOKS, house_style, light_grid, new_figure
from egnn_prune.report.run.training import FOLDER, Curve, read_curve
from egnn_prune.report.specialise.files import LABELS, MILLI

COLUMN = "val_force_mae"
"""What a curve holds, in eV/Angstrom."""

_STYLES = {"teacher": ":", "finetuned": "--", "specialised": "-", "scratch": "-."}


def load_curves(folder: Path) -> dict[str, Curve]:
    """The learning curves of a folder by model; empty where it kept none.

    Args:
        folder: With ``curves/MODEL.csv``, columns ``step`` and ``val_force_mae``.

    Raises:
        DataError: A file is malformed.
    """
    paths = {name: folder / FOLDER / f"{name}.csv" for name in LABELS}
    return {name: read_curve(path, COLUMN) for name, path in paths.items() if path.is_file()}


@house_style()
def training_figure(curves: Mapping[str, Curve]) -> Figure | None:
    """Validation force error against optimiser steps, named at the end of each line."""
    if not curves:
        return None
    figure = new_figure(3.2)
    axes = figure.add_subplot()
    for name, curve in curves.items():
        steps, errors = curve["step"], MILLI * curve[COLUMN]
        axes.plot(steps, errors, _STYLES[name], color=LOOKS[name][0])
        axes.annotate(
            *(LABELS[name], (steps[-1], errors[-1]), (5, 0)),
            textcoords="offset points",
            va="center",
            color=LOOKS[name][0],
            fontweight="bold",
        )
    axes.set_yscale("log")
    plain_log(axes.yaxis, (1, 2, 3, 5))
    axes.set_xlim(0, 1.16 * max(curve["step"][-1] for curve in curves.values()))
    axes.set(xlabel="optimiser steps", ylabel="force MAE (meV/Å)")
    axes.set_title("Validation force error while training")
    light_grid(axes)
    return figure
