"""Calibrations of a regression that rescale its variances, and the simplest: one factor."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from egnn_prune.errors import InputError
from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty.arrays import Numbers
from egnn_prune.uncertainty.calibration.base import Calibration
from egnn_prune.uncertainty.calibration.points import regression, residuals
from egnn_prune.uncertainty.estimator import Predicted


class VarianceCalibration(Calibration):
    """Base of the calibrations that multiply each variance by a ratio that depends on it.

    Subclasses say what they fit (:meth:`fit_residuals`) and the ratio (:meth:`ratio`).
    """

    def fit(self, prediction: Predicted, y: Numbers) -> Self:
        """Fit on a validation prediction; see :meth:`Calibration.fit`."""
        error, variance = residuals(prediction, y)
        stated = regression(prediction)
        self.store(stated.mean, **self.fit_residuals(error, variance))
        with torch.no_grad():
            found = self(stated).variance
        if not bool((found.isfinite() & (found > 0)).all()):
            raise InputError(
                f"the validation errors are so far from the stated deviations (median "
                f"{float(error.abs().median()):.3g} against {float(variance.sqrt().median()):.3g}) "
                f"that {str(stated.mean.dtype)[6:]} cannot hold a factor between them; train a "
                "model that states deviations of the size of its errors"
            )
        return self

    def fit_residuals(self, error: Tensor, variance: Tensor) -> dict[str, Tensor]:
        """The buffers for validation errors and total variances, each ``[n]`` in float64."""
        raise NotImplementedError

    def ratio(self, prediction: Prediction) -> Tensor:
        """New over old variance, ``[...]`` or ``[1]``, without a unit."""
        raise NotImplementedError

    def forward(self, prediction: Predicted) -> Predicted:
        """The prediction with rescaled variances and the same mean."""
        prediction = regression(prediction)
        return rescaled(prediction, self.ratio(prediction))


def rescaled(prediction: Prediction, ratio: Tensor) -> Prediction:
    r"""Every error bar times :math:`\sqrt r`, about the same mean.

    .. math::
        \sigma^2_\text{aleatoric} \to r \sigma^2_\text{aleatoric}, \quad
        \sigma^2_\text{epistemic} \to r \sigma^2_\text{epistemic}, \quad
        \mu_m \to \mu + \sqrt r (\mu_m - \mu), \quad
        \sigma_m^2 \to r \sigma_m^2 .

    So the parts still follow from the members, and their shares of the total do not change:
    errors alone cannot tell which of the two was stated wrongly.

    Args:
        prediction: shapes ``[...]`` and ``[M, ...]``.
        ratio: ``[...]`` or ``[1]``, not negative.
    """
    spread = prediction.members - prediction.mean
    return replace(
        prediction,
        aleatoric=ratio * prediction.aleatoric,
        epistemic=ratio * prediction.epistemic,
        members=prediction.mean + ratio.sqrt() * spread,
        member_variance=ratio * prediction.member_variance,
    )


class VarianceScaling(VarianceCalibration):
    r"""One factor for all variances.

    .. math:: s^2 = \tfrac1n \sum_i (y_i - \mu_i)^2 / \sigma_i^2 .

    The minimum of the Gaussian negative log-likelihood in closed form, so that on the validation
    set the mean squared normalised error is 1 afterwards and the likelihood never falls. Ratios of
    variances, and thus every ranking by uncertainty, stay as they are. Source: Laves et al. 2020
    (sigma scaling), Levi et al. 2022.
    """

    name = "variance"
    fitted_names: ClassVar[tuple[str, ...]] = ("factor",)
    factor: Tensor

    def fit_residuals(self, error: Tensor, variance: Tensor) -> dict[str, Tensor]:
        """The mean squared normalised error, ``[1]``."""
        return {"factor": (error.square() / variance).mean()}

    def ratio(self, prediction: Prediction) -> Tensor:
        """The factor, ``[1]``."""
        return self.fitted("factor", prediction.mean)
