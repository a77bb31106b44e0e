"""Importance by the size of a channel's weights."""

from __future__ import annotations

import torch
from torch import Tensor

from egnn_prune.channels import ChannelGroup
from egnn_prune.pruning.criteria.context import Context
from egnn_prune.pruning.tensors import weight_members


@torch.no_grad()
def magnitude(group: ChannelGroup, context: Context) -> Tensor:
    r"""L2 norm of all weights that belong to a channel, over the group's mean: ``[n]``.

    :math:`s_c = \|w_c\|_2 / \overline{\|w\|_2}`; the division makes groups of different fan-in
    comparable in a global ranking. Source: Li et al. 2017 (norm of filters), Fang et al. 2023
    (norm over a dependency group, Section 3.3).
    """
    square = torch.zeros(group.n, dtype=torch.float64)
    for member, tensor in weight_members(group, context.model):
        seen = tensor.detach().double().cpu()
        seen = seen.view(member.view) if member.view else seen
        per_entry = (
            seen.movedim(member.axis, 0).reshape(seen.shape[member.axis], -1).square().sum(1)
        )
        square += per_entry[member.index].sum(1)
    norm = square.sqrt()
    return norm / norm.mean().clamp(min=torch.finfo(norm.dtype).tiny)
