"""Small multiples of calibration of forces: three views of the error bars, test above OOD."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from egnn_prune.report.common.files import Metrics, Predictions
from egnn_prune.report.common.plots import diagonal, square
from egnn_prune.report.common.style import SPLIT_LABELS, house_style, light_grid, new_figure
from egnn_prune.report.run.calibration import reliability, sparsification
from egnn_prune.report.run.calibration_panels import (
    REFERENCE,
    draw_curves,
    style_legend,
    write_numbers,
)
from egnn_prune.report.run.error_bars import COMPARED
from egnn_prune.report.run.force_bars import (
    coverages,
    final_coverages,
    force_bars_of,
    force_halves,
    thinned,
)
from egnn_prune.report.run.force_panels import atom_errors, held_against_promised

PREFIXES = {"test": "force_", "ood": "ood_force_"}
"""Of the keys in ``metrics.json``, by split."""


@house_style()
def force_calibration_figure(metrics: Metrics, predictions: Predictions) -> Figure | None:
    """Size, coverage and ranking of error bars of forces; a row per split.

    Sizes and ranks are of atoms, shares of components. Intervals of calibrated error bars are not
    those of a Gaussian, so the shares are the ones that ``metrics.json`` states.

    Args:
        metrics: The checked content of ``metrics.json``.
        predictions: The arrays of ``predictions.npz`` in ``dataset.unit``.

    Returns:
        A figure with three axes per split; None if the run has no error bars of forces.

    Raises:
        DataError: If arrays do not fit together.
    """
    unit, models = f"{metrics['dataset']['unit']}/Å", metrics["models"]
    found = force_bars_of(predictions)
    if not found:
        return None
    bars = {split: {n: each.atoms for n, each in one.items()} for split, one in found.items()}
    figure = new_figure(height=1.3 + 2.55 * len(bars))
    grid = figure.subplots(len(bars), 3, squeeze=False, sharex="col", sharey="col")
    for row, split in zip(grid, bars, strict=True):
        prefix = PREFIXES[split]
        diagonal(row[0], "-")
        row[2].axhline(1, **REFERENCE)
        write_numbers(row[0], metrics, f"{prefix}ence", "ENCE", "lower right")
        shown = {name: models[name] for name in COMPARED}
        halves = {
            name: force_halves(found[split][name])
            for name in COMPARED
            if final_coverages(models[name], prefix)
        }
        held_against_promised(row[1], shown, prefix, halves)
        if not any(coverages(model, prefix) for model in shown.values()):
            row[1].text(0.5, 0.5, "not measured", ha="center", transform=row[1].transAxes)
        write_numbers(
            *(row[2], metrics, f"{prefix}spearman_atoms", "Spearman of atoms", "lower left")
        )
        names = (f"RMS error ({unit})", "observed share (%)", "RMSE left (relative)")
        for axes, name in zip(row, names, strict=True):
            axes.set_ylabel(f"{SPLIT_LABELS[split]}: {name}")
            light_grid(axes)
    points = draw_curves(grid[:, 0], bars, reliability, markers=True)
    square(grid[:, 0], np.concatenate([values for curve in points for values in curve]))
    curves = draw_curves(
        grid[:, 2], bars, lambda e, std: thinned(sparsification(e, std)), oracles=COMPARED
    )
    top = max(1.2, *(1.05 * left[out <= 0.9].max(initial=1.0) for out, left in curves))
    grid[0, 2].set(xlim=(0, 0.9), ylim=(0, top), xticks=(0, 0.3, 0.6, 0.9), yticks=(0, 0.5, 1))
    heads = (
        ("Are the error bars of forces\nas long as the errors?", f"predicted std ({unit})"),
        ("Do intervals hold the truth\nas often as they say?", "promised share (%)"),
        ("Are the uncertain atoms\nthe wrong ones?", "most uncertain taken out (share)"),
    )
    for column, (title, label) in zip(grid.T, heads, strict=True):
        column[0].set_title(title)
        column[-1].set_xlabel(label)
    every = [each for models in bars.values() for each in models.values()]
    calibrated = any(each.calibrated is not None for each in every)
    style_legend(figure, {name: name for name in COMPARED}, calibrated)
    return figure


def atom_errors_figure(metrics: Metrics, predictions: Predictions) -> Figure | None:
    """Errors of single atoms of the test split against their error bars; None without these."""
    found = force_bars_of(predictions).get("test")
    if found is None:
        return None
    return atom_errors(found, {name: name for name in found}, f"{metrics['dataset']['unit']}/Å")
