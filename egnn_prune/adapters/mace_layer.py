"""One layer of a MACE network: a convolution, products of what arrived, and its read-out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.adapters.activations import Activation
from egnn_prune.adapters.convolution import Convolution, Edges, gated, linear_of
from egnn_prune.adapters.element_linear import ElementLinear
from egnn_prune.adapters.mace_contraction import Species, SymmetricContraction
from egnn_prune.channels import ChannelGate, ChannelGroup, Member, gate_members
from egnn_prune.models.irreps_linear import CopyLinear
from egnn_prune.models.irreps_paths import dimension, format_irreps, parse_irreps


@dataclass(frozen=True)
class MaceShape:
    """The widths of one layer.

    Attributes:
        conv: copies of each irrep that enter the convolution, such as ``"128x0e+128x1o"``.
        made: copies of each irrep that the layer makes.
        message: copies of what arrives, of all its irreps at once.
        orders: the irreps that arrive, in the order in which products see them.
        radial: widths of the radial network's hidden layers.
        paths: ``(source, l, target, kept)`` of every path that the network was made with.
        terms: for every irrep in ``made`` the number of couplings of each degree 1, 2, ...
        residual: whether the layer's input reaches its output by a map for each element (and
            not, as in MACE's other block, the message goes through such a map).
        inner: without ``residual``, copies of each irrep before that map.
        hidden: width of the read-out's hidden layer, 0 where the read-out is linear, -1 where the
            layer has none.
        shared: whether products have the same weights for all elements.
    """

    conv: str
    made: str
    message: int
    orders: tuple[str, ...]
    radial: tuple[int, ...]
    paths: tuple[tuple[str, int, str, bool], ...]
    terms: tuple[tuple[int, ...], ...]
    residual: bool = True
    inner: str = ""
    hidden: int = 0
    shared: bool = False

    @classmethod
    def from_config(cls, spec: dict[str, Any]) -> MaceShape:
        """From plain JSON."""
        tuples = {name: tuple(spec[name]) for name in ("orders", "radial")}
        paths = tuple((source, l, target, bool(kept)) for source, l, target, kept in spec["paths"])  # noqa: E741
        terms = tuple(tuple(n) for n in spec["terms"])
        return cls(**{**spec, **tuples, "paths": paths, "terms": terms})

    def resized(self, keep: dict[str, Tensor]) -> MaceShape:
        """As many channels as ``keep`` has indices, by the names of the layer's groups."""

        def left(name: str, n: int) -> int:
            return len(keep[name]) if name in keep else n

        def copies(irreps: str, kind: str) -> str:
            if not irreps:
                return irreps
            listed = parse_irreps(irreps)
            return format_irreps({ir: left(f"{kind}.{ir}", n) for ir, n in listed.items()})

        return replace(
            self,
            conv=copies(self.conv, "conv"),
            made=copies(self.made, "stream"),
            message=left("message", self.message),
            radial=tuple(left(f"radial.{i}", n) for i, n in enumerate(self.radial)),
            paths=tuple(
                (*path[:3], path[3] and left(f"path.{k}", 1) > 0)
                for k, path in enumerate(self.paths)
            ),
            inner=copies(self.inner, "inner"),
            hidden=left("hidden", self.hidden) if self.hidden > 0 else self.hidden,
        )


