"""Parity plot: predicted against true, with the easy per-element part taken off."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from egnn_prune.report.common.files import Metrics, Predictions, check_metrics, has_split, series
from egnn_prune.report.common.formatting import significant
from egnn_prune.report.common.intervals import point_key
from egnn_prune.report.common.style import (
    GREY,
    SPLIT_COLOURS,
    SPLIT_LABELS,
    house_style,
    light_grid,
    new_figure,
)
from egnn_prune.report.common.wording import words

Array = NDArray[np.float64]

_TAIL = 0.3
"""Percent of points at each end that may set the axis range only if they are not far out."""


def _limits(values: Array) -> tuple[float, float]:
    """Axis range that holds every point unless a few are so far out that they hide the rest."""
    if values.size == 0:
        return -1.0, 1.0
    low, high = np.percentile(values, [_TAIL, 100 - _TAIL])
    margin = 0.25 * (high - low) or 1.0
    low, high = max(low - margin, values.min()), min(high + margin, values.max())
    pad = 0.04 * (high - low) or 1.0
    return float(low - pad), float(high + pad)


def _panel(axes: Axes, name: str, points: dict[str, tuple[Array, Array]], unit: str) -> int:
    """Draws one model and returns how many points fall outside of the axes."""
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
    axes.plot([low, high], [low, high], color=GREY, linestyle="--", linewidth=1)
    axes.set_title(name)
    axes.legend(
        loc="upper left", markerscale=1.8, handletextpad=0.2, borderaxespad=0.2, reverse=True
    )
    light_grid(axes)
    return outside


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
        ValueError: If `metrics` is malformed or an array that is needed is missing.
    """
    check_metrics(metrics)
    unit = metrics["dataset"]["unit"]
    splits = [split for split in ("test", "ood") if has_split(predictions, split)]
    if "test" not in splits:
        raise ValueError("predictions: array 'test_target' is missing or empty")
    subtract = all(f"{split}_reference" in predictions for split in splits)
    points: dict[str, dict[str, tuple[Array, Array]]] = {}
    for name in ("dense", "pruned"):
        points[name] = {}
        for split in splits:
            target = f"{split}_target"
            true = series(predictions, target, target)
            shift = series(predictions, f"{split}_reference", target) if subtract else 0.0
            mean = series(predictions, point_key(predictions, split, name), target)
            points[name][split] = (true - shift, mean - shift)
    arrays = [array for model in points.values() for pair in model.values() for array in pair]
    everything = np.concatenate(arrays)
    limits = _limits(everything[np.isfinite(everything)])
    quantity = str(metrics["dataset"].get("target") or "target").replace("_", " ")
    with house_style():
        figure = new_figure(height=4.7)
        axes = figure.subplots(1, 2, sharex=True, sharey=True)
        axes[0].set(xlim=limits, ylim=limits)
        suffix = f"− reference ({unit})" if subtract else f"{quantity} ({unit})"
        outside = [
            _panel(panel, name, points[name], unit)
            for panel, name in zip(axes, points, strict=True)
        ]
        for panel, count in zip(axes, outside, strict=True):
            panel.set_aspect("equal")
            panel.set_xlabel(f"true {suffix}")
            if count:
                panel.annotate(
                    f"{count} outside the axes",
                    (0.98, 0.03),
                    xycoords="axes fraction",
                    ha="right",
                    color=GREY,
                    fontsize=8.5,
                )
        axes[0].set_ylabel(f"predicted {suffix}")
        note = f", {words(metrics).reference} subtracted" if subtract else ""
        figure.suptitle(f"Predicted against true {quantity}{note}")
    return figure
