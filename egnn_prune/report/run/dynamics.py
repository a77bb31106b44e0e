"""A simulation over time: energy, volume and pressure, and was the model sure of where it went?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from egnn_prune.report.common.formatting import with_error
from egnn_prune.report.common.style import (
    BLACK,
    BLUE,
    GREEN,
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
    pressure: float | None = None,
) -> Figure:
    """Total energy with its drift, exchange of potential and kinetic energy, uncertainty.

    At constant pressure also volume and pressure.

    Args:
        rows: one mapping per frame with ``time_fs``, ``potential_eV``, ``kinetic_eV``, ``total_eV``
            and ``epistemic_eV`` (all NaN of a model without error bars: nothing is drawn of them).
        atoms: their number.
        drift: slope of the total energy, meV/atom/ps; NaN where a thermostat changes it.
        drift_error: its standard error.
        threshold: the uncertainty in eV beyond which a structure counts as unknown.
        title: what was simulated.
        pressure: that was held, in GPa; the rows then have ``volume_A3`` and ``pressure_GPa``.
    """
    time, potential, kinetic, total, epistemic_std = (
        np.array([row[key] for row in rows])
        for key in ("time_fs", "potential_eV", "kinetic_eV", "total_eV", "epistemic_eV")
    )
    time, epistemic_std = time / 1000, 1000 * epistemic_std
    unsure = not np.isnan(epistemic_std).all()
    panels = 2 + unsure + 2 * (pressure is not None)
    figure = new_figure(0.6 + 2 * panels)
    figure.suptitle(title or "Dynamics at constant energy")
    top, middle, *others = figure.subplots(panels, 1, sharex=True)
    last = others[-1] if others else middle
    energy = 1000 * (total - total.mean()) / atoms
    top.plot(time, energy, color=GREY, linewidth=0.7, label="total energy")
    if math.isnan(drift):
        top.set_title("Total energy")
    else:
        slope = drift * (time - time.mean())
        top.plot(time, slope, color=VERMILION, label="least-squares line")
        top.set_title(f"Total energy: drifts by {with_error(drift, drift_error)} meV/atom/ps")
    top.set_ylabel("deviation from its\nmean (meV/atom)")
    for one, colour, label in ((potential, BLUE, "potential"), (kinetic, ORANGE, "kinetic")):
        middle.plot(time, one - one[0], color=colour, linewidth=0.8, label=label)
    middle.set_title("What the two forms of energy exchange meanwhile")
    middle.set_ylabel("change since\nthe start (eV)")
    if pressure is not None:
        _volume_and_pressure(others.pop(0), others.pop(0), time, rows, pressure)
    for bottom in others:
        bottom.plot(time, epistemic_std, color=PURPLE, linewidth=0.8, label="this simulation")
        bottom.set_ylim(0, 1.05 * max(epistemic_std.max(), 1000 * (threshold or 0)))
        beyond = ""
        if threshold is not None:
            limit = {"color": BLACK, "linestyle": "--", "linewidth": 1.0, "label": "threshold"}
            bottom.axhline(1000 * threshold, **limit)
            outside = 100 * float((epistemic_std > 1000 * threshold).mean())
            beyond = f": beyond the threshold {outside:.1f} % of the time"
        bottom.set_title(f"How unsure the model is of the energy{beyond}")
        bottom.set_ylabel("epistemic standard\ndeviation (meV)")
    last.set_xlabel("time (ps)")
    for axes in figure.axes:
        light_grid(axes)
        axes.margins(x=0.01)
        axes.legend(loc="upper right", ncols=2)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.3 * (high - low))  # room above the data for the legend
    figure.align_ylabels()
    return figure


def _volume_and_pressure(
    above: Axes,
    below: Axes,
    time: NDArray[np.float64],
    rows: Sequence[Mapping[str, float]],
    held: float,
) -> None:
    """The volume, and the pressure around the one that was held."""
    above.plot(time, [r["volume_A3"] for r in rows], color=GREEN, linewidth=0.8, label="volume")
    above.set_title("Volume of the cell")
    above.set_ylabel("volume (Å³)")
    pressure = [row["pressure_GPa"] for row in rows]
    below.plot(time, pressure, color=GREY, linewidth=0.7, label="this simulation")
    below.axhline(held, color=BLACK, linestyle="--", linewidth=1.0, label="held")
    below.set_title(f"Pressure, held at {held:g} GPa on average")
    below.set_ylabel("pressure (GPa)")
