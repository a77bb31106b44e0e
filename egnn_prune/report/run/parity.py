"""Parity plot: predicted against true, with the easy per-element part taken off."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from egnn_prune.errors import DataError
from egnn_prune.report.common.files import Metrics, Predictions, check_metrics, series
from egnn_prune.report.common.formatting import significant
from egnn_prune.report.common.intervals import point_key
from egnn_prune.report.common.plots import diagonal, limits_without_outliers
from egnn_prune.report.common.style import (
    GREY,
    SPLIT_COLOURS,
    SPLIT_LABELS,
    house_style,
    light_grid,
    new_figure,
)
from egnn_prune.report.common.wording import words
from egnn_prune.report.run.error_bars import COMPARED, splits_present

Array = NDArray[np.float64]


def _panel(axes: Axes, points: dict[str, tuple[Array, Array]], unit: str) -> None:
    """Draws one model and says how many points fall outside of the axes."""
    low, high = axes.get_xlim()
    outside = 0
    # OOD scatters more, so it goes first and does not cover the test points.
    for split, (true, predicted) in reversed(points.items()):
        error = np.abs(predicted - true)
        mae = float(np.mean(error[np.isfinite(error)])) if np.isfinite(error).any() else np.nan
        axes.scatter(
            true,
            predicted,
            s=11,
            color=SPLIT_COLOURS[split],
            alpha=0.55,
            linewidths=0,
            label=f"{SPLIT_LABELS[split]}, MAE {significant(mae)} {unit}",
            rasterized=True,
        )
        both = np.stack([true, predicted])
        outside += int(np.sum(((both < low) | (both > high)).any(axis=0)))
    diagonal(axes)
    axes.legend(
        loc="upper left", markerscale=1.8, handletextpad=0.2, borderaxespad=0.2, reverse=True
    )
    axes.set_aspect("equal")
    light_grid(axes)
    if outside:
        text = f"{outside} outside the axes"
        axes.text(0.98, 0.03, text, transform=axes.transAxes, ha="right", color=GREY, fontsize=8.5)


@house_style()
def parity(metrics: Metrics, predictions: Predictions) -> Figure:
    """Predicted against true for the dense and the pruned model, test and OOD.

    A per-element linear fit explains nearly all of an atomisation energy, and where a particle
    starts nearly all of where it ends: a plot of the raw values would look perfect for any model.
    Such a reference is subtracted from both axes when the run has it.

    Args:
        metrics: The content of ``metrics.json``.
        predictions: The arrays of ``predictions.npz`` in ``dataset.unit``.

    Returns:
        A figure with two axes of the same range: dense and pruned.

    Raises:
        DataError: If `metrics` is malformed or an array that is needed is missing.
    """
    check_metrics(metrics)
    unit = metrics["dataset"]["unit"]
    splits = splits_present(predictions)
    if "test" not in splits:
        raise DataError("predictions: array 'test_target' is missing or empty")
    subtract = all(f"{split}_reference" in predictions for split in splits)

    def points(name: str, split: str) -> tuple[Array, Array]:
        target = f"{split}_target"
        shift = series(predictions, f"{split}_reference", target) if subtract else 0.0
        mean = series(predictions, point_key(predictions, split, name), target)
        return series(predictions, target, target) - shift, mean - shift

    shown = {name: {split: points(name, split) for split in splits} for name in COMPARED}
    everything = np.concatenate([a for model in shown.values() for p in model.values() for a in p])
    limits = limits_without_outliers(everything[np.isfinite(everything)])
    quantity = str(metrics["dataset"].get("target") or "target").replace("_", " ")
    suffix = f"− reference ({unit})" if subtract else f"{quantity} ({unit})"
    figure = new_figure(height=4.7)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    panels[0].set(xlim=limits, ylim=limits, ylabel=f"predicted {suffix}")
    for axes, (name, model) in zip(panels, shown.items(), strict=True):
        _panel(axes, model, unit)
        axes.set_title(name)
        axes.set_xlabel(f"true {suffix}")
    note = f", {words(metrics).reference} subtracted" if subtract else ""
    figure.suptitle(f"Predicted against true {quantity}{note}")
    return figure
