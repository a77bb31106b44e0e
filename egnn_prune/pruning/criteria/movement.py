"""Importance by where training takes the weights: away from zero, or towards it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from egnn_prune.channels import ChannelGroup
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.criteria.channel_sums import group_sums
from egnn_prune.pruning.criteria.context import Context
from egnn_prune.pruning.tensors import get_original, get_tensor, parameter_names


class Movement:
    r"""Accumulates :math:`-w\, \partial L / \partial w` of every weight over training steps.

    Call :meth:`update` between ``backward`` and ``step``, then give the recorder to the context::

        movement = Movement()
        for batch in loader:
            optimizer.zero_grad()
            loss(model, batch).mean().backward()
            movement.update(model)
            optimizer.step()
        score_channels("movement", Context(model, groups, movement=movement))

    Attributes:
        sums: by the parameter's name, shaped like the parameter.
        steps: how many updates there were.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the present weights times their gradients.

        Raises:
            ConfigError: no parameter has a gradient, or the network has been resized in between.
        """
        moved = False
        for name in parameter_names(model):
            gradient = get_original(model, name).grad
            if gradient is None:
                continue
            step, moved = -get_tensor(model, name) * gradient, True
            before = self.sums.get(name)
            if before is not None and before.shape != step.shape:
                raise ConfigError(
                    f"{name} had the shape {tuple(before.shape)} when the movement was first "
                    f"recorded and has {tuple(step.shape)} now; start a new Movement()"
                )
            self.sums[name] = step if before is None else before.to(step.device) + step
        if not moved:
            raise ConfigError("no gradients: call movement.update(model) between backward and step")
        self.steps += 1


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
