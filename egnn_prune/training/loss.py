"""What is minimised, one number per graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from egnn_prune.errors import ConfigError
from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty.metrics import crps_terms, nll_terms

#: Weight of the likelihood term that trains the variance.
VARIANCE_WEIGHT = 0.1
#: Error (in units of the target's scale) below which the loss is quadratic.
HUBER_BETA = 0.1


def graph_losses(model: nn.Module, batch: Any) -> Tensor:
    r"""Loss of every graph, averaged over the members, ``[B]``.

    .. math::
        L_b = \frac1M \sum_m \text{Huber}_\beta(\mu_{mb} - y_b)
            + \frac\lambda2 \left[ \log \sigma^2_{mb}
            + \frac{(\bar\mu_{mb} - y_b)^2}{\sigma^2_{mb}} \right]

    with the target normalised. In the second term the mean :math:`\bar\mu` is detached: the
    likelihood fits the variance to the errors and does not trade the mean's accuracy for it.
    Source: Stirn et al. 2023 ("faithful" heteroscedastic regression), Eq. 5.

    Raises:
        ConfigError: the model is none of this package's predictors.
        DataError: a graph has no target.
    """
    means, variances, y = normalised_outputs(model, batch)
    y = y.expand_as(means)
    error = F.smooth_l1_loss(means, y, beta=HUBER_BETA, reduction="none")
    likelihood = 0.5 * (variances.log() + (means.detach() - y).square() / variances)
    return (error + VARIANCE_WEIGHT * likelihood).mean(0)


def nll_losses(model: nn.Module, batch: Any) -> Tensor:
    r"""Negative log-likelihood of the *pooled* members, ``[B]``: trains a shallow ensemble.

    .. math::
        L_b = \tfrac12 \left[\log 2 \pi \sigma_b^2 + (y_b - \mu_b)^2 / \sigma_b^2\right]

    with mean and total variance of :class:`~egnn_prune.prediction.Prediction`, the target
    normalised. Members trained for themselves agree where they should not; this loss tells them
    how far to disagree. Source: Kellner and Ceriotti 2024, Eq. 7.

    Raises:
        ConfigError: the model is none of this package's predictors.
        DataError: a graph has no target.
    """
    return nll_terms(*_pooled(model, batch))


def crps_losses(model: nn.Module, batch: Any) -> Tensor:
    r"""Continuous ranked probability score of the pooled members, ``[B]``.

    .. math::
        L_b = \sigma_b \left[ z\,(2 \Phi(z) - 1) + 2 \varphi(z) - 1/\sqrt\pi \right],
        \qquad z = (y_b - \mu_b) / \sigma_b

    Like :func:`nll_losses`, but it grows linearly with an error, as the absolute error does, so
    outliers cannot dominate it. Source: Gneiting et al. 2005, Eq. 5.

    Raises:
        ConfigError: the model is none of this package's predictors.
        DataError: a graph has no target.
    """
    return crps_terms(*_pooled(model, batch))


#: Training losses by the names that ``training.loss`` takes.
LOSSES: dict[str, Callable[[nn.Module, Any], Tensor]] = {
    "faithful": graph_losses,
    "nll": nll_losses,
    "crps": crps_losses,
}


def normalised_outputs(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Members' means and variances ``[M, B]`` and targets ``[B]``, in units of the scale."""
    if not hasattr(model, "normalised"):
        raise ConfigError(
            f"{type(model).__name__} has no training loss of its own; pass loss=..., a function "
            "(model, batch) -> [samples]"
        )
    means, variances = model.normalised(batch)  # type: ignore[operator]
    return means, variances, model.normalise(batch, getattr(batch, "y", None))  # type: ignore[operator]


def _pooled(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
    means, variances, y = normalised_outputs(model, batch)
    pooled = Prediction.from_members(means, variances)
    return pooled.mean, pooled.variance, y
