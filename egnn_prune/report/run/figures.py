"""The figure that compares the models in error, calibration and cost; writing of all figures."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

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
from egnn_prune.report.common.intervals import point_key, with_intervals
from egnn_prune.report.common.plots import diagonal, model_bars, square
from egnn_prune.report.common.style import (
    MODEL_COLOURS,
    MODEL_MARKERS,
    SPLIT_LABELS,
    TITLE_CHARACTERS,
    house_style,
    light_grid,
    new_figure,
    png_bytes,
)
from egnn_prune.report.run.calibration import mae_half_interval, reliability
from egnn_prune.report.run.calibration_figure import calibration_figure
from egnn_prune.report.run.error_bars import error_bars, graphs_of, why_no_calibration
from egnn_prune.report.run.force_bars import has_force_bars
from egnn_prune.report.run.force_bars_figure import atom_errors_figure, force_calibration_figure
from egnn_prune.report.run.gallery import gallery_figure
from egnn_prune.report.run.parity import parity
from egnn_prune.report.run.tables import headline
from egnn_prune.report.run.training import load_curves, training_figure


def _error_panel(axes: Axes, metrics: Metrics, predictions: Predictions) -> None:
    models, names = metrics["models"], models_present(metrics)
    mae = {
        split: {name: number(models[name].get(f"{split}_mae")) for name in names}
        for split in SPLIT_LABELS
    }
    splits = [split for split in mae if any(map(math.isfinite, mae[split].values()))]
    model_bars(
        axes,
        [SPLIT_LABELS[split] for split in splits],
        {name: [mae[split][name] for split in splits] for name in names},
        {name: [significant(mae[split][name]) for split in splits] for name in names},
        {name: [_mae_half(metrics, predictions, s, name) for s in splits] for name in names},
    )
    axes.set_xlabel(f"MAE ({metrics['dataset']['unit']}), 95 % interval")
    axes.set_title("Error")


def _mae_half(metrics: Metrics, predictions: Predictions, split: str, name: str) -> float:
    if not has_split(predictions, split):
        return math.nan
    target = f"{split}_target"
    predicted = series(predictions, point_key(predictions, split, name), target)
    error = predicted - np.asarray(predictions[target])
    return mae_half_interval(error, graphs_of(metrics, predictions, split))


def _calibration_panel(axes: Axes, metrics: Metrics, predictions: Predictions) -> None:
    unit = metrics["dataset"]["unit"]
    drawn: list[np.ndarray] = []
    for name in models_present(metrics):
        bars = error_bars(predictions, "test", name)
        curve = reliability(bars.error, bars.std)
        if curve[0].size == 0:
            continue
        model = metrics["models"][name]
        rho = significant(number(model.get("spearman_error_uncertainty")), 2)
        label = f"Spearman {rho}, NLL {significant(number(model.get('nll')))}"
        axes.plot(*curve, color=MODEL_COLOURS[name], marker=MODEL_MARKERS[name], label=label)
        drawn += curve
    axes.set_title("Calibration, test")
    axes.set_xlabel(f"predicted standard deviation ({unit})")
    axes.set_ylabel(f"observed RMS error ({unit})")
    light_grid(axes)
    if not drawn:
        axes.text(0.5, 0.5, "no predicted\nuncertainty", ha="center", transform=axes.transAxes)
        return
    low, high, logarithmic = square([axes], np.concatenate(drawn))
    diagonal(axes, label="calibrated")
    # The head room above the lines is for the legend.
    axes.set_ylim(top=high * (high / low) ** 0.35 if logarithmic else 1.36 * high)
    axes.legend(loc="upper left", handlelength=1.6, borderaxespad=0.2, labelspacing=0.3)


def _cost_panel(axes: Axes, metrics: Metrics) -> None:
    models, names = metrics["models"], models_present(metrics)
    batch = number(models["dense"].get("latency_batch"))
    latency = f"latency\n(batch {batch:.0f})" if math.isfinite(batch) else "latency"
    shown = {"params": "parameters", "macs_per_graph": "MACs", "latency_ms": latency}
    keys = [key for key in shown if number(models["dense"].get(key)) > 0]
    cost = {name: {key: number(models[name].get(key)) for key in keys} for name in names}

    def text(key: str, value: float) -> str:
        return f"{significant(value)} ms" if key == "latency_ms" else si(value)

    model_bars(
        axes,
        [shown[key] for key in keys],
        {name: [cost[name][key] / cost["dense"][key] for key in keys] for name in names},
        {name: [text(key, cost[name][key]) for key in keys] for name in names},
    )
    if axes.get_xlim()[1] < 2.0:
        axes.set_xticks([0.0, 0.5, 1.0])
    axes.set_xlabel("relative to dense")
    axes.set_title("Cost")


@house_style()
def pruned_vs_baseline(metrics: Metrics, predictions: Predictions) -> Figure:
    """Compares the models in error, calibration and cost, side by side.

    Args:
        metrics: The content of ``metrics.json``; errors are in ``dataset.unit``.
        predictions: The arrays of ``predictions.npz`` in the same unit.

    Returns:
        A figure with three axes: error, calibration, cost.

    Raises:
        DataError: If `metrics` is malformed or an array that is needed is missing.
    """
    check_metrics(metrics)
    figure = new_figure(height=4.1)
    error, calibration, cost = figure.subplots(1, 3, width_ratios=(1.0, 1.15, 1.05))
    _error_panel(error, metrics, predictions)
    _calibration_panel(calibration, metrics, predictions)
    _cost_panel(cost, metrics)
    summary = headline(with_intervals(metrics, predictions), intervals=False)
    figure.suptitle(textwrap.fill(f"Pruned against dense: {summary}", TITLE_CHARACTERS))
    handles = [Patch(color=MODEL_COLOURS[name], label=name) for name in models_present(metrics)]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9.5)
    return figure


def write_figures(run: Path) -> dict[str, Path]:
    """Draws every figure of a run next to its data.

    Args:
        run: Folder with ``metrics.json`` and ``predictions.npz``.

    Returns:
        Path of each PNG by name: ``pruned_vs_baseline`` and ``parity``, and ``calibration``,
        ``force_calibration``, ``atom_errors``, ``gallery`` and ``training`` if the run has what
        they need.

    Raises:
        DataError: If a file of the run is malformed.
    """
    run = Path(run)
    metrics = load_metrics(run / "metrics.json")
    predictions = load_predictions(run / "predictions.npz")
    told = why_no_calibration(metrics, predictions) is None
    forces = has_force_bars(metrics, predictions)
    drawn: dict[str, Figure | None] = {  # in the order of the page
        "pruned_vs_baseline": pruned_vs_baseline(metrics, predictions),
        "parity": parity(metrics, predictions),
        "training": training_figure(metrics, load_curves(run)),
        "calibration": calibration_figure(metrics, predictions) if told else None,
        "force_calibration": force_calibration_figure(metrics, predictions) if forces else None,
        "atom_errors": atom_errors_figure(metrics, predictions) if forces else None,
        "gallery": gallery_figure(metrics, predictions),
    }
    return {
        name: write_atomic(run / f"{name}.png", png_bytes(figure))
        for name, figure in drawn.items()
        if figure is not None
    }
