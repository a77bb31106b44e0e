"""How the validation errors fell while the models were trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from egnn_prune.report.common.plots import plain_log
from egnn_prune.report.common.style import LOOKS, house_style, light_grid, new_figure
from egnn_prune.report.run.training import FOLDER, Curve, read_curve
from egnn_prune.report.specialise.files import LABELS

COLUMN = "val_force_rmse"
"""What a curve holds, in meV/Angstrom."""

_STYLES = {"teacher": ":", "finetuned": "--", "specialised": "-", "scratch": "-."}


def load_curves(folder: Path) -> dict[str, Curve]:
    """The learning curves of a folder by model; empty where it kept none.

    Args:
        folder: With ``curves/MODEL.csv``, columns ``step`` and ``val_force_rmse``.

    Raises:
        DataError: A file is malformed.
    """
    paths = {name: folder / FOLDER / f"{name}.csv" for name in LABELS}
    return {name: read_curve(path, COLUMN) for name, path in paths.items() if path.is_file()}


@house_style()
def training_figure(curves: Mapping[str, Curve]) -> Figure | None:
    """Validation force error against optimiser steps."""
    if not curves:
        return None
    figure = new_figure(3.2)
    axes = figure.add_subplot()
    for name, curve in curves.items():
        axes.plot(
            *(curve["step"], curve[COLUMN], _STYLES[name]),
            color=LOOKS[name][0],
            label=LABELS[name],
        )
    axes.set_yscale("log")
    plain_log(axes.yaxis, (1, 2, 3, 5))
    axes.set_xlim(left=0)
    axes.set(xlabel="optimiser steps", ylabel="force RMSE (meV/Å)")
    axes.set_title("Validation force error while training")
    light_grid(axes)
    axes.legend(handlelength=3.2)
    return figure
