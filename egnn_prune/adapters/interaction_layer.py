"""One interaction block of the NequIP family (NequIP, SevenNet), with its channel groups."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from egnn_prune.adapters.activations import Activations
from egnn_prune.adapters.convolution import Convolution, Edges, gated, linear_of
from egnn_prune.adapters.element_linear import ElementLinear
from egnn_prune.channels import ChannelGate, Member, gate_members
from egnn_prune.errors import ConfigError
from egnn_prune.models.irreps_linear import CopyLinear
from egnn_prune.models.irreps_paths import dimension, format_irreps, parse_irreps

#: What a layer adds to the messages: nothing, a linear map of its input, one for each element.
SELF_CONNECTIONS = ("none", "linear", "elements")


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


class InteractionLayer(Convolution):
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
        if self_connection not in SELF_CONNECTIONS:
            raise ConfigError(f"self_connection must be one of {', '.join(SELF_CONNECTIONS)}")
        radial = (bessel, *shape.radial)
        conv = parse_irreps(shape.conv)
        super().__init__(copies, conv, radial, shape.paths, activations.radial, bias)
        self.shape, self.activations = shape, activations
        self.listed = parse_irreps(shape.made)
        self.made = {ir: n for ir, n in self.listed.items() if n}
        self.gated = [ir for ir in self.made if dimension(ir) > 1]

        def mixer(ir: str, n: int) -> CopyLinear:
            arriving = self.arriving(ir)
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
        self.stream_gate = nn.ModuleDict({ir: ChannelGate(n) for ir, n in self.listed.items()})

    def readers(self, target: str) -> list[str]:
        """The maps to the copies of an irrep, and to all gates."""
        names = [f"mix.{target}"] * (target in self.mix)
        return names + [f"mix_gate.{ir}" for ir in self.gated] * (target == "0e")

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
        received = self.received(x, edges, graph)

        def mixed(mix: nn.Module, own: nn.ModuleDict, key: str, ir: str, arrived: Tensor) -> Tensor:
            y = mix(arrived)
            if key not in own:
                return y
            reader, mine = own[key], x[ir]
            by_element = isinstance(reader, ElementLinear)
            return y + (reader(mine, species) if by_element else reader(mine))

        scalars = self.arrived(received, "0e", nodes)
        out = {}
        for ir, mix in self.mix.items():
            y = mixed(
                mix, self.own, ir, ir, scalars if ir == "0e" else self.arrived(received, ir, nodes)
            )
            if ir in self.gated:
                gate = mixed(self.mix_gate[ir], self.own_gate, ir, "0e", scalars)
                y = y * self.activations.gate(gate)
            else:
                y = (self.activations.even if ir == "0e" else self.activations.odd)(y)
            out[ir] = gated(self.stream_gate[ir], y, graph)
        return out

    def output_members(self, ir: str) -> list[Member]:
        """What makes the copies of an irrep of the stream: rows, gate scalars' rows, the gate."""
        members = [
            *gate_members(f"stream_gate.{ir}", self.made[ir]),
            *linear_of(self.mix[ir]).output_members(f"mix.{ir}"),
        ]
        if ir in self.own:
            members += _either(self.own[ir]).output_members(f"own.{ir}")
        if ir in self.gated:
            members += linear_of(self.mix_gate[ir]).output_members(f"mix_gate.{ir}")
            if ir in self.own_gate:
                members += _either(self.own_gate[ir]).output_members(f"own_gate.{ir}")
        return members

    def input_members(self, ir: str) -> list[Member]:
        """What takes the copies of an irrep of the stream in."""
        n, members = self.copies[ir], []
        if ir in self.up:
            members += linear_of(self.up[ir]).input_members(f"up.{ir}", n, [0])
        if ir in self.own:
            members += _either(self.own[ir]).input_members(f"own.{ir}", n, [0])
        if ir == "0e":
            for other in self.own_gate:
                reader = _either(self.own_gate[other])
                members += reader.input_members(f"own_gate.{other}", n, [0])
        return members


def _either(module: nn.Module) -> CopyLinear | ElementLinear:
    assert isinstance(module, CopyLinear | ElementLinear)
    return module
