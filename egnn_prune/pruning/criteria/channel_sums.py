"""From numbers per weight to numbers per channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from egnn_prune.channels import ChannelGroup, Member
from egnn_prune.pruning.tensors import by_entry, weight_members


def member_sums(member: Member, values: Tensor) -> Tensor:
    """Sum of a tensor's entries over those that belong to each channel, ``[n]`` in float64.

    Args:
        member: how the channels lie in the tensor.
        values: one number per entry, shaped like the tensor.
    """
    return by_entry(member, values.detach().cpu().double()).sum(1)[member.index.cpu()].sum(1)


def group_sums(group: ChannelGroup, model: nn.Module, values: Mapping[str, Tensor]) -> Tensor:
    """Sum over all of the group's parameters, ``{tensor name: values} -> [n]`` in float64."""
    total = torch.zeros(group.n, dtype=torch.float64)
    for member, _ in weight_members(group, model):
        total += member_sums(member, values[member.name])
    return total


def weight_sums(
    group: ChannelGroup, model: nn.Module, function: Callable[[Tensor], Tensor]
) -> Tensor:
    """Sum of a function of each weight over all of the group's parameters, ``[n]`` in float64."""
    total = torch.zeros(group.n, dtype=torch.float64)
    for member, tensor in weight_members(group, model):
        total += member_sums(member, function(tensor.double()))
    return total


def relative(score: Tensor) -> Tensor:
    """A score over its mean in the group, so that groups of any fan-in or unit can be ranked."""
    return score / score.mean().clamp(min=torch.finfo(score.dtype).tiny)
