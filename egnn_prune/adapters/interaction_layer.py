"""One interaction block of the NequIP family (NequIP, SevenNet), with its channel groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from egnn_prune.adapters.element_linear import ElementLinear
from egnn_prune.channels import ChannelGate, ChannelGroup, Member, gate_members
from egnn_prune.errors import ConfigError
from egnn_prune.models.irreps_linear import CopyLinear
from egnn_prune.models.irreps_paths import Orders, Path, dimension, format_irreps, parse_irreps

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"silu": F.silu, "tanh": torch.tanh}
#: What a layer adds to the messages: nothing, a linear map of its input, one for each element.
SELF_CONNECTIONS = ("none", "linear", "elements")


@dataclass(frozen=True)
class Activation:
    """A function and the constant that it is multiplied with (e3nn's ``normalize2mom``)."""

    name: str = "silu"
    factor: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a function that is not known."""
        if self.name not in FUNCTIONS:
            raise ConfigError(f"activation must be one of {', '.join(FUNCTIONS)}, not {self.name}")

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        y = FUNCTIONS[self.name](x)
        return y if self.factor == 1.0 else y * self.factor


@dataclass(frozen=True)
class Activations:
    """Those of a layer: even scalars, odd scalars, gates of the other irreps, radial network."""

    even: Activation = Activation()
    odd: Activation = Activation("tanh")
    gate: Activation = Activation()
    radial: Activation = Activation()


@dataclass(frozen=True)
class LayerShape:
    """The widths of one layer.

    Attributes:
        conv: copies of each irrep that enter the convolution, such as ``"32x0e+16x1e"``.
        made: copies of each irrep that the layer makes.
        radial: widths of the radial network's hidden layers.
        paths: ``(source, l, target, kept)`` of every instruction of the tensor product that the
            network was made with, sorted by target.
        own: whether the layer has a self connection, where the network has any.
    """

    conv: str
    made: str
    radial: tuple[int, ...]
    paths: tuple[tuple[str, int, str, bool], ...]
    own: bool = True

    def __post_init__(self) -> None:
        """Refuse a path that is listed twice."""
        if len({path[:3] for path in self.paths}) != len(self.paths):
            raise ConfigError("a layer lists one of its paths twice")

    def resized(self, keep: dict[str, Tensor]) -> LayerShape:
        """As many channels as ``keep`` has indices, by ``conv.IR, stream.IR, radial.I, path.K``."""

        def copies(irreps: str, kind: str) -> str:
            listed = parse_irreps(irreps)
            return format_irreps({ir: _left(keep, f"{kind}.{ir}", n) for ir, n in listed.items()})

        radial = (_left(keep, f"radial.{i}", n) for i, n in enumerate(self.radial))
        paths = (
            (*path[:3], path[3] and _left(keep, f"path.{k}", 1) > 0)
            for k, path in enumerate(self.paths)
        )
        return LayerShape(
            copies(self.conv, "conv"),
            copies(self.made, "stream"),
            tuple(radial),
            tuple(paths),
            self.own,
        )


def _left(keep: dict[str, Tensor], name: str, n: int) -> int:
    return len(keep[name]) if name in keep else n


@dataclass(frozen=True)
class Edges:
    """What the layers share about the edges of a batch.

    Attributes:
        source: ``[E]``, the node that a message comes from.
        target: ``[E]``, the node that it goes to.
        graph: ``[E]``, the graph of the edge.
        radial: ``[E, bessel]``, the radial functions.
        couplings: for each (l1, l2, l3) ``[E, 2 l3 + 1, 2 l1 + 1]``, see
            :class:`~egnn_prune.models.irreps_paths.Couplings`.
    """

    source: Tensor
    target: Tensor
    graph: Tensor
    radial: Tensor
    couplings: dict[Orders, Tensor]


class InteractionLayer(nn.Module):
    r"""One interaction block (Batzner et al. 2022, NequIP; Park et al. 2024, SevenNet).

    .. math::
        h_j = U x_j, \qquad
        m_i^{(p)} = \frac1n \sum_j R_p(r_{ij}) \odot
            \left( h_j^{l_1} \otimes Y^{l_2}(\hat r_{ij}) \right)^{l_3}, \qquad
        y_i = W m_i + S_{(z_i)} x_i, \qquad
        x_i' = \phi(y_i^0) \oplus \phi(g_i) \odot y_i^l

    The *stream* x leads from layer to layer; the wire h into the *convolution* may be narrower. A
    *path* p takes a copy of the source irrep over a spherical harmonic to a copy of the target
    irrep, weighted by a radial network R (``uvu`` in e3nn's terms). Every copy of a higher order is
    multiplied by a scalar g of its own. What e3nn normalises by fan-in is a coefficient of the copy
    here, which pruning carries over: a smaller layer computes the same function.

    Args:
        copies: the features that come in, ``{irrep: copies}``.
        shape: widths.
        activations: functions.
        bessel: number of radial functions.
        self_connection: ``"none"``, ``"linear"`` or ``"elements"``.
        bias: whether scalars have a bias.
        species: number of elements.

    Shapes:
        features ``{irrep: [N, 2l+1, copies]}`` in and out.
    """

    denominator: Tensor

    def __init__(
        self,
        copies: dict[str, int],
        shape: LayerShape,
        activations: Activations,
        bessel: int,
        self_connection: str = "linear",
        bias: bool = False,
        species: int = 1,
    ) -> None:
        super().__init__()
        if self_connection not in SELF_CONNECTIONS:
            raise ConfigError(f"self_connection must be one of {', '.join(SELF_CONNECTIONS)}")
        self.copies, self.shape, self.activations = copies, shape, activations
        self.listed = parse_irreps(shape.made)
        self.made = {ir: n for ir, n in self.listed.items() if n}
        self.gated = [ir for ir in self.made if dimension(ir) > 1]
        self.conv = parse_irreps(shape.conv)
        self.all_paths = [Path(*path[:3]) for path in shape.paths]
        self.paths = [
            path
            for path, (*_, kept) in zip(self.all_paths, shape.paths, strict=True)
            if kept and self.conv.get(path.source)
        ]
        self.register_buffer("denominator", torch.ones(()))

        self.up = nn.ModuleDict(
            {
                ir: CopyLinear(n, [copies[ir]], bias and ir == "0e")
                for ir, n in self.conv.items()
                if copies.get(ir)
            }
        )
        widths = (bessel, *shape.radial)
        self.radial = nn.ModuleList(CopyLinear(b, [a]) for a, b in pairwise(widths))
        targets = dict.fromkeys(path.target for path in self.all_paths)
        self.radial_out = nn.ModuleDict(
            {ir: CopyLinear(self._arriving(ir), widths[-1:]) for ir in targets}
        )

        def mixer(ir: str, n: int) -> CopyLinear:
            arriving = self._arriving(ir)
            return CopyLinear(n, [arriving] if arriving else [], bias and ir == "0e")

        def own(ir: str, n: int) -> nn.Module:
            if self_connection == "linear":
                return CopyLinear(n, [copies[ir]])
            return ElementLinear(species, n, copies[ir])

        self.mix = nn.ModuleDict({ir: mixer(ir, n) for ir, n in self.made.items()})
        self.mix_gate = nn.ModuleDict({ir: mixer("0e", self.made[ir]) for ir in self.gated})
        kept = {} if self_connection == "none" else self.made
        self.own = nn.ModuleDict({ir: own(ir, n) for ir, n in kept.items() if copies.get(ir)})
        self.own_gate = nn.ModuleDict(
            {ir: own("0e", self.made[ir]) for ir in self.gated if kept and copies.get("0e")}
        )
        self.conv_gate = nn.ModuleDict({ir: ChannelGate(n) for ir, n in self.conv.items()})
        self.stream_gate = nn.ModuleDict({ir: ChannelGate(n) for ir, n in self.listed.items()})
        self.radial_gate = nn.ModuleList(ChannelGate(n) for n in shape.radial)
        self.path_gate = nn.ModuleList(ChannelGate(int(path[3])) for path in shape.paths)

    def _arriving(self, ir: str) -> int:
        """The copies of all paths to an irrep."""
        return sum(self.conv[path.source] for path in self.paths if path.target == ir)

    def forward(
        self, x: dict[str, Tensor], edges: Edges, graph: Tensor, species: Tensor
    ) -> dict[str, Tensor]:
        """Pass messages once.

        Args:
            x: ``{irrep: [N, 2l+1, copies]}``.
            edges: the edges.
            graph: ``[N]``, the graph of each node.
            species: ``[N]``, the number of its element.
        """
        nodes = graph.shape[0]  # not len(), which torch.export would freeze
        received = self._messages(x, edges, nodes, graph)
        like = edges.radial

        def inputs(ir: str) -> Tensor:
            parts = [received[path] for path in self.paths if path.target == ir]
            if len(parts) == 1:
                return parts[0]
            return torch.cat([*parts, like.new_zeros(nodes, dimension(ir), 0)], dim=-1)

        def mixed(mix: nn.Module, own: nn.ModuleDict, key: str, ir: str, arrived: Tensor) -> Tensor:
            y = mix(arrived)
            if key not in own:
                return y
            reader, mine = own[key], x[ir]
            by_element = isinstance(reader, ElementLinear)
            return y + (reader(mine, species) if by_element else reader(mine))

        scalars = inputs("0e")
        out = {}
        for ir, mix in self.mix.items():
            y = mixed(mix, self.own, ir, ir, scalars if ir == "0e" else inputs(ir))
            if ir in self.gated:
                gate = mixed(self.mix_gate[ir], self.own_gate, ir, "0e", scalars)
                y = y * self.activations.gate(gate)
            else:
                y = (self.activations.even if ir == "0e" else self.activations.odd)(y)
            out[ir] = self.stream_gate[ir](y.transpose(1, 2), graph).transpose(1, 2)
        return out

    def _messages(
        self, x: dict[str, Tensor], edges: Edges, nodes: int, graph: Tensor
    ) -> dict[Path, Tensor]:
        """Each path's sum over neighbours, ``[N, 2 l3 + 1, copies]``."""
        hidden = edges.radial
        for linear, gate in zip(self.radial, self.radial_gate, strict=True):
            hidden = gate(self.activations.radial(linear(hidden)), edges.graph)
        # the weights are linear in these, so here the division is cheap
        weights = self._weights(hidden / self.denominator, edges.graph)
        received: dict[Path, Tensor] = {}
        for ir in dict.fromkeys(path.source for path in self.paths):
            wire = self.conv_gate[ir](self.up[ir](x[ir]).transpose(1, 2), graph).transpose(1, 2)
            features = wire.index_select(0, edges.source)
            paths = [path for path in self.paths if path.source == ir]
            products = [edges.couplings[path.orders] for path in paths]
            if dimension(ir) > 1:  # one product for all couplings: the time is in small matrices
                joint = torch.bmm(torch.cat(products, dim=1), features)
                turned = joint.split([p.shape[1] for p in products], dim=1)
            for k, path in enumerate(paths):
                weight = weights[path][:, None]
                # scalars are weighted before they are spread over components
                message = (
                    weight * turned[k] if dimension(ir) > 1 else weight * features * products[k]
                )
                total = message.new_zeros(nodes, *message.shape[1:])
                received[path] = total.index_add(0, edges.target, message)
        return received

    def _weights(self, hidden: Tensor, graph: Tensor) -> dict[Path, Tensor]:
        """Each path's weights ``[E, copies]``, a function of the distance."""
        weights: dict[Path, Tensor] = {}
        for target, linear in self.radial_out.items():
            found = [path for path in self.paths if path.target == target]
            if found:
                parts = linear(hidden).split([self.conv[path.source] for path in found], dim=-1)
                weights |= zip(found, parts, strict=True)
        for k, path in enumerate(self.all_paths):
            if path in weights:
                weights[path] = self.path_gate[k](weights[path][:, None], graph)[:, 0]
        return weights

    def channel_groups(self) -> list[ChannelGroup]:
        """Copies into the convolution, paths, radial channels (the stream is the network's)."""
        groups = []
        for ir, n in self.conv.items():
            if n:
                wire = self._wire(ir)
                groups.append(
                    ChannelGroup(f"conv.{ir}", "conv", n, wire, f"conv_gate.{ir}", family="conv")
                )
        for k, path in enumerate(self.all_paths):
            if path in self.paths:
                n = self.conv[path.source]
                entries = torch.arange(n)[None] + self._offset(path)
                members = (*self._reading(path.target, entries), *gate_members(f"path_gate.{k}", 1))
                groups.append(
                    ChannelGroup(f"path.{k}", "path", 1, members, f"path_gate.{k}", family="path")
                )
        for i, n in enumerate(self.shape.radial):
            inner = self._linear(self.radial[i]).output_members(f"radial.{i}")
            if i + 1 < len(self.radial):
                inner += self._linear(self.radial[i + 1]).input_members(f"radial.{i + 1}", n, [0])
            else:
                for ir, linear in self.radial_out.items():
                    if self._arriving(ir):
                        inner += self._linear(linear).input_members(f"radial_out.{ir}", n, [0])
            inner += gate_members(f"radial_gate.{i}", n)
            groups.append(
                ChannelGroup(f"radial.{i}", "radial", n, tuple(inner), f"radial_gate.{i}")
            )
        return groups

    def _wire(self, ir: str) -> tuple[Member, ...]:
        """What belongs to the copies of an irrep that enter the convolution."""
        members = gate_members(f"conv_gate.{ir}", self.conv[ir])
        if ir in self.up:
            members += self._linear(self.up[ir]).output_members(f"up.{ir}")
        for target in self.radial_out:
            found = [p for p in self.paths if (p.source, p.target) == (ir, target)]
            if found:
                starts = torch.tensor([self._offset(path) for path in found])
                entries = torch.arange(self.conv[ir])[:, None] + starts[None]
                members += self._reading(target, entries)
        return tuple(members)

    def _offset(self, path: Path) -> int:
        """Where a path's copies begin among those that arrive at its target."""
        before = self.paths[: self.paths.index(path)]
        return sum(self.conv[p.source] for p in before if p.target == path.target)

    def _reading(self, target: str, entries: Tensor) -> list[Member]:
        """What belongs to some of the copies ``[n, block]`` that arrive at a target.

        A copy of the wire and a whole path share entries, so both say so.
        """
        names = [f"mix.{target}"] * (target in self.mix)
        names += [f"mix_gate.{ir}" for ir in self.gated] * (target == "0e")
        made = Member(f"radial_out.{target}.weight", 0, entries, shared=True)
        read = [
            replace(made, name=f"{name}.{leaf}", axis=axis, reads=True)
            for name in names
            for leaf, axis in (("weight", 1), ("coefficient", 0))
        ]
        return [made, *read]

    def output_members(self, ir: str) -> list[Member]:
        """What makes the copies of an irrep of the stream: rows, gate scalars' rows, the gate."""
        members = [
            *gate_members(f"stream_gate.{ir}", self.made[ir]),
            *self._linear(self.mix[ir]).output_members(f"mix.{ir}"),
        ]
        if ir in self.own:
            members += _either(self.own[ir]).output_members(f"own.{ir}")
        if ir in self.gated:
            members += self._linear(self.mix_gate[ir]).output_members(f"mix_gate.{ir}")
            if ir in self.own_gate:
                members += _either(self.own_gate[ir]).output_members(f"own_gate.{ir}")
        return members

    def input_members(self, ir: str) -> list[Member]:
        """What takes the copies of an irrep of the stream in."""
        n, members = self.copies[ir], []
        if ir in self.up:
            members += self._linear(self.up[ir]).input_members(f"up.{ir}", n, [0])
        if ir in self.own:
            members += _either(self.own[ir]).input_members(f"own.{ir}", n, [0])
        if ir == "0e":
            for gated in self.own_gate:
                reader = _either(self.own_gate[gated])
                members += reader.input_members(f"own_gate.{gated}", n, [0])
        return members

    @staticmethod
    def _linear(module: nn.Module) -> CopyLinear:
        assert isinstance(module, CopyLinear)
        return module


def _either(module: nn.Module) -> CopyLinear | ElementLinear:
    assert isinstance(module, CopyLinear | ElementLinear)
    return module
