"""A NequIP-style network of irreps whose copies can be removed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from egnn_prune.channels import ChannelGate, ChannelGroup, Member, gate_members, linear_members
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.graphs import check_graphs, edge_vectors, graph_of_node
from egnn_prune.models.basis import BesselBasis, smooth_cutoff
from egnn_prune.models.irreps_edges import IrrepsEdges
from egnn_prune.models.irreps_layer import IrrepsLayer, IrrepsOptions, IrrepsWidths
from egnn_prune.models.irreps_linear import CopyLinear
from egnn_prune.models.irreps_paths import (
    Couplings,
    dimension,
    eager_e3nn,
    format_irreps,
    parse_irreps,
    reachable,
    useful,
)
from egnn_prune.models.trunk import Trunk, check_field


class IrrepsNet(Trunk):
    r"""E(3)-equivariant message passing on irreps of O(3) (Batzner et al. 2022, NequIP).

    Takes and returns PyG batches: reads ``x [N, in_features]`` (invariant), ``pos [N, 3]`` and
    ``edge_index`` (sorted by target; built with the cutoff when absent; periodic graphs have
    ``cell``, ``pbc`` and ``edge_shift``, see :func:`neighbours`); returns a copy of the batch in
    which ``x`` holds the invariant features ``[N, hidden]`` and, with ``vectors`` above zero,
    ``vec [N, vectors, 3]`` vectors that turn with the graph. Positions do not move.

    A channel is one copy of an irrep in one layer, with the scalar that gates it. Whole orders of
    a layer may go, and then nothing is computed for them any more. What leads to and from a copy is
    scaled by buffers that belong to the copy, so a smaller network computes the same function. At
    distance zero, where there is no direction, orders l > 0 vanish like :math:`r^l`, smoothly.

    Args:
        in_features: width of the node features ``batch.x``.
        copies: copies of each irrep in each layer, unless ``widths`` says so.
        layers: number of interaction blocks.
        options: an :class:`IrrepsOptions`, or its fields as keyword arguments.
        radial: width of the radial networks, unless ``widths`` says so.
        widths: one :class:`IrrepsWidths` a layer, for networks that were made smaller.
        embedding: scalars that the node features become at first, ``copies`` by default.

    Raises:
        ConfigError: a width below 1, or an option outside its range.

    Example:
        >>> model = IrrepsNet(in_features=5, copies=32, layers=3, lmax=2, vectors=1)
        >>> out = model(batch)  # out.x [N, 32], out.vec [N, 1, 3]
    """

    Options, Widths, WIDTH = IrrepsOptions, IrrepsWidths, "embedding"
    options: IrrepsOptions

    def __init__(
        self,
        in_features: int,
        copies: int = 32,
        layers: int = 3,
        options: IrrepsOptions | None = None,
        radial: int = 64,
        widths: Sequence[IrrepsWidths] | None = None,
        embedding: int | None = None,
        **keywords: object,
    ) -> None:
        super().__init__(in_features, options, keywords)
        embedding = copies if embedding is None else embedding
        if min(in_features, copies, layers, radial, embedding) < 1:
            raise ConfigError("an IrrepsNet needs at least one feature, layer and channel each")
        widths = uniform(copies, layers, radial, self.options) if widths is None else list(widths)
        if not widths or min(n for w in widths for n in (w.radial_in, w.radial_mid)) < 1:
            raise ConfigError("an IrrepsNet needs at least one layer and radial channel each")
        self.widths = widths
        self.hidden = parse_irreps(widths[-1].irreps).get("0e", 0)
        if not self.hidden:
            raise ConfigError("the last layer needs scalars (0e), which the read-out reads")

        self.embedding = nn.Linear(in_features, embedding)
        self.embedding_gate = ChannelGate(embedding)
        self.basis = BesselBasis(self.options.bessel, self.options.cutoff, self.options.eps)
        with eager_e3nn():
            self.harmonics = o3.SphericalHarmonics(
                o3.Irreps.spherical_harmonics(self.options.lmax), False, "component"
            )
        self.layers = nn.ModuleList()
        made = {"0e": embedding}
        for w in widths:
            layer = IrrepsLayer(made, w, self.options)
            self.layers.append(layer)
            made = layer.made
        parts = (self._layer(i) for i in range(len(self.layers)))
        self.couplings = Couplings(path.orders for layer in parts for path in layer.paths)
        if self.options.vectors:
            self.vector_out = CopyLinear(self.options.vectors, [made.get("1o", 0)])

    def forward(self, batch: Batch | Data) -> Batch | Data:
        """Run all layers.

        Raises:
            DataError: the batch cannot be used (see :func:`check_graphs`), or is not in 3D.
        """
        batch = self.connected(batch)
        shift = batch.get("edge_shift")
        x, vectors = self.features(
            batch.x, batch.pos, batch.edge_index, graph_of_node(batch), shift
        )
        out = copy.copy(batch)
        out.x = x
        if self.options.vectors:
            out.vec = vectors
        return out

    def features(
        self,
        x: Tensor,
        pos: Tensor,
        edge_index: Tensor,
        graph: Tensor,
        edge_shift: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The network as a function of tensors, as ``torch.compile`` and ``export`` like it.

        Args:
            x: ``[N, in_features]``.
            pos: ``[N, 3]``; may be more precise than the weights.
            edge_index: ``[2, E]``, sorted by target.
            graph: ``[N]``, the graph of each node.
            edge_shift: ``[E, 3]`` of periodic graphs, see :func:`neighbours`.

        Returns:
            Invariant features ``[N, hidden]`` and vectors ``[N, vectors, 3]``.
        """
        edges = self._edges(pos, edge_index, graph, edge_shift)
        scalars = self.embedding_gate(self.embedding(x), graph)
        features = {"0e": scalars[:, None]}
        for layer in self.layers:
            features = layer(features, edges, graph)
        invariant = features["0e"][:, 0]
        if not self.options.vectors:
            return invariant, invariant.new_zeros(graph.shape[0], 0, 3)
        nothing = invariant.new_zeros(graph.shape[0], 3, 0)
        return invariant, self.vector_out(features.get("1o", nothing)).transpose(1, 2)

    def _edges(
        self, pos: Tensor, edge_index: Tensor, graph: Tensor, edge_shift: Tensor | None = None
    ) -> IrrepsEdges:
        """Everything that depends on the geometry, once for all layers."""
        options = self.options
        # differences in the precision of the positions: a far-away origin costs no accuracy
        difference = edge_vectors(pos, edge_index, edge_shift).to(self.embedding.weight.dtype)
        r2 = difference.square().sum(-1, keepdim=True)
        # polynomials of d / sqrt(r^2 + eps^2): no division by zero, and r^l near it
        harmonics = self.harmonics(difference / (r2 + options.eps**2).sqrt())
        strength = smooth_cutoff(r2, options.cutoff) / options.neighbours**0.5
        return IrrepsEdges.of(
            edge_index, graph, self.basis(r2), harmonics * strength, self.couplings
        )

    def check(self, batch: Batch | Data) -> None:
        """Refuse a batch that this network cannot use."""
        check_graphs(batch)
        if batch.pos.shape[1] != 3:
            raise DataError(f"an IrrepsNet works in 3 dimensions, not {batch.pos.shape[1]}")
        check_field(batch, "x", (len(batch.pos), self.in_features))

    def channel_groups(self) -> list[ChannelGroup]:
        """The scalars that are returned, then the embedding, and each layer's copies and radials.

        Copies are grouped per layer and irrep. In all layers but the last a whole irrep may go, as
        long as the layer keeps one copy of another.
        """
        layers = list(self.layers)
        last = len(layers) - 1
        width = self.embedding.out_features
        embedding = [
            *linear_members("embedding", width, rows=True),
            *gate_members("embedding_gate", width),
            *_prefixed(self._layer(0).input_members("0e"), 0),
        ]
        groups = [ChannelGroup("embedding", "l=0", width, tuple(embedding), "embedding_gate")]
        for i in range(len(layers)):
            layer = self._layer(i)
            for ir, n in layer.made.items():
                members = _prefixed(layer.output_members(ir), i)
                if i < last:
                    members += _prefixed(self._layer(i + 1).input_members(ir), i + 1)
                elif ir == "1o" and self.options.vectors:
                    members += self.vector_out.input_members("vector_out", n, [0])
                group = ChannelGroup(
                    f"layers.{i}.{ir}",
                    f"l={(dimension(ir) - 1) // 2}",
                    n,
                    tuple(members),
                    f"layers.{i}.gate.{ir}",
                )
                if i < last:
                    group = replace(group, family=f"layers.{i}")
                groups.append(group)
            groups += [g.prefixed(f"layers.{i}") for g in layer.channel_groups()]
        groups.sort(key=lambda g: g.name != f"layers.{last}.0e")  # stable: this one first
        return groups

    def _layer(self, i: int) -> IrrepsLayer:
        layer = self.layers[i]
        assert isinstance(layer, IrrepsLayer)
        return layer

    def resized(self, keep: dict[str, Tensor]) -> IrrepsNet:
        """A new network with ``len(keep[group])`` channels in each group (weights not copied)."""
        widths = []
        for i, w in enumerate(self.widths):
            start = f"layers.{i}."
            mine = {k.removeprefix(start): v for k, v in keep.items() if k.startswith(start)}
            widths.append(w.resized(mine))
        embedding = len(keep.get("embedding", range(self.embedding.out_features)))
        return IrrepsNet(self.in_features, options=self.options, widths=widths, embedding=embedding)


def uniform(copies: int, layers: int, radial: int, options: IrrepsOptions) -> list[IrrepsWidths]:
    """The same number of copies of each irrep that a layer can make and somebody reads."""
    made = [["0e"]]
    for _ in range(layers - 1):
        made.append(reachable(made[-1], options.lmax, options.parity))
    made.append(["0e", "1o"] if options.vectors else ["0e"])
    for i in range(layers - 1, 0, -1):
        made[i] = useful(made[i], made[i + 1], options.lmax)
    irreps = (format_irreps(dict.fromkeys(irs, copies)) for irs in made[1:])
    return [IrrepsWidths(i, radial, radial) for i in irreps]


def _prefixed(members: list[Member], layer: int) -> list[Member]:
    return [m.prefixed(f"layers.{layer}") for m in members]
