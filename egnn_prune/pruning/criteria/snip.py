"""Importance by how sensitive the loss is to the connections of a channel."""

from __future__ import annotations

from torch import Tensor

from egnn_prune.channels import ChannelGroup
from egnn_prune.pruning.criteria.channel_sums import group_sums
from egnn_prune.pruning.criteria.context import Context
from egnn_prune.pruning.criteria.weight_passes import weight_gradients
from egnn_prune.pruning.tensors import get_tensor


def snip(group: ChannelGroup, context: Context) -> Tensor:
    r"""Absolute weight times gradient, summed over a channel's weights: ``[n]``.

    .. math:: s_c = \sum_{w \in c} \left| w\, \frac{\partial L}{\partial w} \right|

    with L the mean loss over all samples. The unit is the loss, the same in every group. Source:
    Lee et al. 2019, Eqs. 5 and 6 (connection sensitivity; there for single weights, and divided by
    the sum over the network, which changes no order).

    Raises:
        ConfigError: the context has no data and loss.
    """
    return group_sums(group, context.model, context.once(connection_sensitivity))


def connection_sensitivity(context: Context) -> dict[str, Tensor]:
    r""":math:`|w\, \partial L / \partial w|` of every parameter, by name."""
    gradients = weight_gradients(context.model, *context.data_and_loss)
    return {
        name: (get_tensor(context.model, name).detach() * gradient).abs()
        for name, gradient in gradients.items()
    }
