"""Last-layer uncertainty: Bayesian linear regression on a trained network's features."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol, Self, cast

import torch
from torch import Tensor, nn

from egnn_prune.channels import evaluating
from egnn_prune.errors import ConfigError
from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty.estimator import Estimator

#: Steps of the evidence's fixed point; it settles in about ten.
EVIDENCE_STEPS = 50
#: Share of the mean eigenvalue that :class:`PredictionRigidity` adds to all of them.
RIDGE = 1e-6


class LinearOut(Protocol):
    """A network whose mean is linear in features that one pass also returns."""

    def last_layer(self, batch: Any) -> tuple[Tensor, Prediction]:
        """Features ``[B, features]`` and the prediction."""
        ...

    def last_layer_weights(self) -> Tensor:
        """``[features]``."""
        ...


def linear_out(network: nn.Module) -> LinearOut:
    """The network, typed by what last-layer methods need of it.

    Raises:
        ConfigError: it has no linear last layer.
    """
    if not hasattr(network, "last_layer"):
        raise ConfigError(
            f"{type(network).__name__} does not say what its last layer reads; last-layer "
            "uncertainty needs a network with last_layer(batch), such as a PropertyModel, or one "
            "of your own in egnn_prune.adapters.OwnRegressor"
        )
    return cast(LinearOut, network)


class LastLayer(Estimator):
    r"""Laplace approximation of the last layer, in closed form and without retraining.

    With features :math:`\phi_b`, trained weights w and the noise variances :math:`\sigma_b^2` that
    the network itself states on the training graphs, the weights' posterior is Gaussian,

    .. math::
        \Sigma = \Bigl( \alpha I + \sum_b \phi_b \phi_b^T / \sigma_b^2 \Bigr)^{-1}, \qquad
        \sigma^2_\text{epistemic}(x) = \phi(x)^T \Sigma\, \phi(x),

    which for a linear model with Gaussian noise is exact Bayesian regression (Bishop 2006, Eqs.
    3.53-3.59). The prior precision :math:`\alpha` maximises the evidence unless it is given
    (MacKay 1992): :math:`\alpha = \gamma / |w|^2`, :math:`\gamma = \sum_i \lambda_i / (\lambda_i
    + \alpha)`. Costs one pass and a product of features; up to the noise model it is the
    prediction rigidity LLPR of Bigi et al. 2024. Source: Daxberger et al. 2021.

    Args:
        network: one with :meth:`LinearOut.last_layer`, such as a PropertyModel.
        prior_precision: :math:`\alpha`; ``None`` for the evidence's.

    Raises:
        ConfigError: the network has no linear last layer, or the precision is not positive.
    """

    covariance: Tensor

    def __init__(self, network: nn.Module, prior_precision: float | None = None) -> None:
        super().__init__(network)
        linear_out(network)
        if prior_precision is not None and not prior_precision > 0:
            raise ConfigError(f"prior_precision must be positive, not {prior_precision}")
        self.prior_precision = prior_precision
        self.register_buffer("covariance", torch.zeros(0, 0, dtype=torch.float64))

    def fit(self, batches: Iterable[Any]) -> Self:
        """The posterior of the weights, from one pass over the training batches.

        Raises:
            ConfigError: there are no batches, or a feature or noise variance is not finite.
        """
        self.covariance = self.inverse(self.gathered(batches)[0])
        return self

    def gathered(self, batches: Iterable[Any]) -> tuple[Tensor, float]:
        r"""One pass over the training batches.

        Returns:
            The information :math:`\sum_b \phi_b \phi_b^T / \sigma_b^2`, ``[features, features]``,
            and the sum over the graphs of the variance that the network states.
        """
        weights = linear_out(self.network).last_layer_weights().detach().double()
        information, own = weights.new_zeros(len(weights), len(weights)), 0.0
        with torch.no_grad(), evaluating(self):
            for batch in batches:
                features, prediction = linear_out(self.network).last_layer(batch)
                information += features.T @ (features / self.noise(prediction)[:, None])
                own += float(prediction.variance.sum())
        if not bool(torch.isfinite(information).all()) or not bool(information.any()):
            raise ConfigError(
                "last-layer uncertainty is fitted on training batches; there are none, or the "
                "network's features on them are NaN, infinite or zero, or it states no noise of "
                "its own (PredictionRigidity does without)"
            )
        return information, own

    def inverse(self, information: Tensor) -> Tensor:
        """The covariance of the weights, with the prior."""
        weights = linear_out(self.network).last_layer_weights().detach().double()
        values, vectors = torch.linalg.eigh(information)
        values = values.clamp(min=0)
        precision = self.prior_precision or self.best_precision(values, weights)
        return (vectors / (values + precision)) @ vectors.T

    def estimate(self, batch: Any) -> Prediction:
        """One pass; the epistemic variance is that of the weights, plus the members' own."""
        if self.covariance.numel() == 0:
            raise ConfigError("fit last-layer uncertainty on training batches before predicting")
        features, prediction = linear_out(self.network).last_layer(batch)
        covariance = self.covariance.to(features)
        # not an einsum of three: opt_einsum, where it is installed, makes sizes numbers, and
        # torch.export then cannot leave the number of graphs free
        spread = (features @ covariance * features).sum(1)
        return self.combined(prediction, spread.clamp(min=0))

    def best_precision(self, eigenvalues: Tensor, weights: Tensor) -> float:
        """The prior precision where none was asked for; see :func:`evidence_precision`."""
        return evidence_precision(eigenvalues, weights)

    def noise(self, prediction: Prediction) -> Tensor:
        """The noise variance of each training graph, ``[B]``."""
        return prediction.aleatoric

    def combined(self, prediction: Prediction, spread: Tensor) -> Prediction:
        """The network's own prediction with the variance ``spread [B]`` that the weights cause."""
        return replace(prediction, epistemic=prediction.epistemic + spread)

    def settings(self) -> dict[str, Any]:
        """The prior precision that was asked for."""
        return {"prior_precision": self.prior_precision}


