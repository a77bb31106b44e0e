"""Importance by how much flows through a channel."""

from __future__ import annotations

from torch import Tensor

from egnn_prune.channels import ChannelGroup
from egnn_prune.pruning.criteria.channel_sums import relative
from egnn_prune.pruning.criteria.context import Context
from egnn_prune.pruning.criteria.gate_passes import gate_means_of_squares


def activation_norm(group: ChannelGroup, context: Context) -> Tensor:
    r"""Root mean square of a channel at its gate, over the group's mean: ``[n]``.

    .. math:: s_c = x_c / \bar x, \qquad
        x_c = \big\langle x_{rc}^2 \big\rangle_r^{1/2}

    over rows r (nodes, edges, images, and all components of a channel) of all data. Groups have
    their own units, hence the division. Source: Molchanov et al. 2017, Section 2.2 (activation
    criteria; there mean and deviation).

    Raises:
        ConfigError: the group has no gate, or the context no data.
    """
    context.gate_of(group)
    return relative(context.once(channel_rms)[group.name])


def channel_rms(context: Context) -> dict[str, Tensor]:
    """Root mean square of every channel at its gate, ``{group name: [n]}``."""
    squares = gate_means_of_squares(context.model, context.gates, context.data)
    return {name: value.sqrt() for name, value in squares.items()}
