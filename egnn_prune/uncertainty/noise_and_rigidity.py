"""Two error bars in one pass: the noise that a network states, and what it was not trained on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from torch import Tensor

from egnn_prune.errors import ConfigError
from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty.last_layer import LastLayer, PredictionRigidity


class NoiseAndRigidity(PredictionRigidity):
    r"""What the network says of its own errors, plus how unlike the training data x is (LLPR).

    A noise that was trained along knows which samples like the training ones are hard, and says
    nothing of what is unlike them; the rigidity of the last layer's features
    (:class:`PredictionRigidity`) is the other way round, and has no scale of its own. It gets the
    one at which both are equally large on the training graphs:

    .. math::
        \sigma^2(x) = \sigma^2_\text{own}(x) + \kappa\, \phi(x)^T \Sigma\, \phi(x), \qquad
        \kappa = \frac{\sum_b \sigma^2_\text{own}(x_b)}{\sum_b \phi_b^T \Sigma\, \phi_b}

    The rigidity is epistemic, and so is the spread of members where there are several; the noise
    that they state stays aleatoric. The sum is about twice too large, which a calibration mends:
    fit one. Sources: Nix and Weigend 1994; Bigi et al. 2024, Eq. 13.

    Args:
        network: one with :meth:`LinearOut.last_layer` that states a variance.
        prior_precision: as of :class:`PredictionRigidity`.
    """

    def fit(self, batches: Iterable[Any]) -> Self:
        r"""One pass over the training batches; :math:`\kappa` goes into the covariance.

        Raises:
            ConfigError: as of :class:`PredictionRigidity`, or the network states no variance.
        """
        information, own = self.gathered(batches)
        if not own > 0:
            raise ConfigError(
                "the network states no variance on the training batches that its rigidity could "
                "be compared with; use PredictionRigidity"
            )
        covariance = self.inverse(information)
        self.covariance = covariance * (own / (covariance * information).sum())
        return self

    def combined(self, prediction: Prediction, spread: Tensor) -> Prediction:
        """The network's prediction with both variances."""
        return LastLayer.combined(self, prediction, spread)
