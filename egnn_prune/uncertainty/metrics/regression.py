"""All scores of Gaussian predictions at once."""

from __future__ import annotations

from egnn_prune.uncertainty.arrays import Numbers
from egnn_prune.uncertainty.metrics.checks import gaussian
from egnn_prune.uncertainty.metrics.coverage import (
    interval_coverage,
    miscalibration_area,
    rms_calibration,
)
from egnn_prune.uncertainty.metrics.likelihood import crps, nll
from egnn_prune.uncertainty.metrics.sparsification import ause
from egnn_prune.uncertainty.metrics.spread import ence, sharpness, spearman

COVERAGE_LEVELS = (0.5, 0.8, 0.9, 0.95)


def regression_scores(mean: Numbers, variance: Numbers, target: Numbers) -> dict[str, float]:
    """What ``metrics.json`` says about error bars.

    ``crps`` and ``sharpness`` are in the unit of the target, ``nll`` in nats, the others without
    unit; each is defined in the function of its name.

    Raises:
        InputError: there are fewer than two samples, or one cannot be scored (see
            ``checked_gaussian``).
    """
    means, variances, targets = gaussian(mean, variance, target)
    data = (means.detach(), variances.detach(), targets.detach())
    scores = {
        "nll": nll(*data),
        "crps": crps(*data),
        "ence": ence(*data),
        "miscalibration_area": miscalibration_area(*data),
        "rms_calibration": rms_calibration(*data),
        "sharpness": sharpness(*data),
        **{f"coverage_{100 * p:.0f}": interval_coverage(*data, p) for p in COVERAGE_LEVELS},
        "spearman_error_uncertainty": spearman(*data),
        "ause": ause(*data),
    }
    return {name: float(value) for name, value in scores.items()}
