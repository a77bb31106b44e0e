"""What is minimised, one number per graph."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from egnn_prune.errors import ConfigError

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
    if not hasattr(model, "normalised"):
        raise ConfigError(
            f"{type(model).__name__} has no training loss of its own; pass loss=..., a function "
            "(model, batch) -> [samples]"
        )
    means, variances = model.normalised(batch)  # type: ignore[operator]
    y = model.normalise(batch, getattr(batch, "y", None)).expand_as(means)  # type: ignore[operator]
    error = F.smooth_l1_loss(means, y, beta=HUBER_BETA, reduction="none")
    likelihood = 0.5 * (variances.log() + (means.detach() - y).square() / variances)
    return (error + VARIANCE_WEIGHT * likelihood).mean(0)
