"""Forces and energies against the labels, one panel a model with the same axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from egnn_prune.report.common.files import Metrics
from egnn_prune.report.common.formatting import significant
from egnn_prune.report.common.plots import diagonal, limits_without_outliers, zero
from egnn_prune.report.common.style import BLUE, LOOKS, house_style, light_grid, new_figure
from egnn_prune.report.specialise.drawing import note_inside
from egnn_prune.report.specialise.files import FORCE_RMSE, LABELS, Structures, values

Array = NDArray[np.float64]

_BINS = 70
_BARS = 25
_FAR_OFF = 3.0
"""A model whose typical energy error is this many times the best one's does not set the axis."""
_DENSITY = LinearSegmentedColormap.from_list("density", ["#bcd9f0", BLUE, "#001d36"])
"""From light to dark, so that it reads without colour."""


@house_style()
def force_parity(metrics: Metrics, test: Structures) -> Figure | None:
    """Density of predicted against labelled force components; None without predictions."""
    found = {name: _finite(test.forces.ravel(), f.ravel()) for name, f in test.all_forces.items()}
    points = {name: both for name, both in found.items() if both.size}
    if not points:
        return None
    low, high = limits_without_outliers(np.concatenate([p.ravel() for p in points.values()]))
    edges = np.linspace(low, high, _BINS + 1)
    counts = {name: np.histogram2d(*both, bins=edges)[0] for name, both in points.items()}
    most = max(2.0, *(c.max() for c in counts.values()))
    figure = new_figure(2.95)
    panels = _panels(figure, len(points))
    for axes, (name, count) in zip(panels, counts.items(), strict=True):
        mesh = axes.pcolormesh(
            *(edges, edges, np.ma.masked_equal(count.T, 0)),
            norm=LogNorm(1, most),
            cmap=_DENSITY,
            rasterized=True,
        )
        diagonal(axes)
        _title(axes, name, values(metrics, FORCE_RMSE).get(name, math.nan), "RMSE", "meV/Å")
        axes.set(xlabel="label (eV/Å)", xlim=(low, high), ylim=(low, high), aspect="equal")
        light_grid(axes)
        outside = points[name].shape[1] - int(count.sum())
        if outside:
            note_inside(axes, f"{outside} outside")
    panels[0].set_ylabel("predicted (eV/Å)")
    figure.colorbar(mesh, ax=list(panels), label="components", shrink=0.85, pad=0.01)
    figure.suptitle("Force components: predicted against labels")
    return figure


@house_style()
def energy_errors(metrics: Metrics, test: Structures) -> Figure | None:
    """Histogram of the energy error per atom of every model; None without predictions."""
    errors = {name: test.energy_errors(name) for name in test.energies}
    errors = {name: e[np.isfinite(e)] for name, e in errors.items() if np.isfinite(e).any()}
    if not errors:
        return None
    reach = _energy_reach(errors)
    edges = np.linspace(-reach, reach, _BARS + 1)
    figure = new_figure(2.6)
    panels = _panels(figure, len(errors))
    mae = values(metrics, "energy_mae_mev_per_atom")
    for axes, (name, error) in zip(panels, errors.items(), strict=True):
        axes.hist(error, edges, color=LOOKS[name][0])
        zero(axes, vertical=True)
        _title(axes, name, mae.get(name, math.nan), "MAE", "meV/atom")
        axes.set(xlabel="error (meV/atom)", xlim=(-reach, reach))
        light_grid(axes, "y")
        outside = int((np.abs(error) > reach).sum())
        if outside:
            mean = f"\n(mean {error.mean():+.0f})" if outside > len(error) / 2 else ""
            note_inside(axes, f"{outside} of {len(error)} outside{mean}", "top")
    panels[0].set_ylabel("structures")
    figure.suptitle("Energy error per atom: predicted minus label")
    return figure


def _finite(true: Array, predicted: Array) -> Array:
    """``[2, n]`` pairs of which both are numbers."""
    both = np.stack([true, predicted])
    return both[:, np.isfinite(both).all(0)]


def _energy_reach(errors: Mapping[str, Array]) -> float:
    """Half the width of the axis: of the models that are about as good as the best one.

    The untouched teacher counts energies from another zero and would squeeze the others to a line.
    """
    typical = {name: float(np.percentile(np.abs(e), 95)) for name, e in errors.items()}
    best = min((t for t in typical.values() if t > 0), default=1.0)
    return 1.25 * max((t for t in typical.values() if 0 < t <= _FAR_OFF * best), default=1.0)


def _panels(figure: Figure, number: int) -> Sequence[Axes]:
    return np.atleast_1d(figure.subplots(1, number, sharex=True, sharey=True)).tolist()


def _title(axes: Axes, name: str, error: float, what: str, unit: str) -> None:
    """The name of the model, and below it the error that the metrics state."""
    axes.set_title(LABELS[name], pad=17)
    text = f"{what} {significant(error)} {unit}"
    axes.text(0, 1.03, text, transform=axes.transAxes, fontsize=8.5)
