"""Reliability of predicted standard deviations, the numbers behind the calibration panel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def reliability(error: Array, std: Array, bins: int = 8) -> tuple[Array, Array]:
    """Bins molecules by predicted standard deviation, with equal counts per bin.

    Both values are root mean squares: a calibrated model has E[error^2] = E[std^2] in each bin.

    Args:
        error: Prediction minus target, any unit.
        std: Predicted standard deviation in the same unit.
        bins: Bins asked for; fewer are used so that each holds at least five molecules.

    Returns:
        Predicted and observed root mean square per bin, in the unit of the input, ordered by
        prediction. Empty if no molecule has a finite error and a positive std.
    """
    usable = np.isfinite(error) & np.isfinite(std) & (std > 0)
    error, std = error[usable], std[usable]
    if error.size == 0:
        return np.empty(0), np.empty(0)
    # A stable sort makes the bins independent of the platform when many stds are equal.
    order = np.argsort(std, kind="stable")
    parts = np.array_split(order, max(1, min(bins, error.size // 5)))
    predicted = np.array([np.sqrt(np.mean(std[part] ** 2)) for part in parts])
    observed = np.array([np.sqrt(np.mean(error[part] ** 2)) for part in parts])
    return predicted, observed


def mae_half_interval(error: Array) -> float:
    """Half width of the 95 % interval of the MAE over molecules (normal approximation)."""
    if error.size < 2:
        return float("nan")
    return float(1.96 * np.std(np.abs(error), ddof=1) / np.sqrt(error.size))
