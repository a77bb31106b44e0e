"""Two kinds of doubt in one pass: read-outs that disagree, and features nobody trained on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from torch import Tensor

from egnn_prune.errors import ConfigError
from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty.last_layer import LastLayer, PredictionRigidity


class SpreadAndRigidity(PredictionRigidity):
    r"""A shallow ensemble whose epistemic variance also says how unlike the training data x is.

    The members' spread ranks errors among samples like the training ones, and hardly notices what
    is unlike them, because the read-outs see the same features; the rigidity of those features
    (:class:`PredictionRigidity`, LLPR) notices, and ranks errors worse. Their variances are added,
    as of independent mistakes, each as large as the other on the training graphs:

    .. math::
        \sigma^2_\text{epistemic}(x) = s^2(x) + \kappa\, \phi(x)^T \Sigma\, \phi(x), \qquad
        \kappa = \frac{\sum_b s^2(x_b)}{\sum_b \phi_b^T \Sigma\, \phi_b}

    with the spread :math:`s^2` of the members. Noise that they state is kept as it is. The scale of
    the whole is the members', and a calibration mends it. Sources: Kellner and Ceriotti 2024; Bigi
    et al. 2024, Eq. 13.

    Args:
        network: one with :meth:`LinearOut.last_layer` and several members.
        prior_precision: as of :class:`PredictionRigidity`.
    """

    def fit(self, batches: Iterable[Any]) -> Self:
        r"""One pass over the training batches; :math:`\kappa` goes into the covariance.

        Raises:
            ConfigError: as of :class:`PredictionRigidity`, or no members disagree on them.
        """
        information, spread = self.gathered(batches)
        if spread == 0:
            raise ConfigError(
                "there are no members whose spread could be compared with the rigidity; give the "
                "network several read-outs (members=5), or use PredictionRigidity"
            )
        covariance = self.inverse(information)
        self.covariance = covariance * (spread / (covariance * information).sum())
        return self

    def combined(self, prediction: Prediction, spread: Tensor) -> Prediction:
        """The members' prediction with both variances."""
        return LastLayer.combined(self, prediction, spread)
