"""The figure that compares the models in error, calibration and cost; writing of all figures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from egnn_prune.report.common.files import (
    Metrics,
    Predictions,
    check_metrics,
    has_split,
    load_metrics,
    load_predictions,
    models_present,
    number,
    series,
    write_atomic,
)
from egnn_prune.report.common.formatting import si, significant
from egnn_prune.report.common.intervals import point_key
from egnn_prune.report.common.style import (
    GREY,
    MODEL_COLOURS,
    MODEL_MARKERS,
    SPLIT_LABELS,
    house_style,
    light_grid,
    new_figure,
    png_bytes,
)
from egnn_prune.report.run.calibration import mae_half_interval, reliability
from egnn_prune.report.run.calibration_figure import calibration_figure
from egnn_prune.report.run.error_bars import graphs_of, why_no_calibration
from egnn_prune.report.run.gallery import gallery_figure
from egnn_prune.report.run.scatter import parity
from egnn_prune.report.run.tables import headline
from egnn_prune.report.run.training import load_curves, training_figure

_WIDE_RANGE = 5.0
"""Ratio of largest to smallest value from which the calibration axes are logarithmic."""


def _grouped_bars(
    axes: Axes,
    groups: list[str],
    values: dict[str, list[float]],
    texts: dict[str, list[str]],
    errors: dict[str, list[float]] | None = None,
) -> None:
    """Draws horizontal bars, one group per entry of `groups` and one bar per model in it.

    Horizontal bars leave room to write the number behind each bar at a readable size.
    """
    names = list(values)
    height = 0.8 / len(names)
    extents = []
    for i, name in enumerate(names):
        for j, value in enumerate(values[name]):
            if not math.isfinite(value):
                continue
            y = j + (i - (len(names) - 1) / 2) * height
            axes.barh(y, value, height=0.9 * height, color=MODEL_COLOURS[name])
            error = errors[name][j] if errors else math.nan
            end = value
            if math.isfinite(error):
                axes.errorbar(value, y, xerr=error, color="black", linewidth=1, capsize=2)
                end += error
            axes.annotate(
                texts[name][j],
                (end, y),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
            )
            extents.append(end)
    axes.set_yticks(range(len(groups)), groups)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlim(0, 1.35 * max(extents, default=1.0))
    light_grid(axes, "x")


def _error_panel(axes: Axes, metrics: Metrics, predictions: Predictions) -> None:
    unit = metrics["dataset"]["unit"]
    models = metrics["models"]
    names = models_present(metrics)
    splits = [
        split
        for split in ("test", "ood")
        if any(math.isfinite(number(models[name].get(f"{split}_mae"))) for name in names)
    ]
    values = {
        name: [number(models[name].get(f"{split}_mae")) for split in splits] for name in names
    }
    texts = {name: [significant(value) for value in values[name]] for name in names}
    errors = {
        name: [_mae_spread(metrics, predictions, split, name) for split in splits] for name in names
    }
    _grouped_bars(axes, [SPLIT_LABELS[split] for split in splits], values, texts, errors)
    axes.set_xlabel(f"MAE ({unit}), 95 % interval")
    axes.set_title("Error")


def _mae_spread(metrics: Metrics, predictions: Predictions, split: str, name: str) -> float:
    if not has_split(predictions, split):
        return math.nan
    target = f"{split}_target"
    return mae_half_interval(
        series(predictions, point_key(predictions, split, name), target)
        - np.asarray(predictions[target]),
        graphs_of(metrics, predictions, split),
    )


def _calibration_panel(axes: Axes, metrics: Metrics, predictions: Predictions) -> None:
    unit = metrics["dataset"]["unit"]
    drawn = []
    for name in models_present(metrics):
        error = series(predictions, f"test_{name}_mean", "test_target") - np.asarray(
            predictions["test_target"]
        )
        std = series(predictions, f"test_{name}_std", "test_target")
        predicted, observed = reliability(error, std)
        if predicted.size == 0:
            continue
        model = metrics["models"][name]
        rho = significant(number(model.get("spearman_error_uncertainty")), 2)
        nll = significant(number(model.get("nll")))
        axes.plot(
            predicted,
            observed,
            color=MODEL_COLOURS[name],
            marker=MODEL_MARKERS[name],
            label=f"Spearman {rho}, NLL {nll}",
        )
        drawn.append(np.concatenate([predicted, observed]))
    axes.set_title("Calibration, test")
    axes.set_xlabel(f"predicted standard deviation ({unit})")
    axes.set_ylabel(f"observed RMS error ({unit})")
    light_grid(axes)
    if not drawn:
        axes.text(0.5, 0.5, "no predicted\nuncertainty", ha="center", transform=axes.transAxes)
        return
    points = np.concatenate(drawn)
    low, high = float(points.min()), float(points.max())
    if low > 0 and high / low >= _WIDE_RANGE:
        # The head room above the lines is for the legend.
        limits, top = (low / 1.3, high * 1.3), high * 1.3 * (high / low) ** 0.35
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(lambda value, _position: f"{value:g}")
            axis.set_minor_formatter(NullFormatter())
    else:
        limits, top = (0.0, 1.1 * high), 1.5 * high
    axes.plot(limits, limits, color=GREY, linestyle="--", linewidth=1, label="calibrated")
    axes.set_xlim(*limits)
    axes.set_ylim(limits[0], top)
    axes.legend(loc="upper left", handlelength=1.6, borderaxespad=0.2, labelspacing=0.3)


def _cost_panel(axes: Axes, metrics: Metrics) -> None:
    models = metrics["models"]
    names = models_present(metrics)
    batch = number(models["dense"].get("latency_batch"))
    latency = f"latency\n(batch {batch:.0f})" if math.isfinite(batch) else "latency"
    shown = {"params": "parameters", "macs_per_graph": "MACs", "latency_ms": latency}
    keys = [key for key in shown if number(models["dense"].get(key)) > 0]
    values = {
        name: [number(models[name].get(key)) / number(models["dense"].get(key)) for key in keys]
        for name in names
    }
    texts = {
        name: [
            f"{significant(number(models[name].get(key)))} ms"
            if key == "latency_ms"
            else si(number(models[name].get(key)))
            for key in keys
        ]
        for name in names
    }
    _grouped_bars(axes, [shown[key] for key in keys], values, texts)
    if axes.get_xlim()[1] < 2.0:
        axes.set_xticks([0.0, 0.5, 1.0])
    axes.set_xlabel("relative to dense")
    axes.set_title("Cost")


def pruned_vs_baseline(metrics: Metrics, predictions: Predictions) -> Figure:
    """Compares the models in error, calibration and cost, side by side.

    Args:
        metrics: The content of ``metrics.json``; errors are in ``dataset.unit``.
        predictions: The arrays of ``predictions.npz`` in the same unit.

    Returns:
        A figure with three axes: error, calibration, cost.

    Raises:
        ValueError: If `metrics` is malformed or an array that is needed is missing.
    """
    check_metrics(metrics)
    with house_style():
        figure = new_figure(height=4.1)
        error, calibration, cost = figure.subplots(1, 3, width_ratios=(1.0, 1.15, 1.05))
        _error_panel(error, metrics, predictions)
        _calibration_panel(calibration, metrics, predictions)
        _cost_panel(cost, metrics)
        figure.suptitle(f"Pruned against dense: {headline(metrics, intervals=False)}")
        handles = [Patch(color=MODEL_COLOURS[name], label=name) for name in models_present(metrics)]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9.5)
    return figure


def write_figures(run: Path) -> dict[str, Path]:
    """Draws every figure of a run next to its data.

    Args:
        run: Folder with ``metrics.json`` and ``predictions.npz``.

    Returns:
        Path of each PNG by name: ``pruned_vs_baseline`` and ``parity``, and ``calibration``,
        ``gallery`` and ``training`` if the run has what they need.

    Raises:
        ValueError: If a file of the run is malformed.
    """
    run = Path(run)
    metrics = load_metrics(run / "metrics.json")
    predictions = load_predictions(run / "predictions.npz")
    drawn: dict[str, Figure | None] = {
        "pruned_vs_baseline": pruned_vs_baseline(metrics, predictions),
        "parity": parity(metrics, predictions),
        "gallery": gallery_figure(metrics, predictions),
        "training": training_figure(metrics, load_curves(run)),
    }
    if why_no_calibration(metrics, predictions) is None:
        drawn["calibration"] = calibration_figure(metrics, predictions)
    return {
        name: write_atomic(run / f"{name}.png", png_bytes(figure))
        for name, figure in drawn.items()
        if figure is not None
    }
