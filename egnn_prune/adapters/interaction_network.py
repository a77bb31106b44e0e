"""The NequIP family's network: what NequIP and SevenNet have in common, with copies that can go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from e3nn import o3
from torch import Tensor, nn

from egnn_prune.adapters.activations import Activation, Activations
from egnn_prune.adapters.convolution import Edges
from egnn_prune.adapters.element_linear import ElementLinear
from egnn_prune.adapters.interaction_layer import InteractionLayer, LayerShape
from egnn_prune.adapters.radial import RadialBasis, RadialOptions
from egnn_prune.channels import ChannelGate, ChannelGroup, Member, gate_members
from egnn_prune.errors import ConfigError
from egnn_prune.models.irreps_linear import CopyLinear
from egnn_prune.models.irreps_paths import Couplings, dimension, eager_e3nn

#: The highest order for which e3nn has tables.
MAX_ORDER = 11


@dataclass(frozen=True)
class InteractionOptions:
    """What a network computes, apart from its widths.

    Attributes:
        radial: functions of the distance.
        lmax: the highest order of the spherical harmonics.
        activations: of every layer.
        self_connection: ``"none"``, ``"linear"`` or ``"elements"``.
        bias: whether scalars have a bias.
        parity: whether mirror images are told apart by the features' parity (O(3)); a network
            without (SO(3)) need not be symmetric under reflections.
    """

    radial: RadialOptions
    lmax: int
    activations: Activations
    self_connection: str = "linear"
    bias: bool = False
    parity: bool = False

    def __post_init__(self) -> None:
        """Refuse orders that e3nn does not know."""
        if self.lmax not in range(MAX_ORDER + 1):
            raise ConfigError(f"lmax must be 0 to {MAX_ORDER}, not {self.lmax}")

    @property
    def cutoff(self) -> float:
        """The longest edge, in Angstrom."""
        return self.radial.cutoff


class InteractionNetwork(nn.Module):
    """Energies of atoms by message passing on irreps (NequIP, SevenNet).

    Args:
        species: number of elements.
        embedding: scalars that an element becomes.
        layers: their shapes.
        readout: widths of the linear maps between the last scalars and the energy; none for a
            single map.
        options: what is computed.

    Shapes:
        ``species [N]``, ``vectors [E, 3]`` (target to source), ``edges [2, E]`` (source, target),
        ``graph [N]`` -> scalars of the last layer ``[N, features]``, see :meth:`energies`.
    """

    def __init__(
        self,
        species: int,
        embedding: int,
        layers: Sequence[LayerShape],
        readout: Sequence[int],
        options: InteractionOptions,
    ) -> None:
        super().__init__()
        if species < 1 or embedding < 1 or not layers:
            raise ConfigError("a network needs an element, a scalar and a layer")
        if any(path[1] > options.lmax for shape in layers for path in shape.paths):
            raise ConfigError(f"a path reads spherical harmonics beyond lmax = {options.lmax}")
        self.species, self.options = species, options
        self.embedding = CopyLinear(embedding, [species], options.bias)
        self.embedding_gate = ChannelGate(embedding)
        self.basis = RadialBasis(options.radial)
        with eager_e3nn():
            self.harmonics = o3.SphericalHarmonics(
                o3.Irreps.spherical_harmonics(options.lmax), False, "component"
            )
        made, built = {"0e": embedding}, []
        for shape in layers:
            built.append(
                InteractionLayer(
                    made,
                    shape,
                    options.activations,
                    options.radial.bessel,
                    options.self_connection if shape.own else "none",
                    options.bias,
                    species,
                )
            )
            made = built[-1].made
        if not made.get("0e"):
            raise ConfigError("the last layer needs scalars (0e), which the read-out reads")
        self.layers = nn.ModuleList(built)
        listed = (path.orders for layer in built for path in layer.all_paths)
        self.couplings = Couplings(listed, (path.orders for layer in built for path in layer.paths))
        widths = (made["0e"], *readout, 1)
        self.readout = nn.ModuleList(CopyLinear(b, [a], options.bias) for a, b in pairwise(widths))
        self.readout_gate = nn.ModuleList(ChannelGate(n) for n in readout)

    def forward(self, species: Tensor, vectors: Tensor, edges: Tensor, graph: Tensor) -> Tensor:
        """The scalars that the read-out reads."""
        r = vectors.square().sum(-1).sqrt()
        harmonics = self.harmonics(vectors / r[:, None])
        shared = Edges.of(edges, graph, self.basis(r), harmonics, self.couplings)
        assert self.embedding.weight is not None
        weight = (self.embedding.weight * self.embedding.coefficient).T
        scalars = weight.index_select(0, species)
        if self.embedding.bias is not None:
            scalars = scalars + self.embedding.bias
        features = {"0e": self.embedding_gate(scalars, graph)[:, None]}
        for layer in self.layers:
            features = layer(features, shared, graph, species)
        return features["0e"][:, 0]

    def energies(self, features: Tensor, graph: Tensor) -> Tensor:
        """Energies of the atoms ``[N]`` from the last scalars ``[N, features]``."""
        for k, linear in enumerate(self.readout):
            features = linear(features)
            if k < len(self.readout_gate):
                features = self.readout_gate[k](features, graph)
        return features[:, 0]

    def readout_weights(self) -> Tensor:
        """``[features]``: what the energy of an atom is linear in, with its weights."""
        weights = None
        for k in range(len(self.readout)):
            linear = self._linear(k)
            assert linear.weight is not None
            matrix = linear.weight * linear.coefficient
            weights = matrix if weights is None else matrix @ weights
        assert weights is not None
        return weights[0]

    def layer(self, i: int) -> InteractionLayer:
        """A layer by its number."""
        layer = self.layers[i]
        assert isinstance(layer, InteractionLayer)
        return layer

    def channel_groups(self) -> list[ChannelGroup]:
        """The embedding, for every layer its groups and the stream behind it, the read-out."""
        width = self.embedding.copies
        first = [
            *self.embedding.output_members("embedding"),
            *gate_members("embedding_gate", width),
            *_prefixed(self.layer(0).input_members("0e"), "layers.0"),
        ]
        groups = [ChannelGroup("embedding", "stream", width, tuple(first), "embedding_gate")]
        for i in range(len(self.layers)):
            layer, name = self.layer(i), f"layers.{i}"
            groups += [g.prefixed(name) for g in layer.channel_groups()]
            for ir, n in layer.made.items():
                members = _prefixed(layer.output_members(ir), name)
                if i + 1 < len(self.layers):
                    members += _prefixed(self.layer(i + 1).input_members(ir), f"layers.{i + 1}")
                elif ir == "0e":
                    members += self._linear(0).input_members("readout.0", n, [0])
                group = ChannelGroup(
                    f"{name}.stream.{ir}", "stream", n, tuple(members), f"{name}.stream_gate.{ir}"
                )
                last = i + 1 == len(self.layers)
                groups.append(group if last else replace(group, family=f"{name}.stream"))
        for k in range(len(self.readout_gate)):
            n, name = self._linear(k).copies, f"readout.{k}"
            inner = [
                *self._linear(k).output_members(name),
                *self._linear(k + 1).input_members(f"readout.{k + 1}", n, [0]),
                *gate_members(f"readout_gate.{k}", n),
            ]
            groups.append(ChannelGroup(name, "hidden", n, tuple(inner), f"readout_gate.{k}"))
        return groups

    def _linear(self, k: int) -> CopyLinear:
        linear = self.readout[k]
        assert isinstance(linear, CopyLinear)
        return linear

    def resized(self, keep: dict[str, Tensor]) -> InteractionNetwork:
        """A new network with ``len(keep[group])`` channels in each group (weights not copied)."""
        spec = self.config()
        shapes = []
        for i in range(len(self.layers)):
            start = f"layers.{i}."
            mine = {k.removeprefix(start): v for k, v in keep.items() if k.startswith(start)}
            shapes.append(self.layer(i).shape.resized(mine))
        readout = [len(keep.get(f"readout.{k}", range(n))) for k, n in enumerate(spec["readout"])]
        embedding = len(keep.get("embedding", range(self.embedding.copies)))
        return InteractionNetwork(self.species, embedding, shapes, readout, self.options)

    def config(self) -> dict[str, Any]:
        """What :meth:`from_config` needs to build this network again, as plain JSON."""
        return {
            "species": self.species,
            "embedding": self.embedding.copies,
            "layers": [asdict(self.layer(i).shape) for i in range(len(self.layers))],
            "readout": [self._linear(k).copies for k in range(len(self.readout_gate))],
            "options": asdict(self.options),
        }

    @classmethod
    def from_config(cls, spec: dict[str, Any]) -> InteractionNetwork:
        """Build the network that :meth:`config` described (weights not loaded)."""
        shapes = []
        for layer in spec["layers"]:
            paths = tuple((*path[:3], bool(path[3])) for path in layer["paths"])
            shape = LayerShape(layer["conv"], layer["made"], tuple(layer["radial"]), paths)
            shapes.append(replace(shape, own=layer.get("own", True)))
        options = dict(spec["options"])
        functions = {k: Activation(**v) for k, v in options.pop("activations").items()}
        radial = RadialOptions(**options.pop("radial"))
        return cls(
            spec["species"],
            spec["embedding"],
            shapes,
            spec["readout"],
            InteractionOptions(radial, activations=Activations(**functions), **options),
        )

    def species_axes(self) -> dict[str, int]:
        """Which tensors of ``state_dict()`` have an entry for each element, and on which axis."""
        axes = {"embedding.weight": 1, "embedding.coefficient": 0}
        named = self.named_modules()
        return axes | {f"{k}.weight": 0 for k, m in named if isinstance(m, ElementLinear)}

    def layout(self) -> list[dict[str, Any]]:
        """For each layer the copies of every irrep and the paths, for tables and figures."""
        return [
            {
                "conv": dict(layer.conv),
                "stream": dict(layer.listed),
                "radial": list(layer.shape.radial),
                "paths": [
                    dict(zip(("source", "l", "target", "kept"), path, strict=True))
                    for path in layer.shape.paths
                ],
            }
            for layer in (self.layer(i) for i in range(len(self.layers)))
        ]


def orders_of(path: tuple[str, int, str, bool]) -> tuple[int, int, int]:
    """(l1, l2, l3) of a listed path."""
    return (dimension(path[0]) - 1) // 2, path[1], (dimension(path[2]) - 1) // 2


def _prefixed(members: list[Member], name: str) -> list[Member]:
    return [m.prefixed(name) for m in members]