class MaceLayer(Convolution):
    r"""One layer (Batatia et al. 2022, MACE, Eqs. 8 to 12), with copies on the last axis.

    .. math::
        A_i = W \frac1n \sum_j \sum_p R_p(r_{ij}) \odot
            \left( U x_j^{l_1} \otimes Y^{l_2}(\hat r_{ij}) \right)^{l_3}, \qquad
        x_i' = V B_{z_i}(A_i) + S_{z_i} x_i

    with the products B of :class:`SymmetricContraction`. MACE's block without a residual connection
    has no S; there A goes through a map for each element first. What e3nn normalises by fan-in is a
    coefficient here, which pruning carries over.

    Args:
        copies: the features that come in, ``{irrep: copies}``.
        shape: widths.
        activation: of the radial network and the read-out.
        bessel: number of radial functions.
        species: number of elements.

    Shapes:
        features ``{irrep: [N, 2l+1, copies]}`` in and out.
    """

    def __init__(
        self,
        copies: dict[str, int],
        shape: MaceShape,
        activation: Activation,
        bessel: int,
        species: int,
    ) -> None:
        super().__init__(
            copies, parse_irreps(shape.conv), (bessel, *shape.radial), shape.paths, activation
        )
        self.shape, self.activation = shape, activation
        self.listed = parse_irreps(shape.made)
        self.made = {ir: n for ir, n in self.listed.items() if n}
        arriving = {ir: self.arriving(ir) for ir in shape.orders}
        mixed = dict.fromkeys(shape.orders, shape.message)
        mixed = mixed if shape.residual else parse_irreps(shape.inner)
        self.mix = nn.ModuleDict(
            {ir: CopyLinear(n, [arriving[ir]] if arriving[ir] else []) for ir, n in mixed.items()}
        )
        if shape.residual:
            kept = {ir: n for ir, n in self.made.items() if copies.get(ir)}
            self.own = nn.ModuleDict(
                {ir: ElementLinear(species, n, copies[ir]) for ir, n in kept.items()}
            )
        else:
            self.inner_gate = nn.ModuleDict({ir: ChannelGate(n) for ir, n in mixed.items()})
            self.inner = nn.ModuleDict(
                {ir: ElementLinear(species, shape.message, n) for ir, n in mixed.items()}
            )
        size, kinds = sum(map(dimension, shape.orders)), 0 if shape.shared else species
        terms = dict(zip(self.listed, shape.terms, strict=True))
        self.product = nn.ModuleDict(
            {
                ir: SymmetricContraction(kinds, shape.message, size, dimension(ir) // 2, terms[ir])
                for ir in self.made
            }
        )
        self.out = nn.ModuleDict(
            {ir: CopyLinear(n, [shape.message]) for ir, n in self.made.items()}
        )
        if shape.hidden > 0:
            self.readout_hidden = CopyLinear(shape.hidden, [self.made["0e"]])
            self.readout_gate = ChannelGate(shape.hidden)
        if shape.hidden >= 0:
            self.readout = CopyLinear(1, [shape.hidden or self.made["0e"]])
        self.stream_gate = nn.ModuleDict({ir: ChannelGate(n) for ir, n in self.listed.items()})
        self.message_gate = ChannelGate(shape.message)

    def readers(self, target: str) -> list[str]:
        """Names of the linear maps that read what arrives at an irrep."""
        return [f"mix.{target}"]

    def forward(
        self, x: dict[str, Tensor], edges: Edges, graph: Tensor, species: Species
    ) -> dict[str, Tensor]:
        """Pass messages once and multiply what arrived.

        Args:
            x: ``{irrep: [N, 2l+1, copies]}``.
            edges: the edges.
            graph: ``[N]``, the graph of each node.
            species: the elements of the nodes.
        """
        received = self.received(x, edges, graph)
        parts = []
        for ir, mix in self.mix.items():
            y = mix(self.arrived(received, ir, graph.shape[0]))
            if not self.shape.residual:
                y = self.inner[ir](gated(self.inner_gate[ir], y, graph), species.index)
            parts.append(y)
        message = gated(self.message_gate, torch.cat(parts, 1), graph)
        out = {}
        for ir, product in self.product.items():
            y = self.out[ir](product(message, species))
            if self.shape.residual and ir in self.own:
                y = y + self.own[ir](x[ir], species.index)
            out[ir] = gated(self.stream_gate[ir], y, graph)
        return out

    def features(self, x: dict[str, Tensor], graph: Tensor) -> Tensor:
        """What the read-out's last map reads, ``[N, features]``."""
        scalars = x["0e"][:, 0]
        if self.shape.hidden <= 0:
            return scalars
        return self.readout_gate(self.activation(self.readout_hidden(scalars)), graph)

    def channel_groups(self) -> list[ChannelGroup]:
        """All but the stream, which is the network's."""
        groups = [*super().channel_groups(), self._message_group()]
        groups += [] if self.shape.residual else self._inner_groups()
        if self.shape.hidden > 0:
            n = self.shape.hidden
            inner = [
                *self.readout_hidden.output_members("readout_hidden"),
                *self.readout.input_members("readout", n, [0]),
                *gate_members("readout_gate", n),
            ]
            groups.append(ChannelGroup("hidden", "hidden", n, tuple(inner), "readout_gate"))
        return groups

    def _message_group(self) -> ChannelGroup:
        """One copy of all irreps at once: products tie them."""
        n = self.shape.message
        members = gate_members("message_gate", n)
        makers, name = (self.mix, "mix") if self.shape.residual else (self.inner, "inner")
        for ir, maker in makers.items():
            assert isinstance(maker, CopyLinear | ElementLinear)
            members += maker.output_members(f"{name}.{ir}")
        for ir in self.product:
            members += self.products(ir).members(f"product.{ir}")
            members += linear_of(self.out[ir]).input_members(f"out.{ir}", n, [0])
        return ChannelGroup("message", "message", n, tuple(members), "message_gate")

    def products(self, ir: str) -> SymmetricContraction:
        """The products that make an irrep."""
        product = self.product[ir]
        assert isinstance(product, SymmetricContraction)
        return product

    def _inner_groups(self) -> list[ChannelGroup]:
        """Copies between the convolution and the map for each element."""
        groups = []
        for ir, reader in self.inner.items():
            assert isinstance(reader, ElementLinear)
            n = linear_of(self.mix[ir]).copies
            members = [
                *linear_of(self.mix[ir]).output_members(f"mix.{ir}"),
                *reader.input_members(f"inner.{ir}", n, [0]),
                *gate_members(f"inner_gate.{ir}", n),
            ]
            gate = f"inner_gate.{ir}"
            groups.append(ChannelGroup(f"inner.{ir}", "inner", n, tuple(members), gate))
        return groups

    def output_members(self, ir: str) -> list[Member]:
        """What makes the copies of an irrep of the stream."""
        members = [
            *gate_members(f"stream_gate.{ir}", self.made[ir]),
            *linear_of(self.out[ir]).output_members(f"out.{ir}"),
        ]
        if self.shape.residual and ir in self.own:
            members += _own(self.own[ir]).output_members(f"own.{ir}")
        if ir == "0e" and self.shape.hidden >= 0:
            hidden = self.shape.hidden > 0
            reader = self.readout_hidden if hidden else self.readout
            name = "readout_hidden" if hidden else "readout"
            members += reader.input_members(name, self.made[ir], [0])
        return members

    def input_members(self, ir: str) -> list[Member]:
        """What takes the copies of an irrep of the stream in."""
        n, members = self.copies[ir], []
        if ir in self.up:
            members += linear_of(self.up[ir]).input_members(f"up.{ir}", n, [0])
        if self.shape.residual and ir in self.own:
            members += _own(self.own[ir]).input_members(f"own.{ir}", n, [0])
        return members


def _own(module: nn.Module) -> ElementLinear:
    assert isinstance(module, ElementLinear)
    return module
