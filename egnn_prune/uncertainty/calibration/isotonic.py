"""Calibrated quantiles: which nominal level is in truth the level that was asked for."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from egnn_prune.errors import InputError
from egnn_prune.uncertainty.calibration.points import positive_variance, regression
from egnn_prune.uncertainty.calibration.variance import VarianceScaling
from egnn_prune.uncertainty.estimator import Predicted


class IsotonicQuantiles(VarianceScaling):
    r"""Isotonic calibration of the predicted distribution function (Kuleshov et al. 2018).

    The predicted levels of the validation targets, :math:`p_i = \Phi((y_i - \mu_i) / \sigma_i)`,
    would be uniform if the Gaussians were true. The map R sends a nominal level to the observed
    share of targets below it, and :math:`R \circ \Phi` is the calibrated distribution function
    (Algorithm 1 there; the empirical distribution function is monotone, hence its own isotonic
    regression). The i-th smallest of n levels is observed with frequency i / (n + 1), which is
    exact on average over exchangeable points, where i / n would put none above the largest. R is
    linear in between in terms of the quantile :math:`\Phi^{-1}(p)` rather than of p, which far out
    rounds to 0 or 1.

    Intervals run between the calibrated quantiles (1-c)/2 and (1+c)/2, so they need not be
    symmetric. As a calibrated prediction it gives the Gaussian of the same mean and the same
    second moment about it as the calibrated distribution, which is :class:`VarianceScaling`: a
    Gaussian cannot hold more, and shifting the mean would change a model's accuracy as well.
    """

    name = "isotonic"
    fitted_names = ("factor", "quantiles")
    quantiles: Tensor

    def fit_residuals(self, error: Tensor, variance: Tensor) -> dict[str, Tensor]:
        """Additionally the sorted normalised errors, ``[n]``."""
        quantiles = (error / variance.sqrt()).sort().values
        return super().fit_residuals(error, variance) | {"quantiles": quantiles}

    def observed(self, level: Tensor) -> Tensor:
        """The map R: observed for nominal levels in (0, 1), ``[...]``, in [1/(n+1), n/(n+1)]."""
        knots = self.fitted("quantiles", level)
        z = torch.special.ndtri(level).clamp(knots[0], knots[-1])
        right = torch.searchsorted(knots, z).clamp(1, len(knots) - 1)
        width = (knots[right] - knots[right - 1]).clamp(min=torch.finfo(knots.dtype).tiny)
        share = (z - knots[right - 1]) / width
        return (right + share) / (len(knots) + 1)

    def interval(
        self, prediction: Predicted, coverage: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Between two calibrated quantiles; see :meth:`Calibration.interval`.

        Raises:
            InputError: there were too few validation points for this coverage.
        """
        prediction, coverage = regression(prediction), self.checked_coverage(coverage)
        knots = self.fitted("quantiles", prediction.mean)
        needed = math.ceil(2 / (1 - coverage) - 1 - 1e-9)
        if len(knots) < needed:
            raise InputError(
                f"isotonic intervals of coverage {coverage:g} need at least {needed} validation "
                f"targets, not {len(knots)}; use more or ask for less coverage"
            )
        sigma = positive_variance(prediction).sqrt()
        return (
            prediction.mean + calibrated_quantile(knots, (1 - coverage) / 2) * sigma,
            prediction.mean + calibrated_quantile(knots, (1 + coverage) / 2) * sigma,
        )


def calibrated_quantile(knots: Tensor, level: float) -> Tensor:
    """The normalised error ``[]`` below which the share ``level`` lies: the inverse of R.

    Args:
        knots: ``[n]`` ascending; the i-th from 1 has the level i / (n + 1).
        level: in [1/(n+1), n/(n+1)].
    """
    place = (len(knots) + 1) * level - 1  # counted from 0
    left = min(max(math.floor(place), 0), len(knots) - 2)
    return torch.lerp(knots[left], knots[left + 1], place - left)
