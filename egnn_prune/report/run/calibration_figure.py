"""Small multiples of calibration: three views of the error bars, test above OOD."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from egnn_prune.report.common.files import Metrics, Predictions
from egnn_prune.report.common.plots import diagonal, square
from egnn_prune.report.common.style import SPLIT_LABELS, house_style, light_grid, new_figure
from egnn_prune.report.run.calibration import LEVELS, coverage, reliability, sparsification
from egnn_prune.report.run.calibration_panels import (
    REFERENCE,
    draw_curves,
    style_legend,
    write_numbers,
)
from egnn_prune.report.run.error_bars import COMPARED, error_bars, splits_present


@house_style()
def calibration_figure(metrics: Metrics, predictions: Predictions) -> Figure:
    """Reliability, coverage and sparsification of dense and pruned; a row per split.

    Rows share their axes, so that what happens out of distribution is seen by looking down.

    Args:
        metrics: The checked content of ``metrics.json``.
        predictions: The arrays of ``predictions.npz`` in ``dataset.unit``.

    Returns:
        A figure with three axes per split.

    Raises:
        DataError: If an array is missing or has the wrong length.
    """
    unit = metrics["dataset"]["unit"]
    bars = {
        split: {name: error_bars(predictions, split, name) for name in COMPARED}
        for split in splits_present(predictions)
    }
    figure = new_figure(height=1.3 + 2.55 * len(bars))
    grid = figure.subplots(len(bars), 3, squeeze=False, sharex="col", sharey="col")
    for row, split in zip(grid, bars, strict=True):
        diagonal(row[0], "-")
        diagonal(row[1], "-")
        row[2].axhline(1, **REFERENCE)
        prefix = "" if split == "test" else "ood_"
        write_numbers(row[0], metrics, f"{prefix}ence", "ENCE", "lower right")
        area = f"{prefix}miscalibration_area"
        write_numbers(row[1], metrics, area, "miscalibration area", "upper left")
        if split == "test":
            write_numbers(row[2], metrics, "ause", "AUSE", "lower left")
        names = (f"RMS error ({unit})", "observed share", "RMSE left (relative)")
        for axes, name in zip(row, names, strict=True):
            axes.set_ylabel(f"{SPLIT_LABELS[split]}: {name}")
            light_grid(axes)
    points = draw_curves(grid[:, 0], bars, reliability, markers=True)
    square(grid[:, 0], np.concatenate([values for curve in points for values in curve]))
    draw_curves(grid[:, 1], bars, lambda error, std: (LEVELS, coverage(error, std)))
    grid[0, 1].set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 0.9), yticks=(0, 0.5, 0.9))
    curves = draw_curves(grid[:, 2], bars, sparsification, oracles=COMPARED)
    # Above 1 where the uncertain molecules are the good ones. A handful of molecules is left on the
    # right, where the curve is noise.
    top = max(1.2, *(1.05 * left[out <= 0.9].max(initial=1.0) for out, left in curves))
    grid[0, 2].set(xlim=(0, 0.9), ylim=(0, top), xticks=(0, 0.3, 0.6, 0.9), yticks=(0, 0.5, 1))
    heads = (
        ("Are the error bars as long\nas the errors?", f"predicted std ({unit})"),
        ("Do intervals hold the truth\nas often as they say?", "stated share of the interval"),
        ("Are the uncertain ones\nthe wrong ones?", "most uncertain taken out (share)"),
    )
    for column, (title, label) in zip(grid.T, heads, strict=True):
        column[0].set_title(title)
        column[-1].set_xlabel(label)
    every = [each for models in bars.values() for each in models.values()]
    calibrated = any(each.calibrated is not None for each in every)
    style_legend(figure, {name: name for name in COMPARED}, calibrated)
    return figure
