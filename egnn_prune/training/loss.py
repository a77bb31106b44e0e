"""What is minimised, one number per graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.utils import scatter

from egnn_prune.errors import ConfigError
from egnn_prune.graphs import graph_of_node, graph_pointer
from egnn_prune.prediction import Prediction, Predictor
from egnn_prune.uncertainty.metrics import crps_terms, nll_terms

#: From members' means and variances ``[M, ...]`` and targets ``[...]`` to losses ``[...]``.
Terms = Callable[[Tensor, Tensor, Tensor], Tensor]

#: Weight of the likelihood term that trains the variance.
VARIANCE_WEIGHT = 0.1
#: Error (in units of the target's scale) below which the loss is quadratic.
HUBER_BETA = 0.1


def faithful_terms(means: Tensor, variances: Tensor, y: Tensor) -> Tensor:
    """The terms of :func:`graph_losses`, members' ``[M, ...]`` and ``[...]`` -> ``[...]``."""
    y = y.expand_as(means)
    error = F.smooth_l1_loss(means, y, beta=HUBER_BETA, reduction="none")
    return (error + VARIANCE_WEIGHT * likelihood_terms(means, variances, y)).mean(0)


def squared_terms(means: Tensor, variances: Tensor, y: Tensor) -> Tensor:
    """The terms of :func:`squared_losses`, members' ``[M, ...]`` and ``[...]`` -> ``[...]``."""
    y = y.expand_as(means)
    error = (means - y).square()
    return (error + VARIANCE_WEIGHT * likelihood_terms(means, variances, y)).mean(0)


def pooled_nll_terms(means: Tensor, variances: Tensor, y: Tensor) -> Tensor:
    """The terms of :func:`nll_losses`, members' ``[M, ...]`` and ``[...]`` -> ``[...]``."""
    pooled = Prediction.from_members(means, variances)
    return nll_terms(pooled.mean, pooled.variance, y)


def pooled_crps_terms(means: Tensor, variances: Tensor, y: Tensor) -> Tensor:
    """The terms of :func:`crps_losses`, members' ``[M, ...]`` and ``[...]`` -> ``[...]``."""
    pooled = Prediction.from_members(means, variances)
    return crps_terms(pooled.mean, pooled.variance, y)


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
    return _losses(faithful_terms, model, batch)


def squared_losses(model: nn.Module, batch: Any) -> Tensor:
    r"""Like :func:`graph_losses` with the squared error in place of Huber's, ``[B]``.

    For benchmarks that are judged by the mean squared error, where large errors weigh most.

    Raises:
        ConfigError: the model is none of this package's predictors.
        DataError: a graph has no target.
    """
    return _losses(squared_terms, model, batch)


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
    return _losses(pooled_nll_terms, model, batch)


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
    return _losses(pooled_crps_terms, model, batch)


#: Training losses by the names that ``training.loss`` takes.
LOSSES: dict[str, Callable[[nn.Module, Any], Tensor]] = {
    "faithful": graph_losses,
    "squared": squared_losses,
    "nll": nll_losses,
    "crps": crps_losses,
}


def normalised_outputs(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Members' means and variances ``[M, ...]`` and targets ``[...]``, in units of the scale."""
    if not hasattr(model, "normalised"):
        raise ConfigError(
            f"{type(model).__name__} has no training loss of its own; pass loss=..., a function "
            "(model, batch) -> [samples]"
        )
    network = cast(Predictor, model)
    means, variances = network.normalised(batch)
    return means, variances, network.normalise(batch, getattr(batch, "y", None))


def per_graph(values: Tensor, batch: Any) -> Tensor:
    """Means over the nodes and components of each graph, ``[N, n] -> [B]``.

    Values ``[B]`` stay as they are, and so do single values of nodes.
    """
    if values.dim() == 1:
        return values
    graphs = graph_pointer(batch).shape[0] - 1
    return scatter(values.mean(1), graph_of_node(batch), dim=0, dim_size=graphs, reduce="mean")


def weighted(losses: Tensor, batch: Any) -> Tensor:
    r"""Losses ``[B]`` times the weights of the graphs, where the batch has ``config_weight [B]``.

    A step minimises the plain mean of the products over the B graphs of its batch,

    .. math:: L = \frac1B \sum_b w_b L_b ,

    and not over :math:`\sum_b w_b`: so a graph of weight 2 counts as two copies do, whichever
    graphs are drawn beside it, and the expectation over batches is the mean over the data (as in
    MACE, Batatia et al. 2022). Weights of mean 1 leave the size of the steps as it is. What
    follows a loss follows its weights: importance of channels, selection by loss. Errors do not.
    """
    weights = getattr(batch, "config_weight", None)
    return losses if weights is None else losses * weights.to(losses.dtype)


def _losses(terms: Terms, model: nn.Module, batch: Any) -> Tensor:
    return weighted(per_graph(terms(*normalised_outputs(model, batch)), batch), batch)


def likelihood_terms(means: Tensor, variances: Tensor, y: Tensor) -> Tensor:
    """What trains the variances and leaves the means alone."""
    return 0.5 * (variances.log() + (means.detach() - y).square() / variances)
