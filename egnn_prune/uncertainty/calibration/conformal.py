"""Split-conformal intervals: a stated coverage without assuming a distribution."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

from torch import Tensor

from egnn_prune.errors import InputError
from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty.calibration.base import checked_coverage
from egnn_prune.uncertainty.calibration.points import positive_variance, regression
from egnn_prune.uncertainty.calibration.variance import VarianceCalibration
from egnn_prune.uncertainty.estimator import Predicted


class SplitConformal(VarianceCalibration):
    r"""Intervals :math:`\mu \mp q \sigma` from the validation scores :math:`|y - \mu| / \sigma`.

    q is the :math:`\lceil (n + 1) c \rceil`-th smallest of the n scores. If validation and new
    points are exchangeable, a new interval covers its target with probability at least c and at
    most :math:`c + 1 / (n + 1)`, whatever the noise and however wrong the model. On average over
    points, that is: not for each molecule, and not out of distribution. Components of one force
    and atoms of one molecule are not exchangeable with one another one by one; coverage then holds
    for the share of components, without the bound for finite n.

    All scores are kept, so that one fit serves every coverage. As a calibrated prediction it
    gives the Gaussian whose interval at :attr:`coverage` is the conformal one,
    :math:`\sigma \to \sigma q / z_{(1+c)/2}`. Source: Lei et al. 2018, Section 5.2; Angelopoulos
    and Bates 2021, Section 2.3.

    Args:
        coverage: c, the stated share of targets inside, in (0, 1).

    Raises:
        ConfigError: ``coverage`` is out of range.
    """

    name = "conformal"
    fitted_names = ("scores",)
    scores: Tensor

    def __init__(self, coverage: float = 0.9) -> None:
        super().__init__()
        self.coverage = checked_coverage(coverage)

    def fit_residuals(self, error: Tensor, variance: Tensor) -> dict[str, Tensor]:
        """The sorted scores ``[n]``; refuses too few points for :attr:`coverage`."""
        conformal_rank(len(error), self.coverage)
        return {"scores": (error.abs() / variance.sqrt()).sort().values}

    def quantile(self, coverage: float, like: Tensor) -> Tensor:
        """The score ``[]`` that bounds the stated share of new points."""
        scores = self.fitted("scores", like)
        return scores[conformal_rank(len(scores), coverage) - 1]

    def ratio(self, prediction: Prediction) -> Tensor:
        """Squared conformal over Gaussian half width at :attr:`coverage`, ``[]``."""
        z = NormalDist().inv_cdf((1 + self.coverage) / 2)
        return (self.quantile(self.coverage, prediction.mean) / z).square()

    def interval(
        self, prediction: Predicted, coverage: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """The conformal interval at any coverage; see :meth:`Calibration.interval`.

        Raises:
            InputError: there were too few validation points for this coverage.
        """
        prediction = regression(prediction)
        q = self.quantile(self.checked_coverage(coverage), prediction.mean)
        half = q * positive_variance(prediction).sqrt()
        return prediction.mean - half, prediction.mean + half

    def settings(self) -> dict[str, Any]:
        """The stated coverage."""
        return {"coverage": self.coverage}


def conformal_rank(n: int, coverage: float) -> int:
    r"""The rank :math:`\lceil (n + 1) c \rceil`, from 1, of the score that bounds coverage c.

    Raises:
        InputError: it is above n: no score of so few points can promise the coverage.
    """
    # The small number keeps products such as 100 * 0.55 = 55.000000000000007 at their rank.
    rank = math.ceil((n + 1) * coverage - 1e-9)
    if rank > n:
        needed = math.ceil(coverage / (1 - coverage) - 1e-9)
        raise InputError(
            f"intervals of coverage {coverage:g} need at least {needed} validation targets, not "
            f"{n}; use more or ask for less coverage"
        )
    return rank
