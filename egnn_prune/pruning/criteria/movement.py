"""Importance by where training takes the weights: away from zero, or towards it."""

from __future__ import annotations

import torch
from torch import Tensor

from egnn_prune.channels import ChannelGroup
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.criteria.channel_sums import group_sums
from egnn_prune.pruning.criteria.context import Context
from egnn_prune.pruning.tensors import get_tensor, parameter_names


def movement(group: ChannelGroup, context: Context) -> Tensor:
    r"""Movement away from zero, summed over a channel's weights and all steps: ``[n]``, signed.

    .. math:: s_c = - \sum_t \sum_{w \in c} w^{(t)}\, \frac{\partial L^{(t)}}{\partial w^{(t)}}

    A step against the gradient makes \|w\| grow where the product is positive: such channels are
    wanted and kept; those on their way to zero score below zero and go first, however large they
    still are. Frozen and pruned entries do not move and add nothing. The unit is the loss, the
    same in every group. Source: Sanh et al. 2020, Section 3, Eq. 3 (there for single weights).

    Raises:
        ConfigError: the context has no movement, or it belongs to another network.
    """
    return group_sums(group, context.model, context.once(recorded_movement))


def recorded_movement(context: Context) -> dict[str, Tensor]:
    """What was recorded for every parameter; zero for those that never had a gradient."""
    record = context.movement
    if record is None or record.steps == 0:
        raise ConfigError(
            "the criterion movement reads what training recorded; call Movement().update(model) "
            "after each backward, and pass movement=..."
        )
    found = {}
    for name in parameter_names(context.model):
        weight = get_tensor(context.model, name)
        value = record.sums.get(name, torch.zeros_like(weight))
        if value.shape != weight.shape:
            raise ConfigError(
                f"the movement of {name} was recorded at the shape {tuple(value.shape)}, but it "
                f"has {tuple(weight.shape)} now; record again after compaction"
            )
        found[name] = value
    return found
