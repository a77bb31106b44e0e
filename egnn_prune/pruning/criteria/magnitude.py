"""Importance by the size of a channel's weights, in three readings of "size"."""

from __future__ import annotations

import torch
from torch import Tensor

from egnn_prune.channels import ChannelGroup
from egnn_prune.pruning.criteria.channel_sums import member_sums, relative, weight_sums
from egnn_prune.pruning.criteria.context import Context
from egnn_prune.pruning.tensors import weight_members


@torch.no_grad()
def magnitude(group: ChannelGroup, context: Context) -> Tensor:
    r"""L2 norm of all weights that belong to a channel, over the group's mean: ``[n]``.

    :math:`s_c = \|w_c\|_2 / \overline{\|w\|_2}` with :math:`w_c` the entries of channel c in *all*
    tensors of the group, in one norm; the division makes groups of different fan-in comparable in
    a global ranking. Source: Li et al. 2017 (norm of filters), Fang et al. 2023 (norm over a
    dependency group, Section 3.3).
    """
    return relative(weight_sums(group, context.model, torch.square).sqrt())


@torch.no_grad()
def magnitude_l1(group: ChannelGroup, context: Context) -> Tensor:
    r"""L1 norm of all weights that belong to a channel, over the group's mean: ``[n]``.

    :math:`s_c = \|w_c\|_1 / \overline{\|w\|_1}`. Source: Li et al. 2017, Section 3.1.
    """
    return relative(weight_sums(group, context.model, torch.abs))


@torch.no_grad()
def group_norm(group: ChannelGroup, context: Context) -> Tensor:
    r"""Every tensor's L2 norms over their mean, averaged over the group's tensors: ``[n]``.

    .. math:: s_c = \frac1T \sum_t \frac{\|w_{tc}\|_2}{\overline{\|w_t\|_2}}

    In the one norm of :func:`magnitude` a tensor with many or large entries drowns the others;
    here each of the T tensors has the same say, a bias as much as a matrix. The mean of a group
    is 1, which makes groups comparable. Source: Fang et al. 2023, Section 3.3 (importance
    aggregated over a dependency group and normalised; there by the group, here by the tensor).
    """
    norms = [
        relative(member_sums(member, tensor.double().square()).sqrt())
        for member, tensor in weight_members(group, context.model)
    ]
    return torch.stack(norms).mean(0)
