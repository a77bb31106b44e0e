"""What a layer of the network does on its edges, as one function of tensors: the hot path."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from egnn_prune.graphs import edge_vectors


class EdgeInputs(NamedTuple):
    """What the messages are made of.

    Attributes:
        to_target: ``[N, edge]``, the first layer of the edge network on the receiving node, with
            the bias.
        to_source: ``[N, edge]``, the same on the sending node.
        pos: ``[N, n]``; may be more precise than the weights.
        shift: ``[E, n]`` of periodic graphs.
        attr: ``[E, edge_features]``.
        envelope: ``[E, 1]``, the smooth cutoff.
    """

    to_target: Tensor
    to_source: Tensor
    pos: Tensor
    shift: Tensor | None = None
    attr: Tensor | None = None
    envelope: Tensor | None = None


class EdgeNetwork(Protocol):
    """The edge network, part by part: a layer's modules with their gates, or bare weights."""

    @property
    def radial(self) -> Tensor:
        """``[edge, radial + edge_features]``, of the first layer."""

    def hidden(self, first: Tensor) -> Tensor:
        """The first layer's activation, ``[E, edge]``."""

    def message(self, hidden: Tensor) -> Tensor:
        """The message, with its attention, ``[E, message]``."""

    def step(self, message: Tensor) -> Tensor | None:
        """How far nodes move, ``[E, 1]``; ``None`` where they do not."""


class EdgeWeights(NamedTuple):
    """The weights of the edge network (Satorras et al. 2021, Eq. 3), gate (8) and moves (4).

    Attributes:
        radial: ``[edge, radial + edge_features]``, of the first layer.
        out: ``[message, edge]``, of the second.
        out_bias: ``[message]``.
        gate: ``[1, message]``, of the attention, where there is one.
        gate_bias: ``[1]``.
        position_in: ``[position, message]``, where nodes move.
        position_bias: ``[position]``.
        position_out: ``[1, position]``.
    """

    radial: Tensor
    out: Tensor
    out_bias: Tensor
    gate: Tensor | None = None
    gate_bias: Tensor | None = None
    position_in: Tensor | None = None
    position_bias: Tensor | None = None
    position_out: Tensor | None = None

    def hidden(self, first: Tensor) -> Tensor:
        """See :class:`EdgeNetwork`."""
        return F.silu(first)

    def message(self, hidden: Tensor) -> Tensor:
        """See :class:`EdgeNetwork`."""
        message = F.silu(F.linear(hidden, self.out, self.out_bias))
        if self.gate is None:
            return message
        return message * torch.sigmoid(F.linear(message, self.gate, self.gate_bias))

    def step(self, message: Tensor) -> Tensor | None:
        """See :class:`EdgeNetwork`."""
        if self.position_in is None or self.position_out is None:
            return None
        hidden = F.silu(F.linear(message, self.position_in, self.position_bias))
        return F.linear(hidden, self.position_out)


class Geometry(NamedTuple):
    """How distances and directions enter.

    Attributes:
        radial: from squared distances ``[E, 1]`` to radial functions ``[E, K]``; without weights.
        eps: smoothing length of the directions d / sqrt(r^2 + eps^2), ``None`` for d itself.
    """

    radial: Callable[[Tensor], Tensor]
    eps: float | None

    def __call__(self, difference: Tensor) -> tuple[Tensor, Tensor]:
        """Radial functions ``[E, K]`` and directions ``[E, n]`` of differences ``[E, n]``."""
        r2 = difference.square().sum(-1, keepdim=True)
        radial = self.radial(r2)
        if self.eps is None:
            return radial, difference
        return radial, difference / (r2 + self.eps**2).sqrt()


def edge_sums(
    inputs: EdgeInputs, network: EdgeNetwork, geometry: Geometry, source: Tensor, target: Tensor
) -> tuple[Tensor, Tensor | None]:
    r"""Sums over the incoming edges of every node.

    .. math::
        u_{ij} &= \sigma(W_2\, \sigma(a_i + b_j + W_1 [r(d_{ij}), e_{ij}]) + \beta), \qquad
        m_{ij} = c_{ij}\, g(u_{ij})\, u_{ij} \\
        m_i &= \sum_j m_{ij}, \qquad
        \Delta x_i = \sum_j \hat d_{ij}\, c_{ij}\, (w \cdot \sigma(W_3 m_{ij} + \gamma))

    with :math:`\sigma` = SiLU, the cutoff's envelope c and the attention
    :math:`g = \text{sigmoid}(v \cdot u + \delta)`.

    The plain version, which the fast ones are tested against.

    Args:
        inputs: of nodes and edges.
        network: the edge network.
        geometry: how distances and directions enter.
        source: ``[E]``, the node that a message comes from.
        target: ``[E]``, sorted, the node that it goes to.

    Returns:
        ``[N, message]``, and ``[N, n]`` where nodes move.
    """
    features, direction = features_of(inputs, geometry, source, target)
    edges = EdgeFeatures(inputs.to_target, inputs.to_source, features, direction, inputs.envelope)
    return message_sums(edges, network, source, target)


class EdgeFeatures(NamedTuple):
    """The inputs with their geometry worked out: what only the channels' work is left of.

    Attributes:
        to_target: ``[N, edge]``, see :class:`EdgeInputs`.
        to_source: ``[N, edge]``, see there.
        features: ``[E, radial + edge_features]``.
        direction: ``[E, n]``.
        envelope: ``[E, 1]``.
    """

    to_target: Tensor
    to_source: Tensor
    features: Tensor
    direction: Tensor
    envelope: Tensor | None


def features_of(
    inputs: EdgeInputs, geometry: Geometry, source: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Features ``[E, radial + edge_features]`` and directions ``[E, n]`` of the edges."""
    # differences in the precision of the positions: a far-away origin costs no accuracy
    difference = edge_vectors(inputs.pos, (source, target), inputs.shift)
    radial, direction = geometry(difference.to(inputs.to_target.dtype))
    if inputs.attr is not None:
        radial = torch.cat([radial, inputs.attr], dim=-1)
    return radial, direction


def message_sums(
    edges: EdgeFeatures, network: EdgeNetwork, source: Tensor, target: Tensor
) -> tuple[Tensor, Tensor | None]:
    """What :func:`edge_sums` returns, of edges whose geometry is worked out."""
    gathered = edges.to_target.index_select(0, target) + edges.to_source.index_select(0, source)
    add = torch.addcmul if edges.features.shape[1] == 1 else torch.addmm
    message = network.message(network.hidden(add(gathered, edges.features, network.radial.T)))
    if edges.envelope is not None:
        message = message * edges.envelope
    nodes = edges.to_target.shape[0]
    received = sum_into(nodes, target, message)
    step = network.step(message)
    if step is None:
        return received, None
    if edges.envelope is not None:
        step = step * edges.envelope
    return received, sum_into(nodes, target, edges.direction * step)


def sum_into(nodes: int, target: Tensor, x: Tensor) -> Tensor:
    """Sum over the incoming edges, ``[E, C] -> [nodes, C]``."""
    # index_add: its backward reads rows, a scatter's gathers single numbers (5 % of a step)
    return x.new_zeros(nodes, x.shape[1]).index_add(0, target, x)
