"""Forces and energies against the labels, one panel a model with the same axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from egnn_prune.report.common.files import Metrics
from egnn_prune.report.common.formatting import significant
from egnn_prune.report.common.plots import diagonal, limits_without_outliers, zero
from egnn_prune.report.common.style import LIGHT_TO_DARK, LOOKS, house_style, light_grid, new_figure
from egnn_prune.report.specialise.drawing import note_inside
from egnn_prune.report.specialise.files import FORCE_RMSE, LABELS, Structures, values

Array = NDArray[np.float64]

_BINS = 70
_BARS = 25
_FAR_OFF = 3.0
"""A model whose typical error is this many times the specialised one's does not set the axis."""


@house_style()
def force_parity(metrics: Metrics, test: Structures) -> Figure | None:
    """Density of force components: predicted against the label, and their errors magnified.

    Args:
        metrics: The checked content of ``metrics.json``.
        test: The test structures.

    Returns:
        Two rows of panels, a column a model; None without predictions.
    """
    found = {name: _finite(test.forces.ravel(), f.ravel()) for name, f in test.all_forces.items()}
    points = {name: both for name, both in found.items() if both.size}
    if not points:
        return None
    wide = limits_without_outliers(np.concatenate([p.ravel() for p in points.values()]))
    errors = {name: np.diff(both, axis=0)[0] for name, both in points.items()}
    reach = _reach(errors)
    figure = new_figure(4.6)
    panels = figure.subplots(
        2, len(points), sharex=True, sharey="row", squeeze=False, height_ratios=(1.35, 1)
    )
    rmse = values(metrics, FORCE_RMSE)
    edges, close = np.linspace(*wide, _BINS + 1), np.linspace(-reach, reach, _BINS // 2 + 1)
    for (above, below), (name, (true, predicted)) in zip(panels.T, points.items(), strict=True):
        _density(above, (true, predicted), edges, edges)
        _density(below, (true, errors[name]), edges, close)
        diagonal(above)
        zero(below)
        _title(above, name, rmse.get(name, math.nan), "RMSE", "meV/Å")
        below.set_xlabel("label (eV/Å)")
        above.locator_params(nbins=4)
    panels[0, 0].set_ylabel("predicted (eV/Å)")
    panels[1, 0].set_ylabel("error (eV/Å)")
    figure.suptitle("Force components: predicted against labels, below it the error magnified")
    return figure


def _density(axes: Axes, points: tuple[Array, Array], x_edges: Array, y_edges: Array) -> None:
    """Darker where more points are, from one point to the fullest cell; says what is outside."""
    count = np.histogram2d(*points, bins=(x_edges, y_edges))[0]
    axes.pcolormesh(
        *(x_edges, y_edges, np.ma.masked_equal(count.T, 0)),
        norm=LogNorm(1, max(2.0, count.max())),
        cmap=LIGHT_TO_DARK,
        rasterized=True,
    )
    light_grid(axes)
    outside = len(points[0]) - int(count.sum())
    if outside:
        note_inside(axes, f"{outside:,} outside")


@house_style()
def energy_errors(metrics: Metrics, test: Structures) -> Figure | None:
    """Histogram of the energy error per atom of every model; None without predictions."""
    errors = {name: test.energy_errors(name) for name in test.energies}
    errors = {name: e[np.isfinite(e)] for name, e in errors.items() if np.isfinite(e).any()}
    if not errors:
        return None
    reach = _reach(errors)
    edges = np.linspace(-reach, reach, _BARS + 1)
    figure = new_figure(2.6)
    panels = _panels(figure, len(errors))
    mae = values(metrics, "energy_mae_mev_per_atom")
    for axes, (name, error) in zip(panels, errors.items(), strict=True):
        axes.hist(error, edges.tolist(), color=LOOKS[name][0])
        zero(axes, vertical=True)
        _title(axes, name, mae.get(name, math.nan), "MAE", "meV/atom")
        axes.set(xlabel="error (meV/atom)", xlim=(-reach, reach))
        light_grid(axes, "y")
        outside = int((np.abs(error) > reach).sum())
        if outside:
            mean = f"\n(mean {error.mean():+.0f} meV)" if outside > len(error) / 2 else ""
            note_inside(axes, f"{outside} of {len(error)} outside{mean}", "top")
    panels[0].set_ylabel("structures")
    panels[0].yaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.suptitle("Energy error per atom: predicted minus label")
    return figure


def _finite(true: Array, predicted: Array) -> Array:
    """``[2, n]`` pairs of which both are numbers."""
    both = np.stack([true, predicted])
    return both[:, np.isfinite(both).all(0)]


def _reach(errors: Mapping[str, Array]) -> float:
    """Half the width of the axis: of the specialised model and those that are not far worse.

    The untouched teacher may be far off (it knows nothing of the labels) and would squeeze
    the others into a line.
    """
    typical = {name: float(np.percentile(np.abs(e), 95)) for name, e in errors.items()}
    most = _FAR_OFF * typical.get("specialised", min(typical.values()))
    return 1.25 * max((t for t in typical.values() if 0 < t <= most), default=1.0)


def _panels(figure: Figure, number: int) -> Sequence[Axes]:
    return np.atleast_1d(figure.subplots(1, number, sharex=True, sharey=True)).tolist()


def _title(axes: Axes, name: str, error: float, what: str, unit: str) -> None:
    """The name of the model, and below it the error that the metrics state."""
    axes.set_title(LABELS[name], pad=17)
    text = f"{what} {significant(error)} {unit}"
    axes.text(0, 1.03, text, transform=axes.transAxes, fontsize=8.5)
