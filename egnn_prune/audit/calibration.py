"""Whether error bars are as long as errors, of those that state them, where labels exist."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from egnn_prune.audit.observations import LABEL, A, B, Observations
from egnn_prune.uncertainty.metrics import regression_scores

Array = NDArray[np.float64]

#: Of atoms, by the length of their error bar, each of equal count.
BINS = 10


def calibration(seen: Observations) -> list[dict[str, Any]]:
    """Scores of error bars of forces and energies by who states them.

    Each has ``who``, ``quantity``, ``unit``, ``count``, ``rms_ratio`` (root mean square of error
    over error bar: 1 where true, above where they are too short), ``coverage_50`` ... (shares in
    central intervals), ``spearman`` of error and error bar, and ``bins``: root mean square error
    bar and error of parts of equal count.
    """
    found = []
    for who in (A, B):
        if LABEL in seen.forces and who in seen.forces_std:
            error = seen.force_errors(who)
            std = 1000 * np.repeat(seen.forces_std[who][:, None], 3, 1)
            found.append({"who": who, "quantity": "forces", "unit": "meV/Å", **_scores(error, std)})
        if LABEL in seen.energy and who in seen.energy_std:
            error, std = seen.energy[who] - seen.energy[LABEL], seen.energy_std[who]
            scores = _scores(1000 * error, 1000 * std)
            found.append({"who": who, "quantity": "energies", "unit": "meV", **scores})
    return [row for row in found if row["count"] > 1]


def _scores(error: Array, std: Array) -> dict[str, Any]:
    error, std = error.ravel(), std.ravel()
    usable = np.isfinite(std) & (std > 0)  # infinite where no training atom was of the element
    error, std = error[usable], std[usable]
    if len(error) < 2:
        return {"count": len(error)}
    scores = regression_scores(error, std**2, np.zeros(len(error)))
    parts = np.array_split(np.argsort(std, kind="stable"), min(BINS, len(std)))
    return {
        "count": len(error),
        "left_out": int((~usable).sum()),
        "rms_ratio": float(np.sqrt(np.mean((error / std) ** 2))),
        **{k: v for k, v in scores.items() if k.startswith("coverage")},
        "spearman": scores["spearman_error_uncertainty"],
        "miscalibration_area": scores["miscalibration_area"],
        "bins": [[_rms(std[p]), _rms(error[p])] for p in parts],
    }


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))
