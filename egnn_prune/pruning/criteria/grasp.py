"""Importance by what a channel contributes to the flow of gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from egnn_prune.channels import ChannelGroup
from egnn_prune.pruning.criteria.channel_sums import group_sums
from egnn_prune.pruning.criteria.context import Context
from egnn_prune.pruning.criteria.weight_passes import (
    by_weights,
    effective_weights,
    weight_gradients,
)


def grasp(group: ChannelGroup, context: Context) -> Tensor:
    r"""Loss of gradient norm when a channel goes, summed over its weights: ``[n]``, of any sign.

    .. math:: s_c = \sum_{w \in c} w\, (H g)_w, \qquad g = \nabla L, \quad H = \nabla^2 L

    To first order, removing w changes the squared norm of the gradient, and with it how fast the
    loss falls in training, by :math:`-2 w (Hg)_w`. Channels with a large *positive*
    :math:`w (Hg)_w` feed the gradient and are kept; those with a negative one hold it back and go
    first. (The paper scores :math:`-w (Hg)_w` and keeps the *smallest*: the same order.) A pruned
    channel scores 0 and so may rank above a harmful one; masks of earlier rounds keep it out.
    L is the mean loss over all samples; the unit is the same in every group. Source: Wang et al.
    2020, Eq. 8 and Algorithm 1.

    Raises:
        ConfigError: the context has no data and loss.
    """
    return group_sums(group, context.model, context.once(gradient_flow))


def gradient_flow(context: Context) -> dict[str, Tensor]:
    r""":math:`w (Hg)_w` of every parameter, by name; exact over several batches."""
    batches, loss = context.data_and_loss
    gradient = weight_gradients(context.model, batches, loss)
    flow = {name: torch.zeros_like(g) for name, g in gradient.items()}
    samples = 0
    with effective_weights(context.model) as weights:
        for batch in batches:
            value = loss(context.model, batch)
            samples += len(value)
            first = by_weights(value.sum(), weights, differentiable=True)
            # g is a constant here: the derivative of g_b . g is H_b g
            along = torch.stack([(first[k] * gradient[k]).sum() for k in weights]).sum()
            if not along.requires_grad:  # a loss that is linear in every weight has no curvature
                continue
            for name, product in by_weights(along, weights).items():
                flow[name] += (weights[name] * product).detach()
    return {name: value / samples for name, value in flow.items()}
