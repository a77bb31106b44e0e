"""A simulation over time: was energy conserved, and was the model sure of where it went?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from egnn_prune.report.common.formatting import MISSING
from egnn_prune.report.common.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    PURPLE,
    VERMILION,
    house_style,
    light_grid,
    new_figure,
)


@house_style()
def dynamics_plot(
    rows: Sequence[Mapping[str, float]],
    atoms: int,
    drift: float,
    drift_error: float,
    threshold: float | None = None,
    title: str = "",
) -> Figure:
    """Total energy with its drift, exchange of potential and kinetic energy, uncertainty.

    Args:
        rows: one mapping per frame with ``time_fs``, ``potential_eV``, ``kinetic_eV``, ``total_eV``
            and ``epistemic_eV``.
        atoms: their number.
        drift: slope of the total energy, meV/atom/ps.
        drift_error: its standard error.
        threshold: the uncertainty in eV beyond which a structure counts as unknown.
        title: what was simulated.
    """
    time, potential, kinetic, total, doubt = (
        np.array([row[key] for row in rows])
        for key in ("time_fs", "potential_eV", "kinetic_eV", "total_eV", "epistemic_eV")
    )
    time = time / 1000.0
    figure = new_figure(6.6)
    figure.suptitle(title or "Dynamics at constant energy")
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    _conservation(top, time, 1000 * (total - total.mean()) / atoms, drift, drift_error)
    middle.plot(time, potential - potential[0], color=BLUE, linewidth=0.8, label="potential")
    middle.plot(time, kinetic - kinetic[0], color=ORANGE, linewidth=0.8, label="kinetic")
    middle.set_title("What the two forms of energy exchange meanwhile")
    middle.set_ylabel("change since\nthe start (eV)")
    middle.legend(loc="upper right", ncols=2)
    _headroom(middle)
    _uncertainty(bottom, time, 1000 * doubt, None if threshold is None else 1000 * threshold)
    bottom.set_xlabel("time (ps)")
    for axes in (top, middle, bottom):
        light_grid(axes)
        axes.margins(x=0.01)
    figure.align_ylabels()
    return figure


def _conservation(
    axes: Axes, time: np.ndarray, energy: np.ndarray, drift: float, error: float
) -> None:
    axes.plot(time, energy, color=GREY, linewidth=0.7, label="total energy")
    line = drift * (time - time.mean())
    axes.plot(time, line, color=VERMILION, label="least-squares line")
    axes.set_title(f"Total energy: drifts by {with_error(drift, error)} meV/atom/ps")
    axes.set_ylabel("deviation from its\nmean (meV/atom)")
    axes.legend(loc="upper right", ncols=2)
    _headroom(axes)


def _uncertainty(axes: Axes, time: np.ndarray, doubt: np.ndarray, threshold: float | None) -> None:
    axes.plot(time, doubt, color=PURPLE, linewidth=0.8, label="this simulation")
    axes.set_title("How unsure the model is of the energy")
    axes.set_ylabel("epistemic standard\ndeviation (meV)")
    axes.set_ylim(0, 1.05 * max(doubt.max(), threshold or 0.0))
    if threshold is not None:
        outside = float((doubt > threshold).mean())
        axes.axhline(threshold, color=BLACK, linestyle="--", linewidth=1.0, label="threshold")
        axes.set_title(
            f"How unsure the model is of the energy: beyond the threshold {100 * outside:.1f} % "
            "of the time"
        )
    axes.legend(loc="upper right", ncols=2)
    _headroom(axes)


def with_error(value: float, error: float) -> str:
    """A number and its standard error, to the error's second significant digit."""
    if not (math.isfinite(value) and math.isfinite(error)):
        return MISSING
    digits = 1 - math.floor(math.log10(error)) if error > 0 else 6
    digits = min(max(digits, 0), 12)
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _headroom(axes: Axes) -> None:
    """Room above the data for the legend."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.3 * (high - low))
