"""Importance by the first-order effect of a channel on each sample's loss."""

from __future__ import annotations

from torch import Tensor

from egnn_prune.channels import ChannelGroup
from egnn_prune.pruning.criteria.context import Context


def taylor(group: ChannelGroup, context: Context) -> Tensor:
    r"""Mean over samples of the absolute gate gradient, ``[n]``.

    .. math:: s_c = \frac1B \sum_b \left| \frac{\partial L_b}{\partial g_{bc}} \right|

    The absolute value is taken per sample: in a sum over the batch, gradients of opposite sign
    cancel (near a minimum of the training loss they cancel almost completely), and what is left
    ranks channels badly. All groups are measured in units of the loss, so they compare as they
    are. Source: Molchanov et al. 2017, Eq. 8 (gates: Molchanov et al. 2019).

    Raises:
        ConfigError: the group has no gate, or the context no data and loss.
    """
    context.gate_of(group)
    return context.gate_gradients[group.name].double().abs().mean(0)
