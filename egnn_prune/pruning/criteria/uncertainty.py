"""Importance by what a channel does to the loss *and* to the error bar of each sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from egnn_prune.channels import ChannelGroup
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.criteria.batches import checked
from egnn_prune.pruning.criteria.context import Context
from egnn_prune.pruning.criteria.gate_passes import gate_gradients

#: What the predictive variance counts, where a loss counts 1.
WEIGHT = 1.0


def uncertainty(group: ChannelGroup, context: Context, weight: float = WEIGHT) -> Tensor:
    r"""Effect of removing a channel on the loss and on the predictive variance, ``[n]``.

    .. math::
        s_c &= \frac{a_c}{\bar a} + \lambda\, \frac{v_c}{\bar v}, \\
        a_c &= \frac1B \sum_b | \Delta_c L_b |, \qquad
        v_c = \frac1B \sum_b \max(0, -\Delta_c \log V_b)

    :math:`\Delta_c` is the change when channel c is removed, estimated to first order at the
    sample's own gates: :math:`\Delta_c f_b \approx -\partial f_b / \partial g_{bc}`, one backward
    pass of L and one of log V for all samples and channels together. The bars are means over *all*
    channels of the network, so that the two terms are of one size, groups keep their differences,
    and scores have no unit.

    The sign: a channel that *adds* variance, whose removal lowers V, is **kept**. Samples are
    selected because the model is unsure of them; a pruned model without that channel would be
    surer of just those, with no more reason. A channel whose removal *raises* the variance earns
    nothing for it: if the rise is unwarranted, a loss that contains the likelihood says so in the
    first term already; if it is warranted, it does no harm. Hence a maximum per sample, not an
    absolute value, and not a mean first, in which samples would cancel. The logarithm makes
    the change relative: a doubled error bar is as bad for a sure sample as for an unsure one.

    Source: ours. The first term is :func:`taylor` (Molchanov et al. 2017, Eq. 8). Against exact
    removal, channel by channel: ``scripts/check_importance.py``.

    Args:
        group: the channels.
        context: with batches, a loss and a variance.
        weight: :math:`\lambda`, at least 0; with 0 the order is that of :func:`taylor`.

    Raises:
        ConfigError: the group has no gate, or the context no data, no loss or no variance.
    """
    context.gate_of(group)
    loss = {name: -g.double() for name, g in context.gate_gradients.items()}
    return combined(loss, context.once(log_variance_changes), weight)[group.name]


def log_variance_changes(context: Context) -> dict[str, Tensor]:
    r"""First-order change of each sample's log variance when a channel goes.

    Returns:
        :math:`-\partial \log V_b / \partial g_{bc}` for each gated group, ``[samples, n]``.

    Raises:
        ConfigError: there is no data or variance, or a variance is not positive.
    """
    if context.variance is None:
        raise ConfigError(
            "the criterion uncertainty needs the predictive variance; pass variance=..., a "
            "function (model, batch) -> [samples], or take taylor"
        )
    variance: Callable = checked(context.variance, "variance")

    def log_variance(model: torch.nn.Module, batch: object) -> Tensor:
        value = variance(model, batch)
        if not bool((value > 0).all()):
            raise ConfigError(
                "a predictive variance is not positive, so it has no logarithm; use several "
                "members or samples, or a model with a variance output"
            )
        return value.log()

    gradients = gate_gradients(context.model, context.gates, context.data, log_variance)
    return {name: -g.double() for name, g in gradients.items()}


def combined(
    loss: dict[str, Tensor], log_variance: dict[str, Tensor], weight: float = WEIGHT
) -> dict[str, Tensor]:
    """The score of every group from changes on removal, estimated or exact.

    Args:
        loss: for each group ``[samples, n]``, the change of the loss.
        log_variance: the same for the logarithm of the predictive variance.
        weight: of the second.

    Returns:
        For each group ``[n]``.
    """
    if weight < 0:
        raise ConfigError(f"the weight of the variance is at least 0, not {weight}")
    harm = {name: change.abs().mean(0) for name, change in loss.items()}
    variance_drop = {name: (-change).clamp(min=0).mean(0) for name, change in log_variance.items()}

    def mean(parts: dict[str, Tensor]) -> Tensor:
        every = torch.cat(list(parts.values()))
        return every.mean().clamp(min=torch.finfo(every.dtype).tiny)

    by_loss, by_uncertainty = mean(harm), mean(variance_drop)
    return {
        name: harm[name] / by_loss + weight * variance_drop[name] / by_uncertainty for name in harm
    }
