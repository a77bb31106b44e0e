"""The E(n)-equivariant graph network of Satorras et al. 2021, with channels that can be removed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict

from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from egnn_prune.channels import ChannelGate, ChannelGroup, gate_members, linear_members
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.graphs import check_graphs, edge_vectors, graph_of_node
from egnn_prune.models.basis import smooth_cutoff
from egnn_prune.models.egnn_layer import Edges, EGNNLayer, EGNNOptions, LayerWidths, edge_count
from egnn_prune.models.trunk import Trunk, check_field


class EGNN(Trunk):
    r"""E(n)-equivariant graph neural network, in any dimension n (Satorras et al. 2021).

    Takes and returns PyG batches: reads ``x [N, in_features]``, ``pos [N, n]`` and, where the
    options ask for them, ``vel [N, n]``, ``edge_attr [E, edge_features]`` and ``edge_index``
    (sorted by target; built when absent; periodic graphs have ``cell``, ``pbc`` and
    ``edge_shift``, see :func:`neighbours`); returns a copy of the batch in which ``x`` holds the
    invariant features ``[N, hidden]`` and ``pos``, ``vel`` the equivariant outputs.

    Args:
        in_features: width of the node features ``batch.x``.
        hidden: width of the residual stream, and of everything else unless ``widths`` says so.
        layers: number of message-passing layers.
        options: an :class:`EGNNOptions`, or its fields as keyword arguments.
        widths: one :class:`LayerWidths` a layer, for networks that were made smaller.

    Raises:
        ConfigError: a width below 1, or an option outside its range.

    Example:
        >>> model = EGNN(in_features=5, hidden=32, layers=3, attention=True)
        >>> out = model(batch)  # out.x, out.pos
    """

    Options, Widths, WIDTH = EGNNOptions, LayerWidths, "hidden"
    options: EGNNOptions

    def __init__(
        self,
        in_features: int,
        hidden: int = 64,
        layers: int = 4,
        options: EGNNOptions | None = None,
        widths: Sequence[LayerWidths] | None = None,
        **keywords: object,
    ) -> None:
        super().__init__(in_features, options, keywords)
        widths = list(widths) if widths is not None else [LayerWidths.uniform(hidden)] * layers
        inner = [v for w in widths for v in (w.edge, w.message, w.node)]
        if min([in_features, hidden, len(widths), *inner]) < 1:
            raise ConfigError("an EGNN needs at least one feature, one layer and one channel each")
        self.hidden, self.widths = hidden, widths
        self.embedding = nn.Linear(in_features, hidden)
        self.stream_gate = ChannelGate(hidden)
        self.layers = nn.ModuleList(EGNNLayer(hidden, w, self.options) for w in widths)

    def forward(self, batch: Batch | Data) -> Batch | Data:
        """Run all layers.

        Raises:
            DataError: the batch cannot be used (see :func:`check_graphs`).
        """
        batch = self.connected(batch)
        out = copy.copy(batch)
        out.x, out.pos, vel = self.features(
            batch.x,
            batch.pos,
            batch.edge_index,
            graph_of_node(batch),
            batch.get("edge_shift"),
            batch.edge_attr if self.options.edge_features else None,
            batch.get("vel"),
        )
        if vel is not None:
            out.vel = vel
        return out

    def features(
        self,
        x: Tensor,
        pos: Tensor,
        edge_index: Tensor,
        graph: Tensor,
        edge_shift: Tensor | None = None,
        edge_attr: Tensor | None = None,
        vel: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The network as a function of tensors, as ``torch.compile`` and ``export`` like it.

        Args:
            x: ``[N, in_features]``.
            pos: ``[N, n]``; may be more precise than the weights.
            edge_index: ``[2, E]``, sorted by target.
            graph: ``[N]``, the graph of each node.
            edge_shift: ``[E, n]`` of periodic graphs, see :func:`neighbours`.
            edge_attr: ``[E, edge_features]``, where the options ask for it.
            vel: ``[N, n]``, where the options ask for it.

        Returns:
            Invariant features ``[N, hidden]``, positions and velocities ``[N, n]``.
        """
        source, target = edge_index
        h = self.stream_gate(self.embedding(x), graph)
        envelope = None
        if self.options.cutoff is not None:
            r2 = (
                edge_vectors(pos, edge_index, edge_shift).to(h.dtype).square().sum(-1, keepdim=True)
            )
            envelope = smooth_cutoff(r2, self.options.cutoff)
        count = None
        if "mean" in (self.options.aggregation, self.options.position_aggregation):
            count = edge_count(h.shape[0], target, envelope, h)
        edges = Edges(
            source,
            target,
            graph.index_select(0, target),
            edge_attr,
            envelope,
            edge_shift,
            count,
            twice=self.training and pos.requires_grad,
        )
        for layer in self.layers:
            h, pos, vel = layer(h, pos, vel, edges, graph, self.stream_gate)
        return h, pos, vel

    def check(self, batch: Batch | Data) -> None:
        """Refuse a batch that lacks what the options promise."""
        check_graphs(batch)
        check_field(batch, "x", (len(batch.pos), self.in_features))
        if self.options.velocity:
            check_field(batch, "vel", tuple(batch.pos.shape))
        if self.options.edge_features:
            if batch.edge_index is None:
                raise DataError("this network reads batch.edge_attr and so needs batch.edge_index")
            shape = (batch.edge_index.shape[1], self.options.edge_features)
            check_field(batch, "edge_attr", shape)

    def channel_groups(self) -> list[ChannelGroup]:
        """The residual stream, shared by all layers, then each layer's own groups."""
        stream = [
            *linear_members("embedding", self.hidden, rows=True),
            *gate_members("stream_gate", self.hidden),
        ]
        inner = []
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, EGNNLayer)
            stream += [m.prefixed(f"layers.{i}") for m in layer.stream_members()]
            inner += [g.prefixed(f"layers.{i}") for g in layer.channel_groups()]
        return [
            ChannelGroup("stream", "stream", self.hidden, tuple(stream), "stream_gate"),
            *inner,
        ]

    def resized(self, keep: dict[str, Tensor]) -> EGNN:
        """A new network with ``len(keep[group])`` channels in each group (weights not copied)."""

        def width(group: str, now: int) -> int:
            return len(keep[group]) if group in keep else now

        widths = [
            LayerWidths(**{k: width(f"layers.{i}.{k}", v) for k, v in asdict(w).items()})
            for i, w in enumerate(self.widths)
        ]
        return EGNN(
            self.in_features, width("stream", self.hidden), options=self.options, widths=widths
        )
