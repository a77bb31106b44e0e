"""Importance by the weights that read a channel times what they read."""

from __future__ import annotations

import torch
from torch import Tensor

from egnn_prune.channels import ChannelGroup
from egnn_prune.pruning.criteria.activation_norm import channel_rms
from egnn_prune.pruning.criteria.channel_sums import member_sums, relative
from egnn_prune.pruning.criteria.context import Context
from egnn_prune.pruning.tensors import weight_members


@torch.no_grad()
def wanda(group: ChannelGroup, context: Context) -> Tensor:
    r"""Absolute weights that read a channel, times its size at the gate: ``[n]``.

    .. math:: s_c = \frac{u_c}{\bar u}, \qquad u_c = \|x_c\| \sum_{w \text{ reads } c} |w|

    with :math:`\|x_c\|` the root mean square at the gate: the paper's norm over the square root
    of the number of rows, a constant within a group. The paper compares weights within one output
    only; channels are compared within their group's mean. A group that no weight reads (no member
    with ``reads=True``) is what the network returns: it is read as it is, with weight 1. Source:
    Sun et al. 2024, Eq. 1 (there for single weights).

    Raises:
        ConfigError: the group has no gate, or the context no data.
    """
    context.gate_of(group)
    size = context.once(channel_rms)[group.name]
    readers = [(m, t) for m, t in weight_members(group, context.model) if m.reads]
    if not readers:
        return relative(size)
    total = torch.zeros(group.n, dtype=torch.float64)
    for member, tensor in readers:
        total += member_sums(member, tensor.double().abs())
    return relative(size * total)
