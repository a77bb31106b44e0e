"""One factor for all variances that a few outliers cannot move far."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty.calibration.temperature import golden_section
from egnn_prune.uncertainty.calibration.variance import VarianceCalibration
from egnn_prune.uncertainty.metrics.likelihood import crps_terms

#: Standard deviations are multiplied by no less and no more than these.
RANGE = (1e-4, 1e4)


class RobustScaling(VarianceCalibration):
    r"""One factor s on all standard deviations, the minimum of the mean CRPS on validation.

    .. math:: s = \arg\min_s \tfrac1n \sum_i \text{CRPS}(\mathcal N(\mu_i, s^2 \sigma_i^2), y_i) .

    A single validation error of eleven standard deviations adds 121 / n to the factor of
    :class:`VarianceScaling`; with a few hundred points that alone makes every error bar too wide.
    The CRPS grows linearly with an error, so such a point counts for eleven, not for 121. For
    Gaussian errors both have the same minimum. Source of the score: Gneiting and Raftery 2007,
    Section 4.2; of heavy tails as the weakness of the likelihood: their Section 4.1.

    The minimum is found in log s on a grid and then by golden-section search, in float64.
    """

    name = "robust"
    fitted_names = ("factor",)
    factor: Tensor

    def fit_residuals(self, error: Tensor, variance: Tensor) -> dict[str, Tensor]:
        """The factor on the variance, ``[1]``."""

        def score(log_s: Tensor) -> Tensor:
            scaled = variance * (2 * log_s[:, None]).exp()
            return crps_terms(torch.zeros_like(error), scaled, error).mean(1)

        grid = torch.linspace(math.log(RANGE[0]), math.log(RANGE[1]), 185, dtype=error.dtype)
        best = int(score(grid).argmin())
        low, high = (float(grid[i]) for i in (max(best - 1, 0), min(best + 1, len(grid) - 1)))
        log_s = golden_section(lambda x: float(score(grid.new_tensor([x]))), low, high)
        return {"factor": grid.new_tensor([2 * log_s]).exp()}

    def ratio(self, prediction: Prediction) -> Tensor:
        """The factor, ``[1]``."""
        return self.fitted("factor", prediction.mean)
