"""One factor for all variances that a few outliers cannot move far."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from egnn_prune.errors import InputError
from egnn_prune.uncertainty.calibration.temperature import golden_section
from egnn_prune.uncertainty.calibration.variance import VarianceScaling
from egnn_prune.uncertainty.metrics.likelihood import crps_terms

#: Steps of the grid in log s, and the most points that it may have.
STEP, MOST_POINTS = 0.1, 2000


class RobustScaling(VarianceScaling):
    r"""One factor s on all standard deviations, the minimum of the mean CRPS on validation.

    .. math:: s = \arg\min_s \tfrac1n \sum_i \text{CRPS}(\mathcal N(\mu_i, s^2 \sigma_i^2), y_i) .

    A single validation error of eleven standard deviations adds 121 / n to the factor of
    :class:`VarianceScaling`; with a few hundred points that alone makes every error bar too wide.
    The CRPS grows linearly with an error, so such a point counts for eleven, not for 121. For
    Gaussian errors both have the same minimum. Source of the score: Gneiting and Raftery 2007,
    Section 4.2; of heavy tails as the weakness of the likelihood: their Section 4.1.

    Each point's score is convex in s and least at :math:`s = 1.2\,|y_i - \mu_i| / \sigma_i`, so the
    minimum lies between the smallest and the largest of these, whatever the unit and however wrong
    the stated deviations are. It is found in log s on a grid between them and then by
    golden-section search, in float64. Errors of exactly zero pull towards s = 0: with them the grid
    goes on downwards until the score rises; where it never does, because too many are zero, no
    factor is best.
    """

    name = "robust"

    def fit_residuals(self, error: Tensor, variance: Tensor) -> dict[str, Tensor]:
        """The factor on the variance, ``[1]``.

        Raises:
            InputError: so many errors are exactly zero that the score is least at s = 0.
        """
        std, zero = variance.sqrt(), error == 0
        # the slope at s = 0, times sqrt(pi): -std of each error, and this of each that is zero
        if float((std / std.max() * torch.where(zero, math.sqrt(2) - 1, -1.0)).sum()) >= 0:
            raise InputError(
                f"{int(zero.sum())} of {len(error)} validation errors are exactly zero, so that no "
                "factor above zero is best; calibrate on other data, or with the method variance"
            )
        # in units of the middle error and the middle deviation, so that no product can overflow
        size, width = error[error != 0].abs().median(), std.median()
        error, std = error / size, std / width

        def score(log_s: float) -> float:
            scaled = (std * math.exp(log_s)).square()
            return float(crps_terms(torch.zeros_like(error), scaled, error).mean())

        logs = (error[error != 0].abs() / std[error != 0]).log() + math.log(1.2)
        low, high = float(logs.min()) - STEP, float(logs.max()) + STEP
        if bool(zero.any()):
            longest = high - STEP * MOST_POINTS
            while low > longest and score(low) <= score(low + STEP):
                low -= STEP
        points = min(math.ceil((high - low) / STEP) + 1, MOST_POINTS)
        grid = torch.linspace(low, high, points, dtype=torch.float64).tolist()
        best = min(range(1, points - 1), key=[score(x) for x in grid].__getitem__)
        log_s = golden_section(score, grid[best - 1], grid[best + 1])
        return {"factor": (math.exp(log_s) * size / width).square()[None]}