class PredictionRigidity(LastLayer):
    r"""LLPR (Bigi et al. 2024, Eq. 13): only the last layer's geometry says how sure the model is.

    .. math::
        \sigma^2(x) = \phi(x)^T \Bigl( \alpha I + \sum_b \phi_b \phi_b^T \Bigr)^{-1} \phi(x)

    What the network states as its noise is not used, so a network without a variance output will
    do. The scale is arbitrary; the paper fits it on validation, as
    :class:`~egnn_prune.uncertainty.VarianceScaling` does: calibrate before you read the numbers.
    :math:`\alpha` only keeps the inverse stable: by default a millionth of the mean eigenvalue, so
    that the ranking does not depend on the target's unit.
    """

    def best_precision(self, eigenvalues: Tensor, weights: Tensor) -> float:
        """:data:`RIDGE` of the mean eigenvalue."""
        return RIDGE * float(eigenvalues.mean())

    def noise(self, prediction: Prediction) -> Tensor:
        """The same for all graphs."""
        return torch.ones_like(prediction.mean)

    def combined(self, prediction: Prediction, spread: Tensor) -> Prediction:
        """The weights' variance alone."""
        nothing = torch.zeros_like(spread)
        own = torch.zeros_like(prediction.member_variance)
        return replace(prediction, aleatoric=nothing, epistemic=spread, member_variance=own)


def evidence_precision(eigenvalues: Tensor, weights: Tensor) -> float:
    r"""The prior precision that maximises the evidence, by MacKay's fixed point.

    Args:
        eigenvalues: ``[features]``, of the information :math:`\sum \phi \phi^T / \sigma^2`.
        weights: ``[features]``, the trained ones.
    """
    square = float(weights.square().sum())
    if square == 0:
        raise ConfigError("the last layer's weights are all zero; train the network first")
    precision = len(weights) / square
    for _ in range(EVIDENCE_STEPS):
        precision = float((eigenvalues / (eigenvalues + precision)).sum()) / square
    return max(precision, 1e-12)
