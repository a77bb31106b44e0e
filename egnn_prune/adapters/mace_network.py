"""MACE's network with copies that can go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from e3nn import o3
from torch import Tensor, nn

from egnn_prune.adapters.activations import Activation
from egnn_prune.adapters.convolution import Edges, weight_of
from egnn_prune.adapters.element_linear import ElementLinear
from egnn_prune.adapters.mace_contraction import Species, SymmetricContraction
from egnn_prune.adapters.mace_layer import MaceLayer, MaceShape
from egnn_prune.adapters.radial import RadialBasis, RadialOptions
from egnn_prune.channels import ChannelGate, ChannelGroup, Member, gate_members
from egnn_prune.errors import ConfigError
from egnn_prune.models.irreps_linear import CopyLinear
from egnn_prune.models.irreps_paths import Couplings, eager_e3nn


@dataclass(frozen=True)
class MaceOptions:
    """What a network computes, apart from its widths.

    Attributes:
        radial: functions of the distance.
        lmax: the highest order of the spherical harmonics.
        activation: of radial networks and read-outs.
    """

    radial: RadialOptions
    lmax: int
    activation: Activation

    @property
    def cutoff(self) -> float:
        """The longest edge, in Angstrom."""
        return self.radial.cutoff


class MaceNetwork(nn.Module):
    """Energies of atoms by higher-order message passing (Batatia et al. 2022, MACE).

    Args:
        species: number of elements.
        embedding: scalars that an element becomes.
        layers: their shapes.
        options: what is computed.

    Shapes:
        ``species [N]``, ``vectors [E, 3]`` (target to source), ``edges [2, E]`` (source, target),
        ``graph [N]`` -> what the read-outs of all layers read ``[N, features]``, see
        :meth:`energies`.
    """

    def __init__(
        self, species: int, embedding: int, layers: Sequence[MaceShape], options: MaceOptions
    ) -> None:
        super().__init__()
        if species < 1 or embedding < 1 or not layers:
            raise ConfigError("a network needs an element, a scalar and a layer")
        self.species, self.options = species, options
        self.embedding = CopyLinear(embedding, [species])
        self.embedding_gate = ChannelGate(embedding)
        self.basis = RadialBasis(options.radial)
        with eager_e3nn():
            self.harmonics = o3.SphericalHarmonics(
                o3.Irreps.spherical_harmonics(options.lmax), False, "component"
            )
        made, built = {"0e": embedding}, []
        for shape in layers:
            layer = MaceLayer(made, shape, options.activation, options.radial.bessel, species)
            if not layer.made.get("0e"):
                raise ConfigError("every layer needs scalars (0e), which the read-outs read")
            built.append(layer)
            made = layer.made
        self.layers = nn.ModuleList(built)
        self.couplings = Couplings(
            (path.orders for layer in built for path in layer.all_paths),
            (path.orders for layer in built for path in layer.paths),
        )

    def forward(self, species: Tensor, vectors: Tensor, edges: Tensor, graph: Tensor) -> Tensor:
        """What the read-outs read."""
        r = vectors.square().sum(-1).sqrt()
        # a network that tells mirror images apart by parity alone may turn its vectors round, but
        # MACE's own go from source to target
        harmonics = self.harmonics(vectors / -r[:, None])
        shared = Edges.of(edges, graph, self.basis(r), harmonics, self.couplings)
        elements = Species.of(species, self.species, vectors.dtype)
        scalars = weight_of(self.embedding).T.index_select(0, species)
        features = {"0e": self.embedding_gate(scalars, graph)[:, None]}
        read = []
        for i in range(len(self.layers)):
            features = self.layer(i)(features, shared, graph, elements)
            if self.layer(i).shape.hidden >= 0:
                read.append(self.layer(i).features(features, graph))
        return torch.cat(read, -1)

    def energies(self, features: Tensor, graph: Tensor) -> Tensor:
        """Energies of the atoms ``[N]`` from what the read-outs read ``[N, features]``."""
        readouts = self._readouts()
        parts = features.split([len(r.coefficient) for r in readouts], dim=-1)
        each = [readout(part) for readout, part in zip(readouts, parts, strict=True)]
        return torch.cat(each, -1).sum(-1)

    def readout_weights(self) -> Tensor:
        """``[features]``: what the energy of an atom is linear in, with its weights."""
        return torch.cat([weight_of(readout)[0] for readout in self._readouts()])

    def _readouts(self) -> list[CopyLinear]:
        return [layer.readout for layer in self._layers() if layer.shape.hidden >= 0]

    def layer(self, i: int) -> MaceLayer:
        """A layer by its number."""
        layer = self.layers[i]
        assert isinstance(layer, MaceLayer)
        return layer

    def _layers(self) -> list[MaceLayer]:
        return [self.layer(i) for i in range(len(self.layers))]

    def channel_groups(self) -> list[ChannelGroup]:
        """The embedding, every layer's groups, and the copies of the stream behind it."""
        width = self.embedding.copies
        first = [
            *self.embedding.output_members("embedding"),
            *gate_members("embedding_gate", width),
            *_prefixed(self.layer(0).input_members("0e"), "layers.0"),
        ]
        groups = [ChannelGroup("embedding", "stream", width, tuple(first), "embedding_gate")]
        for i, layer in enumerate(self._layers()):
            name = f"layers.{i}"
            groups += [g.prefixed(name) for g in layer.channel_groups()]
            for ir, n in layer.made.items():
                members = _prefixed(layer.output_members(ir), name)
                if i + 1 < len(self.layers):
                    members += _prefixed(self.layer(i + 1).input_members(ir), f"layers.{i + 1}")
                gate = f"{name}.stream_gate.{ir}"
                groups.append(
                    ChannelGroup(f"{name}.stream.{ir}", "stream", n, tuple(members), gate)
                )
        return groups

    def species_axes(self) -> dict[str, int]:
        """The axis of each tensor of the state that holds one entry for every element."""
        axes = {"embedding.weight": 1, "embedding.coefficient": 0}
        for name, module in self.named_modules():
            if isinstance(module, ElementLinear):
                axes[f"{name}.weight"] = 0
            elif isinstance(module, SymmetricContraction) and not module.shared:
                axes |= {f"{name}.weights.{i}": 0 for i in range(len(module.terms))}
        return axes

    def resized(self, keep: dict[str, Tensor]) -> MaceNetwork:
        """A new network with ``len(keep[group])`` channels in each group (weights not copied)."""
        shapes = []
        for i, layer in enumerate(self._layers()):
            start = f"layers.{i}."
            mine = {k.removeprefix(start): v for k, v in keep.items() if k.startswith(start)}
            shapes.append(layer.shape.resized(mine))
        embedding = len(keep.get("embedding", range(self.embedding.copies)))
        return MaceNetwork(self.species, embedding, shapes, self.options)

    def config(self) -> dict[str, Any]:
        """What :meth:`from_config` needs to build this network again, as plain JSON."""
        return {
            "species": self.species,
            "embedding": self.embedding.copies,
            "layers": [asdict(layer.shape) for layer in self._layers()],
            "options": asdict(self.options),
        }

    @classmethod
    def from_config(cls, spec: dict[str, Any]) -> MaceNetwork:
        """Build the network that :meth:`config` described (weights not loaded)."""
        options = spec["options"]
        return cls(
            spec["species"],
            spec["embedding"],
            [MaceShape.from_config(s) for s in spec["layers"]],
            MaceOptions(
                RadialOptions(**options["radial"]),
                options["lmax"],
                Activation(**options["activation"]),
            ),
        )

    def layout(self) -> list[dict[str, Any]]:
        """For each layer the copies of every irrep and the paths, for tables and figures."""
        return [
            {
                "conv": dict(layer.conv),
                "stream": dict(layer.listed),
                "message": layer.shape.message,
                "radial": list(layer.shape.radial),
                "paths": [
                    dict(zip(("source", "l", "target", "kept"), path, strict=True))
                    for path in layer.shape.paths
                ],
            }
            for layer in self._layers()
        ]


def _prefixed(members: list[Member], name: str) -> list[Member]:
    return [m.prefixed(name) for m in members]
