"""A power law from predicted to observed variance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty.calibration.points import positive_variance
from egnn_prune.uncertainty.calibration.temperature import golden_section
from egnn_prune.uncertainty.calibration.variance import VarianceCalibration

#: Exponents that are tried; at 0 all error bars are equal, at 1 one factor scales all.
LARGEST_EXPONENT = 8.0
#: Share of the validation scores up to which the law holds as it was fitted.
KNOWN = 0.9


class PowerVariance(VarianceCalibration):
    r"""Variance by a power law, :math:`\sigma^2 \to e^a (\sigma^2)^b` with :math:`b \ge 0`.

    For a score that ranks errors and is no deviation, such as a distance in feature space: errors
    may grow faster or slower than it. a and b minimise the Gaussian negative log-likelihood of the
    validation errors; for a given b the best a is
    :math:`e^a = \tfrac1n \sum_i e_i^2 / \sigma_i^{2b}`, and what is left is convex in b. Beyond
    the largest tenth of the validation scores :math:`b \ge 1`: what is unlike them must not get
    shorter error bars than in proportion, however slowly errors grow among them.
    At b = 1 it is :class:`VarianceScaling` (Laves et al. 2020).
    """

    name = "power"
    fitted_names = ("log_factor", "exponent", "knee")
    log_factor: Tensor
    exponent: Tensor
    knee: Tensor

    def fit_residuals(self, error: Tensor, variance: Tensor) -> dict[str, Tensor]:
        """The law's logarithmic factor, its exponent, and where it bends, ``[1]`` each."""
        logs, squared = variance.log(), error.square()
        middle = logs.mean()
        centred = logs - middle  # of size 1: powers of them do not overflow

        def log_factor(b: float) -> Tensor:
            return (squared.log() - b * centred).logsumexp(0) - math.log(len(squared))

        exponent = golden_section(
            lambda b: float(log_factor(b)) + b * float(centred.mean()), 0.0, LARGEST_EXPONENT
        )
        return {
            "log_factor": (log_factor(exponent) - exponent * middle)[None],
            "exponent": torch.tensor([exponent], dtype=torch.float64),
            # not quantile(), which takes no more than 2^24 numbers
            "knee": logs.sort().values[math.ceil(KNOWN * (len(logs) - 1))][None],
        }

    def ratio(self, prediction: Prediction) -> Tensor:
        """The law over the variance, ``[...]``."""
        logs = positive_variance(prediction).log()
        return law_ratio(logs, *(self.fitted(name, logs) for name in self.fitted_names)).exp()


def law_ratio(logs: Tensor, log_factor: Tensor, exponent: Tensor, knee: Tensor) -> Tensor:
    """The logarithm of new over old variance, of the logarithms of old ones ``[n]``.

    The law's numbers are ``[1]``, or ``[n]`` where every point has a law of its own.
    """
    known = logs.minimum(knee)
    beyond = (exponent.clamp(min=1) - 1) * (logs - known)
    return log_factor + (exponent - 1) * known + beyond
