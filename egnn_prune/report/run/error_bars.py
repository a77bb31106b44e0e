"""Errors and error bars of a model on a split, before and after calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from egnn_prune.errors import DataError
from egnn_prune.report.common.files import Metrics, Predictions, has_split, number, series
from egnn_prune.report.common.wording import words

Array = NDArray[np.float64]

COMPARED = ("dense", "pruned")
"""The calibration page compares these two; a third model would make every panel a tangle."""


@dataclass(frozen=True)
class ErrorBars:
    """What one model predicts on one split, in the unit of the data set.

    Attributes:
        error: ``[n]`` prediction minus target.
        std: ``[n]`` predicted standard deviation as the method gives it.
        calibrated: ``[n]`` the same after calibration; None if the run has none.
    """

    error: Array
    std: Array
    calibrated: Array | None

    @property
    def final(self) -> Array:
        """The standard deviation that a user gets: calibrated where there is such."""
        return self.std if self.calibrated is None else self.calibrated


def error_bars(predictions: Predictions, split: str, name: str) -> ErrorBars:
    """Reads them from the arrays of ``predictions.npz``.

    Raises:
        DataError: If an array is missing or has the wrong length.
    """
    target = f"{split}_target"
    key = f"{split}_{name}_std_calibrated"
    return ErrorBars(
        error=series(predictions, f"{split}_{name}_mean", target)
        - series(predictions, target, target),
        std=series(predictions, f"{split}_{name}_std", target),
        calibrated=series(predictions, key, target) if key in predictions else None,
    )


def graphs_of(metrics: Metrics, predictions: Predictions, split: str) -> NDArray[np.int64] | None:
    """The graph of each number, ``[K]`` from 0; None where every graph has one number.

    Runs of positions from before ``{split}_graph`` was written have graphs of one size (N-body).

    Raises:
        DataError: If the array has the wrong length or is no numbering of graphs.
    """
    target, key = f"{split}_target", f"{split}_graph"
    if key in predictions:
        graph = series(predictions, key, target)
        if not ((graph >= 0) & (graph < graph.size) & (graph % 1 == 0)).all():
            raise DataError(f"predictions: {key!r} must number the graphs from 0")
        return graph.astype(np.int64)
    values, graphs = np.size(predictions[target]), number(metrics["dataset"].get(split))
    if not words(metrics).positions or not graphs > 0 or values % graphs:
        return None
    return np.repeat(np.arange(int(graphs)), values // int(graphs))


def splits_present(predictions: Predictions) -> list[str]:
    """Test, and OOD if the run has such graphs."""
    return [split for split in ("test", "ood") if has_split(predictions, split)]


def why_no_calibration(metrics: Metrics, predictions: Predictions) -> str | None:
    """One sentence if the run has nothing to draw a calibration section from, else None."""
    measured = any(
        np.isfinite(number(metrics["models"][name].get(key)))
        for name in COMPARED
        for key in ("ence", "ence_calibrated")
    )
    calibrated = any(key.endswith("_std_calibrated") for key in predictions)
    if not (measured or calibrated):
        return (
            "left out: this run was written before calibration was measured; "
            "run its evaluation again."
        )
    if not has_split(predictions, "test"):
        return "left out: the run has no test predictions."
    if not all((error_bars(predictions, "test", name).std > 0).any() for name in COMPARED):
        return "left out: the models of this run predict no error bars."
    return None
