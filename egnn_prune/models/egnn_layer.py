"""One layer of the network of Satorras et al. 2021: its options, its widths, its channel groups."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from egnn_prune.channels import ChannelGate, ChannelGroup, Member, gate_members, linear_members
from egnn_prune.errors import ConfigError
from egnn_prune.graphs import has_values
from egnn_prune.models import kernels
from egnn_prune.models.basis import GaussianBasis, SquaredDistance
from egnn_prune.models.edge_blocks import blocked_sums, pays
from egnn_prune.models.edge_sums import EdgeInputs, EdgeWeights, Geometry, edge_sums, sum_into

#: Initial size of the weights on Gaussian radial functions.
RADIAL_STD = 0.6


@dataclass(frozen=True)
class EGNNOptions:
    """What an :class:`EGNN` computes, apart from its widths.

    Attributes:
        attention: gate every message by a learned number in (0, 1) (paper, Eq. 8).
        update_positions: let nodes move (Eq. 4); without it the network is invariant and cheaper.
        velocity: use and update ``batch.vel`` (Eq. 7).
        edge_features: number of columns of ``batch.edge_attr``.
        radial: number of Gaussian radial functions, 0 for the squared distance of the paper.
        radial_stop: where the Gaussians end without a cutoff, in the unit of the positions.
        cutoff: length beyond which nodes do not interact; ``None`` connects all pairs.
        aggregation: ``"sum"`` or ``"mean"`` of the incoming messages (Eq. 5 sums).
        position_aggregation: the same for displacements (Eq. 4 has the mean, C = 1/(M-1)).
        residual: add the update to the features instead of replacing them.
        dropout: probability that a channel is dropped, in every layer.
        eps: smoothing length of the normalised differences d / sqrt(r^2 + eps^2).
        normalise: divide differences by their length; the paper's Eq. 4 does not.
    """

    attention: bool = False
    update_positions: bool = True
    velocity: bool = False
    edge_features: int = 0
    radial: int = 0
    radial_stop: float = 8.0
    cutoff: float | None = None
    aggregation: str = "sum"
    position_aggregation: str = "mean"
    residual: bool = True
    dropout: float = 0.0
    eps: float = 1e-3
    normalise: bool = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("aggregation", "position_aggregation"):
            if getattr(self, name) not in ("sum", "mean"):
                raise ConfigError(f"{name} must be 'sum' or 'mean', not {getattr(self, name)!r}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must lie in [0, 1), not {self.dropout}")
        if self.radial < 0 or self.edge_features < 0:
            raise ConfigError("radial and edge_features are numbers of features, at least 0")
        if not 0 < self.radial_stop < math.inf:
            raise ConfigError(f"radial_stop must be a positive length, not {self.radial_stop}")
        if self.cutoff is not None and not 0 < self.cutoff < math.inf:
            raise ConfigError(f"cutoff must be a positive length or None, not {self.cutoff}")
        if not 0 < self.eps < math.inf:
            raise ConfigError(f"eps must be a positive length, not {self.eps}")
        if self.velocity and not self.update_positions:
            raise ConfigError("velocity=True needs update_positions=True")


@dataclass(frozen=True)
class LayerWidths:
    """The number of channels of each kind inside one layer.

    ``position = 0`` builds a layer that leaves nodes where they are (the last layer of an invariant
    network, whose moves nobody would read).
    """

    edge: int
    message: int
    position: int
    node: int
    velocity: int

    @classmethod
    def uniform(cls, width: int) -> LayerWidths:
        """The same width everywhere, as in the paper."""
        return cls(width, width, width, width, width)


@dataclass(frozen=True)
class Edges:
    """What the layers share about the edges of a batch.

    Attributes:
        source: ``[E]``, the node that a message comes from.
        target: ``[E]``, sorted, the node that it goes to.
        graph: ``[E]``, the graph of the edge.
        attr: ``[E, edge_features]`` or ``None``.
        envelope: ``[E, 1]``, 1 at distance zero and 0 at the cutoff, or ``None`` without one. It
            belongs to the *input* positions, as the list of edges does: measured after a move, a
            pair that enters the list could enter with a jump in the energy.
        shift: ``[E, n]`` of periodic graphs, or ``None``; nodes move, their lattice does not.
        count: ``[N, 1]``, what a mean over incoming edges divides by, where one is asked for.
        twice: whether gradients will be differentiated again, as in training on forces.
    """

    source: Tensor
    target: Tensor
    graph: Tensor
    attr: Tensor | None
    envelope: Tensor | None = None
    shift: Tensor | None = None
    count: Tensor | None = None
    twice: bool = False

    def mean(self, total: Tensor) -> Tensor:
        """The mean of which there is the sum ``[N, C]``."""
        assert self.count is not None
        return total / self.count


def edge_count(nodes: int, target: Tensor, envelope: Tensor | None, like: Tensor) -> Tensor:
    """What a mean over the incoming edges of every node divides by, ``[nodes, 1]``.

    With a cutoff 1 + the sum of envelopes: no jump when a neighbour leaves, and never zero.

    Args:
        nodes: how many.
        target: ``[E]``.
        envelope: ``[E, 1]``, of a cutoff.
        like: whose precision and device the count has.
    """
    if envelope is not None:
        return 1.0 + sum_into(nodes, target, envelope)
    return sum_into(nodes, target, like.new_ones(target.shape[0], 1)).clamp(min=1.0)


@dataclass(frozen=True)
class _Gated:
    """The edge network of a layer, module by module (an :class:`EdgeNetwork`)."""

    layer: EGNNLayer
    graph: Tensor

    @property
    def radial(self) -> Tensor:
        return self.layer.edge_in.weight[:, 2 * self.layer.stream :]

    def hidden(self, first: Tensor) -> Tensor:
        return self.layer.edge_gate(F.silu(first), self.graph)

    def message(self, hidden: Tensor) -> Tensor:
        layer = self.layer
        message = layer.message_gate(F.silu(layer.edge_out(hidden)), self.graph)
        if layer.options.attention:
            message = message * torch.sigmoid(layer.attention(message))
        return message

    def step(self, message: Tensor) -> Tensor | None:
        layer = self.layer
        if not layer.moves:
            return None
        hidden = layer.position_gate(F.silu(layer.position_in(message)), self.graph)
        return layer.position_out(hidden)


class EGNNLayer(nn.Module):
    r"""One E(n)-equivariant graph convolution (Satorras et al. 2021, Eqs. 3-6).

    .. math::
        m_{ij} &= \phi_e(h_i, h_j, b(r_{ij}^2), a_{ij}) \\
        x_i' &= x_i + C \sum_j \frac{x_i - x_j}{\sqrt{r_{ij}^2 + \epsilon^2}}\, \phi_x(m_{ij}) \\
        m_i &= \sum_j m_{ij}, \qquad h_i' = h_i + \phi_h(h_i, m_i)

    The first layer of :math:`\phi_e` is linear in its concatenated input, so it is applied to the
    *nodes* and the results are added on the edges, :math:`W_1 h_i + W_2 h_j + W_3 b`: exactly the
    same function for half the multiplications.

    Args:
        stream: width of the residual feature stream h.
        widths: widths inside the layer.
        options: what is computed.

    Shapes:
        ``h [N, stream]``, ``pos [N, n]``, ``vel [N, n]`` or ``None``; the same come out.
    """

    def __init__(self, stream: int, widths: LayerWidths, options: EGNNOptions) -> None:
        super().__init__()
        self.stream, self.widths, self.options = stream, widths, options
        #: Whether training computes messages a second time instead of keeping their layers.
        self.recompute = False
        self.radial: SquaredDistance | GaussianBasis = SquaredDistance()
        if options.radial:
            stop = options.radial_stop if options.cutoff is None else options.cutoff
            self.radial = GaussianBasis(options.radial, stop)
        per_edge = self.radial.size + options.edge_features
        self.edge_in = nn.Linear(2 * stream + per_edge, widths.edge)
        if options.radial:
            # Only two or three Gaussians are ever active: with weights sized for the whole input,
            # distances would start almost invisible, and training with a long plateau.
            radial = slice(2 * stream, 2 * stream + self.radial.size)
            nn.init.normal_(self.edge_in.weight.data[:, radial], std=RADIAL_STD)
        self.edge_out = nn.Linear(widths.edge, widths.message)
        # in place: every gate but the stream's reads a fresh activation
        self.edge_gate = ChannelGate(widths.edge, options.dropout, inplace=True)
        self.message_gate = ChannelGate(widths.message, options.dropout, inplace=True)
        if options.attention:
            self.attention = nn.Linear(widths.message, 1)
        self.moves = options.update_positions and widths.position > 0
        if self.moves:
            self.position_in = nn.Linear(widths.message, widths.position)
            self.position_out = nn.Linear(widths.position, 1, bias=False)
            # small first steps: positions should move by a fraction of a bond, not by a molecule
            nn.init.xavier_uniform_(self.position_out.weight, gain=1e-3)
            self.position_gate = ChannelGate(widths.position, options.dropout, inplace=True)
        self.drifts = self.moves and options.velocity
        if self.drifts:
            self.velocity_in = nn.Linear(stream, widths.velocity)
            self.velocity_out = nn.Linear(widths.velocity, 1)
            self.velocity_gate = ChannelGate(widths.velocity, options.dropout, inplace=True)
        self.node_in = nn.Linear(stream + widths.message, widths.node)
        self.node_out = nn.Linear(widths.node, stream)
        self.node_gate = ChannelGate(widths.node, options.dropout, inplace=True)

    def forward(
        self,
        h: Tensor,
        pos: Tensor,
        vel: Tensor | None,
        edges: Edges,
        graph: Tensor,
        stream_gate: ChannelGate,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Pass messages once.

        Args:
            h: ``[N, stream]`` invariant features.
            pos: ``[N, n]`` positions.
            vel: ``[N, n]`` velocities or ``None``.
            edges: the edges, sorted by target.
            graph: ``[N]``, the graph of each node.
            stream_gate: the gate that every addition to the stream flows through.
        """
        options = self.options
        received, shift = self._edge_sums(h, pos, edges)
        if shift is not None:
            if options.position_aggregation == "mean":
                shift = edges.mean(shift)
            shift = shift.to(pos.dtype)
            if vel is not None and self.drifts:
                hidden = self.velocity_gate(F.silu(self.velocity_in(h)), graph)
                vel = shift = self.velocity_out(hidden) * vel + shift
            pos = pos + shift
        if options.aggregation == "mean":
            received = edges.mean(received)
        hidden = F.silu(self.node_in(torch.cat([h, received], dim=-1)))
        update = stream_gate(self.node_out(self.node_gate(hidden, graph)), graph)
        return (h + update if options.residual else update), pos, vel

    def _edge_sums(self, h: Tensor, pos: Tensor, edges: Edges) -> tuple[Tensor, Tensor | None]:
        """The sums over messages ``[N, message]`` and displacements ``[N, n]`` (Eqs. 3-5)."""
        weight, s, eps = self.edge_in.weight, self.stream, self.options.eps
        inputs = EdgeInputs(
            F.linear(h, weight[:, :s], self.edge_in.bias),
            F.linear(h, weight[:, s : 2 * s]),
            pos,
            edges.shift,
            edges.attr,
            edges.envelope,
        )
        geometry = Geometry(self.radial, eps if self.options.normalise else None)
        ends = (edges.source, edges.target)
        if has_values() and not (edges.twice and torch.is_grad_enabled()) and self._is_bare():
            weights = self._edge_weights()
            if pays(inputs, weights, edges.source):
                return blocked_sums(inputs, weights, geometry, *ends, self.recompute)
            if kernels.pays(inputs, weights, geometry):
                return kernels.edge_sums(inputs, weights, geometry, *ends)
        return edge_sums(inputs, _Gated(self, edges.graph), geometry, *ends)

    def _is_bare(self) -> bool:
        """Whether no gate does anything now, and nobody watches a module."""
        parts = list(self.children())
        return all(p.idle for p in parts if isinstance(p, ChannelGate)) and not any(
            p._forward_hooks or p._forward_pre_hooks or p._backward_hooks or p._backward_pre_hooks
            for p in parts
        )

    def _edge_weights(self) -> EdgeWeights:
        """The edge network without its gates."""
        radial = self.edge_in.weight[:, 2 * self.stream :]
        gate: tuple[Tensor | None, ...] = (None, None)
        position: tuple[Tensor | None, ...] = (None, None, None)
        if self.options.attention:
            gate = (self.attention.weight, self.attention.bias)
        if self.moves:
            inner = self.position_in
            position = (inner.weight, inner.bias, self.position_out.weight)
        return EdgeWeights(radial, self.edge_out.weight, self.edge_out.bias, *gate, *position)

    def channel_groups(self) -> list[ChannelGroup]:
        """The groups that live inside this layer."""
        w, s = self.widths, self.stream
        groups = [
            ChannelGroup(
                "edge",
                "edge",
                w.edge,
                (
                    *linear_members("edge_in", w.edge, rows=True),
                    *linear_members("edge_out", w.edge),
                    *gate_members("edge_gate", w.edge),
                ),
                "edge_gate",
            )
        ]
        message = [
            *linear_members("edge_out", w.message, rows=True),
            *linear_members("node_in", w.message, columns=[s]),
            *gate_members("message_gate", w.message),
        ]
        if self.options.attention:
            message += linear_members("attention", w.message)
        if self.moves:
            message += linear_members("position_in", w.message)
        groups.append(ChannelGroup("message", "message", w.message, tuple(message), "message_gate"))
        if self.moves:
            groups.append(_hidden_group("position", w.position, "position"))
        if self.drifts:
            groups.append(_hidden_group("velocity", w.velocity, "position"))
        groups.append(_hidden_group("node", w.node, "node"))
        return groups

    def stream_members(self) -> list[Member]:
        """The tensors of this layer that shrink with the residual feature stream."""
        s = self.stream
        members = [
            *linear_members("edge_in", s, columns=[0, s]),
            *linear_members("node_in", s),
            *linear_members("node_out", s, rows=True),
        ]
        return members + (linear_members("velocity_in", s) if self.drifts else [])


def recompute_messages(model: nn.Module, on: bool = True) -> nn.Module:
    """Let training compute the messages of a network's EGNN layers again instead of keeping them.

    Where blocks of edges pay (see :func:`egnn_prune.models.edge_blocks.pays`), the memory of a
    training step then no longer grows with edges x depth x width. Numbers stay the same.

    Args:
        model: any network; other layers stay as they are.
        on: whether they are computed again.

    Returns:
        The same network.
    """
    for module in model.modules():
        if isinstance(module, EGNNLayer):
            module.recompute = on
    return model


def _hidden_group(name: str, n: int, kind: str) -> ChannelGroup:
    """The hidden channels of a two-layer network ``{name}_in``, gate, ``{name}_out``."""
    members = (
        *linear_members(f"{name}_in", n, rows=True),
        *linear_members(f"{name}_out", n),
        *gate_members(f"{name}_gate", n),
    )
    return ChannelGroup(name, kind, n, members, f"{name}_gate")
