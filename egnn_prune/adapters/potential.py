"""Somebody else's potential as a predictor of this package: energies whose slopes are forces."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

import torch
from ase.data import chemical_symbols
from torch import Tensor
from torch_geometric.data import Batch, Data

from egnn_prune.adapters.interaction_network import InteractionNetwork
from egnn_prune.adapters.mace_network import MaceNetwork
from egnn_prune.channels import ChannelGroup
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.graphs import (
    check_graphs,
    edge_vectors,
    graph_of_node,
    graph_pointer,
    must_check,
    with_edges,
)
from egnn_prune.graphs.batch_record import drop_found_edges, is_prepared, is_stale, mark_prepared
from egnn_prune.models import TargetScale
from egnn_prune.prediction import Prediction, Predictor


class AtomNetwork(Protocol):
    """What an :class:`AdoptedPotential` holds; ``options.cutoff`` is in Angstrom."""

    options: Any
    species: int

    def __call__(self, species: Tensor, vectors: Tensor, edges: Tensor, graph: Tensor) -> Tensor:
        """Invariant features of the atoms ``[N, features]``."""

    def energies(self, features: Tensor, graph: Tensor) -> Tensor:
        """Their energies ``[N]``, before the scale of each element."""

    def readout_weights(self) -> Tensor:
        """``[features]``, where the energies are linear in the features."""

    def channel_groups(self) -> list[ChannelGroup]:
        """All groups of channels."""

    def resized(self, keep: dict[str, Tensor]) -> Any:
        """A new network with only the channels ``keep[group name]``."""

    def config(self) -> dict[str, Any]:
        """What builds it again, as plain JSON."""

    def layout(self) -> list[dict[str, Any]]:
        """For each layer the copies of every irrep and the paths."""


#: Networks that a file may name.
NETWORKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "InteractionNetwork": InteractionNetwork.from_config,
    "MaceNetwork": MaceNetwork.from_config,
}
#: Kinds of groups that pruning is offered unless others are asked for: the stream gains no time,
#: and the radial network holds most of the weights and a hundredth of the time.
KINDS = ("conv", "message", "path")


class AdoptedPotential(Predictor):
    r"""The total energy of each graph, in eV, from a network that was trained elsewhere.

    .. math:: E_b = \sum_{i \in b} \left( s_{z_i} e_i + c_{z_i} \right)

    e are the network's energies of atoms, in its own precision; the scale s and the shift c of
    every element are the potential's. Sums and shifts are in float64: float32 cannot carry energies
    of -17,660 eV. Forces and stress are :func:`~egnn_prune.models.energy_forces_stress`'s.

    Args:
        network: such as an :class:`InteractionNetwork`.
        elements: atomic numbers that the network knows, in its order.
        shifts: c, in eV, in the same order.
        atom_scale: s, in eV, in the same order.
        kinds: of the channel groups that pruning is offered.

    Raises:
        DataError: (in ``forward``) an element that the potential never saw, or an unusable graph.

    Shapes:
        a batch of graphs with ``z [N]``, ``pos [N, 3]`` in Angstrom, and ``cell``, ``pbc`` where
        periodic -> a :class:`Prediction` of ``[B]`` without variance.
    """

    unit = "eV"
    states_noise = False
    atom_layer = "network"
    atom_scale: Tensor

    def __init__(
        self,
        network: AtomNetwork,
        elements: Sequence[int],
        shifts: Sequence[float] = (),
        atom_scale: Sequence[float] | Tensor = (),
        kinds: Sequence[str] = KINDS,
    ) -> None:
        super().__init__()
        self.elements = tuple(int(z) for z in elements)
        if network.species != len(self.elements):
            raise ConfigError(f"a network of {network.species} elements got {len(elements)} names")
        self.network: Any = network
        self.kinds = tuple(kinds)
        self.scale = TargetScale(tuple(shifts) or (0.0,) * len(self.elements))
        scale = torch.as_tensor(atom_scale if len(atom_scale) else [1.0] * len(self.elements))
        # in its own precision: a float64 potential would lose digits on the way through float32
        self.register_buffer("atom_scale", scale.clone())

    def forward(self, batch: Batch | Data, samples: int = 1) -> Prediction:
        """Predict energies in eV."""
        return self._prediction(batch, *self.normalised(batch, samples))

    def _prediction(self, batch: Batch | Data, means: Tensor, variances: Tensor) -> Prediction:
        means = means.double() * self.scale.scale + self.reference(batch)
        return Prediction.from_members(means, variances.double() * self.scale.scale**2)

    def normalised(self, batch: Batch | Data, samples: int = 1) -> tuple[Tensor, Tensor]:
        """Energies without the shifts, in units of the scale, and zeros, each ``[1, B]``."""
        batch = self.prepared(batch)
        _, energies = self._atoms(batch)
        graphs = graph_pointer(batch).shape[0] - 1
        means = energies.new_zeros(graphs).index_add(0, graph_of_node(batch), energies)
        means = (means / self.scale.scale)[None]
        return means, torch.zeros_like(means)

    def _atoms(self, batch: Batch | Data) -> tuple[Tensor, Tensor]:
        """Features ``[N, features]``, and energies ``[N]`` in eV and float64."""
        graph = graph_of_node(batch)
        # differences in the precision of the positions: a far-away origin costs no accuracy
        vectors = -edge_vectors(batch.pos, batch.edge_index, batch.get("edge_shift"))
        features = self.network(batch.species, vectors.to(self._dtype), batch.edge_index, graph)
        scale = self.atom_scale.index_select(0, batch.species)
        return features, (self.network.energies(features, graph) * scale).double()

    def atom_energies(self, batch: Batch | Data, samples: int = 1) -> Tensor:
        """Energies of single atoms with their elements' shifts, ``[1, N]`` in eV and float64."""
        batch = self.prepared(batch)
        places = torch.arange(len(self.elements), device=batch.species.device)
        counts = (batch.species[:, None] == places).double()
        atoms = graph_pointer(batch).diff().index_select(0, graph_of_node(batch))
        own = replace(self.scale, shift=0.0).reference(counts) + self.scale.shift / atoms.double()
        return (self._atoms(batch)[1] + own)[None]

    def last_layer(self, batch: Batch | Data) -> tuple[Tensor, Prediction]:
        r"""Features that the energy is linear in, and the prediction, from one pass.

        :math:`E_b = \phi_b \cdot w + \text{reference}_b` with :meth:`last_layer_weights` w.

        Returns:
            ``[B, features]`` in eV and float64, and the prediction.
        """
        batch = self.prepared(batch)
        graph, graphs = graph_of_node(batch), graph_pointer(batch).shape[0] - 1
        features, energies = self._atoms(batch)
        scaled = features.double() * self.atom_scale.index_select(0, batch.species)[:, None]
        pooled = scaled.new_zeros(graphs, scaled.shape[1]).index_add(0, graph, scaled)
        means = energies.new_zeros(graphs).index_add(0, graph, energies)[None] / self.scale.scale
        return pooled, self._prediction(batch, means, torch.zeros_like(means))

    def last_layer_weights(self) -> Tensor:
        """The weights that :meth:`last_layer` features are multiplied with, ``[features]``."""
        return self.network.readout_weights().double()

    def normalise(self, batch: Batch | Data, y: Tensor | None) -> Tensor:
        """Energies ``[B]`` without the shifts, in units of the scale and float64.

        Raises:
            DataError: there is not one energy for each graph.
        """
        reference = self.reference(batch)
        if y is None or y.shape != reference.shape:
            found = "there is none" if y is None else f"not {tuple(y.shape)}"
            raise DataError(
                f"training needs energies in batch.y of shape {tuple(reference.shape)}, {found}"
            )
        return (y.double() - reference) / self.scale.scale

    def reference(self, batch: Batch | Data) -> Tensor:
        """The shifts of the elements alone, ``[B]``, in eV and float64."""
        return self.scale.reference(self.element_counts(batch))

    def element_counts(self, batch: Batch | Data) -> Tensor:
        """``[B, elements]``: how many atoms of each element every graph has, in float64."""
        graphs = graph_pointer(batch).shape[0] - 1
        species = batch.get("species")
        index = self._species(batch.z) if species is None else species
        places = torch.arange(len(self.elements), device=index.device)
        one_hot = (index[:, None] == places).double()
        return one_hot.new_zeros(graphs, len(self.elements)).index_add(
            0, graph_of_node(batch), one_hot
        )

    def _species(self, z: Tensor) -> Tensor:
        """The place of every atom's element in the network's list, ``[N]``."""
        known = torch.tensor(self.elements, device=z.device)
        one_hot = z[:, None] == known
        if must_check() and not bool(one_hot.any(1).all()):
            number = int(z[~one_hot.any(1)][0])
            name = chemical_symbols[number] if 0 < number < len(chemical_symbols) else "?"
            some = ", ".join(chemical_symbols[e] for e in sorted(self.elements)[:12])
            more = f" and {len(self.elements) - 12} more" if len(self.elements) > 12 else ""
            raise DataError(
                f"the potential does not know the element {name} (atomic number {number}); it "
                f"knows {some}{more}: take another potential, or structures without {name}"
            )
        return one_hot.to(torch.uint8).argmax(1)

    @property
    def _dtype(self) -> torch.dtype:
        return self.atom_scale.dtype

    def prepared(self, batch: Batch | Data) -> Batch | Data:
        """The batch, checked, with ``species`` and edges: all that no weight changes."""
        if not isinstance(batch, Data):
            check_graphs(batch)  # says what it is instead
        cutoff = self.network.options.cutoff
        needs = (self.elements, cutoff, self._dtype)
        if is_prepared(batch, needs) and not (must_check() and is_stale(batch, cutoff)):
            return batch
        if must_check():
            check_graphs(batch)
        out = copy.copy(batch)
        drop_found_edges(out)
        z = getattr(batch, "z", None)
        if z is None or z.shape != batch.pos.shape[:1] or z.dtype == torch.bool:
            raise DataError("every atom needs an atomic number in batch.z, shape [atoms]")
        if z.is_floating_point():
            raise DataError(
                f"atomic numbers in batch.z must be whole numbers (torch.long), not {z.dtype}"
            )
        if batch.pos.shape[1] != 3:
            raise DataError(f"atoms have positions in 3 dimensions, not {batch.pos.shape[1]}")
        out.species = self._species(z)
        out = with_edges(out, cutoff)
        mark_prepared(out, needs)
        return out

    def offering(self, *kinds: str) -> AdoptedPotential:
        """The same network (not a copy), which offers pruning groups of these kinds.

        Raises:
            ConfigError: there are no groups of a kind.
        """
        known = sorted({g.kind for g in self.network.channel_groups()})
        strange = [kind for kind in kinds if kind not in known]
        if strange or not kinds:
            raise ConfigError(
                f"the network has channels of the kinds {', '.join(known)}, "
                f"not {strange[0] if strange else 'none at all'}"
            )
        twin = copy.copy(self)
        twin.kinds = kinds
        return twin

    def channel_groups(self) -> list[ChannelGroup]:
        """The groups of the kinds that are offered."""
        groups = [g.prefixed("network") for g in self.network.channel_groups()]
        return [g for g in groups if g.kind in self.kinds]

    def resized(self, keep: dict[str, Tensor]) -> AdoptedPotential:
        """A new potential with ``len(keep[group])`` channels in each group (weights not copied)."""
        inner = {k.removeprefix("network."): v for k, v in keep.items()}
        return self.with_network(self.network.resized(inner))

    def with_network(self, network: AtomNetwork) -> AdoptedPotential:
        """A new potential of the same elements, shifts and scales around another network."""
        twin = AdoptedPotential(
            network, self.elements, self.scale.per_element, self.atom_scale, self.kinds
        )
        twin.scale = replace(self.scale)
        return twin.to(self.atom_scale.device, self._dtype)

    def message_passing_modules(self) -> list[str]:
        """The submodules that freezing message passing locks: all but the read-out."""
        return [f"network.{name}" for name in self.network._modules if "readout" not in name]

    def config(self) -> dict[str, object]:
        """What :meth:`from_config` needs to build this potential again, as plain JSON."""
        return {
            "network_class": type(self.network).__name__,
            "network": self.network.config(),
            "elements": list(self.elements),
            "scale": asdict(self.scale),
            "kinds": list(self.kinds),
        }

    @classmethod
    def from_config(cls, spec: dict[str, Any]) -> AdoptedPotential:
        """Build the potential that :meth:`config` described (weights not loaded).

        Raises:
            ConfigError: it describes none, as a damaged file may.
        """
        elements, shifts = spec["elements"], spec["scale"]["per_element"]
        known = all(type(z) is int and z < len(chemical_symbols) for z in elements)
        if not known or len(set(elements)) != len(elements):
            raise ConfigError("a potential's elements are different atomic numbers")
        if len(shifts) != len(elements) or not all(isinstance(c, int | float) for c in shifts):
            raise ConfigError("a potential has one shift for each of its elements")
        # before anything of that size is built
        if spec["network"].get("species", len(elements)) != len(elements):
            raise ConfigError("a potential's network knows another number of elements")
        if not all(isinstance(kind, str) for kind in spec["kinds"]):
            raise ConfigError("kinds of channels are names")
        network = NETWORKS[spec["network_class"]](spec["network"])
        model = cls(network, spec["elements"], kinds=spec["kinds"])
        model.scale = TargetScale(
            **{**spec["scale"], "per_element": tuple(spec["scale"]["per_element"])}
        )
        return model
