"""A network with a read-out: from a batch of molecules to a prediction with an error bar."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.utils import scatter

from egnn_prune.channels import ChannelGroup, gates
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.graphs import (
    check_graphs,
    graph_of_node,
    graph_pointer,
    must_check,
    replicate,
    with_edges,
)
from egnn_prune.graphs.batch_record import (
    drop_found_edges,
    is_prepared,
    is_stale,
    mark_prepared,
)
from egnn_prune.models.egnn import EGNN
from egnn_prune.models.egnn_layer import EGNNOptions, LayerWidths
from egnn_prune.models.heads import MeanVarianceHead, split_samples
from egnn_prune.models.irreps_layer import IrrepsOptions
from egnn_prune.models.irreps_net import IrrepsNet
from egnn_prune.models.trunk import Trunk
from egnn_prune.prediction import Prediction, Predictor

#: The networks that a :class:`PropertyModel` can be built on, by the names that files carry.
TRUNKS: dict[str, type[Trunk]] = {"EGNN": EGNN, "IrrepsNet": IrrepsNet}


@dataclass(frozen=True)
class TargetScale:
    r"""How a target is brought to zero mean and unit variance, in float64.

    :math:`\tilde y = (y - \sum_a c_{z_a} - b) / s`. The per-element terms matter for energies: a
    float32 number near -17,660 eV has a spacing of 2 meV. Targets that grow with the number of
    atoms have no b: two structures far apart have the sum of their energies.

    Attributes:
        per_element: energy per atom of each element (same order as the model's), or empty.
        shift: b, in the target's unit; zero beside per-element terms, except in files of version
            0.1, which keep theirs.
        scale: s, in the target's unit.
        atoms: of a typical training structure, to which the read-out states the noise; that of
            others grows with their number of atoms, as variances of independent parts add. 0: the
            noise is the same for every size (of targets that do not grow, and in files of
            version 0.1).
    """

    per_element: tuple[float, ...] = ()
    shift: float = 0.0
    scale: float = 1.0
    atoms: float = 0.0

    @classmethod
    def fit(cls, counts: Tensor, y: Tensor, references: Tensor | None = None) -> TargetScale:
        """Least squares per element and the size of what is left, or mean and deviation.

        Args:
            counts: ``[B, elements]``, atoms of each element, or ``[B, 0]`` for a target that does
                not grow with the number of atoms.
            y: ``[B]``, training targets.
            references: ``[elements]``, energies of isolated atoms. What the data leave open (which
                part of the energy each element has, where all structures have the same formula)
                is as close to them as it can be; without them, to zero.
        """
        counts, y = counts.double().cpu(), y.double().cpu()
        per_element: tuple[float, ...] = ()
        size = float(y.abs().max())
        if counts.shape[1]:
            start = counts.new_zeros(counts.shape[1]) if references is None else references.double()
            rest = (y - counts @ start)[:, None]
            # gelsd: elements whose counts are collinear in the data share their energy
            solution = start + torch.linalg.lstsq(counts, rest, driver="gelsd").solution.flatten()
            per_element = tuple(solution.tolist())
            y = y - counts @ solution
        # a fit that is exact leaves rounding noise, which is no scale to learn on
        floor = 1e-9 * size
        if per_element:  # without a shift: what is left is measured from zero
            left = float(y.square().mean().sqrt()) if len(y) > 1 else 0.0
            atoms = float(counts.sum(1).mean())
            return cls(per_element, 0.0, left if left > floor else 1.0, atoms)
        left = float(y.std()) if len(y) > 1 else 0.0
        return cls((), float(y.mean()), left if left > floor else 1.0)

    def reference(self, counts: Tensor) -> Tensor:
        """What is subtracted from each target, ``counts [B, elements] -> [B]``, in float64."""
        counts = counts.double()
        if not self.per_element:
            return counts.new_full((counts.shape[0],), self.shift)
        weights = torch.tensor(self.per_element, dtype=torch.float64, device=counts.device)
        return counts @ weights + self.shift


def _is_no_number(value: object) -> bool:
    return isinstance(value, bool) or not isinstance(value, int | float)


def _check_atoms(batch: Batch | Data) -> None:
    """Refuse atoms that are none: a mask for their numbers, a plane for their space."""
    if batch.z.dtype == torch.bool or batch.z.is_floating_point():
        raise DataError(
            f"atomic numbers in batch.z must be whole numbers (torch.long), not {batch.z.dtype}"
        )
    if batch.pos.shape[1] != 3:
        raise DataError(
            f"atoms have positions in 3 dimensions, not {batch.pos.shape[1]}; give batch.pos "
            "[nodes, 3], with zeros for a flat molecule"
        )


class PropertyModel(Predictor):
    """Predicts a scalar of each graph (or node) with mean, variance and members.

    Atoms enter as one-hot elements, or as ``batch.x`` where ``elements`` is empty. Predictions are
    in the target's unit and in float64; the network itself works in its parameters' precision.

    Args:
        trunk: the message-passing network, an :class:`EGNN` or an :class:`IrrepsNet`.
        head: the read-out.
        elements: atomic numbers that the model knows, sorted.
        scale: the target's normalisation.

    Raises:
        DataError: (in ``forward``) an element that the model never saw, or an unusable graph.
    """

    atom_layer = "head.gate"

    def __init__(
        self,
        trunk: Trunk,
        head: MeanVarianceHead,
        elements: Sequence[int] = (),
        scale: TargetScale | None = None,
    ) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head
        self.elements = tuple(int(z) for z in elements)
        self.scale = scale or TargetScale()

    @classmethod
    def build(
        cls,
        elements: Sequence[int],
        *,
        hidden: int = 64,
        layers: int = 4,
        members: int = 1,
        pool: str = "sum",
        readout_dropout: float = 0.0,
        options: EGNNOptions | None = None,
        scale: TargetScale | None = None,
        in_features: int = 0,
    ) -> PropertyModel:
        """A fresh EGNN of uniform width with a read-out; the last layer does not move nodes.

        Args:
            elements: atomic numbers in the data, or empty to use ``batch.x``.
            hidden: width of every part.
            layers: message-passing layers.
            members: read-outs that share the trunk.
            pool: see :class:`MeanVarianceHead`.
            readout_dropout: see :class:`MeanVarianceHead`.
            options: what the trunk computes.
            scale: the target's normalisation.
            in_features: width of ``batch.x`` where there are no elements.
        """
        widths = [LayerWidths.uniform(hidden)] * layers
        if layers:
            widths[-1] = replace(widths[-1], position=0, velocity=0)
        trunk = EGNN(len(elements) or in_features, hidden, options=options, widths=widths)
        head = MeanVarianceHead(hidden, hidden, members, pool, readout_dropout)
        return cls(trunk, head, elements, scale)

    @classmethod
    def build_irreps(
        cls,
        elements: Sequence[int],
        *,
        copies: int = 32,
        layers: int = 3,
        radial: int = 64,
        hidden: int = 64,
        members: int = 1,
        pool: str = "sum",
        readout_dropout: float = 0.0,
        options: IrrepsOptions | None = None,
        scale: TargetScale | None = None,
        in_features: int = 0,
    ) -> PropertyModel:
        """A fresh :class:`IrrepsNet` with a read-out.

        Args:
            elements: atomic numbers in the data, or empty to use ``batch.x``.
            copies: copies of each irrep in each layer.
            layers: interaction blocks.
            radial: width of the radial networks.
            hidden: width of the read-out.
            members: see :meth:`build`.
            pool: see :meth:`build`.
            readout_dropout: see :meth:`build`.
            options: see :meth:`build`.
            scale: see :meth:`build`.
            in_features: see :meth:`build`.
        """
        trunk = IrrepsNet(len(elements) or in_features, copies, layers, options, radial)
        head = MeanVarianceHead(trunk.hidden, hidden, members, pool, readout_dropout)
        return cls(trunk, head, elements, scale)

    def forward(self, batch: Batch | Data, samples: int = 1) -> Prediction:
        """Predict in the target's unit.

        Args:
            batch: graphs with ``pos`` and ``z`` (or ``x``).
            samples: number of MC-dropout samples (see :func:`egnn_prune.uncertainty.mc_dropout`);
                their outputs become members.
        """
        return self._prediction(batch, *self.normalised(batch, samples))

    def _prediction(self, batch: Batch | Data, means: Tensor, variances: Tensor) -> Prediction:
        """From units of the scale to the target's unit."""
        means = means.double() * self.scale.scale + self.reference(batch)
        return Prediction.from_members(means, variances.double() * self.scale.scale**2)

    def normalised(self, batch: Batch | Data, samples: int = 1) -> tuple[Tensor, Tensor]:
        """Members' means and variances in units of the target's scale, ``[samples * M, B]``."""
        batch = self.prepared(batch)
        graphs = graph_pointer(batch).shape[0] - 1
        if any(gate.dropout_mask is not None for _, gate in gates(self.trunk)):
            out = self.trunk(replicate(batch, samples))
            means, variances = self.head(out.x, graph_of_node(out), graphs * samples)
        else:  # copies of the batch would be identical up to the read-out
            out = self.trunk(batch)
            means, variances = self.head(out.x, graph_of_node(out), graphs, samples)
        variances = self._sized(split_samples(variances, samples), batch)
        return split_samples(means, samples), variances

    def _sized(self, variances: Tensor, batch: Batch | Data) -> Tensor:
        """Variances ``[M, B]`` of a typical structure as those of structures of their sizes."""
        if not self.scale.atoms or self.head.pool != "sum":
            return variances
        return variances * (graph_pointer(batch).diff().to(variances) / self.scale.atoms)

    def atom_energies(self, batch: Batch | Data, samples: int = 1) -> Tensor:
        r"""Energies of single atoms, with those of their elements and an equal part of any shift.

        :math:`\mu_{mg} = \sum_{i \in g} e_{mi}`. How a sum is divided among atoms is the network's
        own choice, which no label determines.

        Args:
            batch: as for :meth:`forward`.
            samples: as for :meth:`forward`.

        Returns:
            ``[samples * M, N]`` in the target's unit and float64.

        Raises:
            ConfigError: the target is no sum over atoms.
        """
        if self.head.pool != "sum":
            raise ConfigError(
                f"this model reads out a {self.head.pool} of atoms, not a sum, so single atoms "
                "have no energies"
            )
        batch = self.prepared(batch)
        thinned = any(gate.dropout_mask is not None for _, gate in gates(self.trunk))
        features = self.trunk(replicate(batch, samples) if thinned else batch).x
        # every atom is read out as a graph of its own
        alone = torch.arange(features.shape[0], device=features.device)
        means, _ = self.head(features, alone, len(alone), 1 if thinned else samples)
        counts = self._one_hot(batch.z) if self.elements else features.new_zeros(len(batch.pos), 0)
        atoms = graph_pointer(batch).diff().index_select(0, graph_of_node(batch))
        own = replace(self.scale, shift=0.0).reference(counts) + self.scale.shift / atoms.double()
        return split_samples(means, samples).double() * self.scale.scale + own

    def last_layer(self, batch: Batch | Data) -> tuple[Tensor, Prediction]:
        r"""Features that the mean is linear in, and the prediction, from one pass.

        :math:`\mu_b = \phi_b \cdot w + \text{reference}_b` with :meth:`last_layer_weights` w.

        Returns:
            ``[B, features]`` in the target's unit and float64, and the prediction.
        """
        batch = self.prepared(batch)
        graphs = graph_pointer(batch).shape[0] - 1
        out = self.trunk(batch)
        graph = graph_of_node(out)
        hidden = self.head.hidden(out.x, graph, graphs)
        features = self.head.pooled(hidden, graph, graphs).double() * self.scale.scale
        means, variances = self.head.outputs(hidden, graph, graphs)
        return features, self._prediction(batch, means, self._sized(variances, batch))

    def last_layer_weights(self) -> Tensor:
        """The weights that :meth:`last_layer` features are multiplied with, ``[features]``."""
        return self.head.weights().double()

    def normalise(self, batch: Batch | Data, y: Tensor | None) -> Tensor:
        """Targets ``[B]`` in units of the scale, in the network's precision.

        Raises:
            DataError: there is not one target for each graph (or node).
        """
        reference = self.reference(batch)
        if y is None or y.shape != reference.shape:
            found = "there is none" if y is None else f"not {tuple(y.shape)}"
            raise DataError(
                f"training needs targets in batch.y of shape {tuple(reference.shape)}, {found}"
            )
        return ((y.double() - reference) / self.scale.scale).to(self._dtype)

    def reference(self, batch: Batch | Data) -> Tensor:
        """What would be predicted without a network: the per-element fit, ``[B]``."""
        return self.scale.reference(self._counts(batch))

    def element_counts(self, batch: Batch | Data) -> Tensor:
        """``[B, elements]``: how many atoms of each element every graph has."""
        graphs = graph_pointer(batch).shape[0] - 1
        if not self.elements:
            return torch.zeros(graphs, 0, device=batch.pos.device)
        return scatter(
            self._one_hot(batch.z), graph_of_node(batch), dim=0, dim_size=graphs, reduce="sum"
        )

    def _counts(self, batch: Batch | Data) -> Tensor:
        """Atoms of each element in whatever has a target: a graph, or a single node."""
        if self.head.pool != "node":
            return self.element_counts(batch)
        if not self.elements:
            return torch.zeros(batch.pos.shape[0], 0, device=batch.pos.device)
        return self._one_hot(batch.z)

    def _one_hot(self, z: Tensor) -> Tensor:
        known = torch.tensor(self.elements, device=z.device)
        one_hot = z[:, None] == known
        if must_check() and not bool(one_hot.any(1).all()):
            number = int(z[~one_hot.any(1)][0])
            name = chemical_symbols[number] if 0 < number < len(chemical_symbols) else "?"
            seen = ", ".join(chemical_symbols[e] for e in self.elements)
            raise DataError(
                f"element {name} (atomic number {number}) was not in the training data, which "
                f"held {seen}; train on data that contains it"
            )
        return one_hot.to(self._dtype)

    @property
    def _dtype(self) -> torch.dtype:
        """The network's precision."""
        return next(self.trunk.parameters()).dtype

    def prepared(self, batch: Batch | Data) -> Batch | Data:
        """The batch, checked, with node features ``x`` and edges: all that no weight changes.

        What a like model prepared comes back as it is, so an ensemble does this once a batch.
        """
        if not isinstance(batch, Data):
            check_graphs(batch)  # says what it is instead
        needs = (self.elements, self.trunk.options.cutoff, self._dtype)
        if is_prepared(batch, needs) and not (
            must_check() and is_stale(batch, self.trunk.options.cutoff)
        ):
            return batch
        if must_check():
            check_graphs(batch)
        out = copy.copy(batch)
        drop_found_edges(out)
        if self.elements:
            if getattr(batch, "z", None) is None or batch.z.shape != batch.pos.shape[:1]:
                raise DataError("every node needs an atomic number in batch.z, shape [nodes]")
            if must_check():
                _check_atoms(batch)
            out.x = self._one_hot(batch.z)
        if getattr(batch, "edge_attr", None) is None:  # else the trunk asks for their edges
            out = with_edges(out, self.trunk.options.cutoff)
        mark_prepared(out, needs)
        return out

    def channel_groups(self) -> list[ChannelGroup]:
        """The trunk's groups; the read-out shrinks with what it reads and is not pruned itself."""
        stream, *inner = [g.prefixed("trunk") for g in self.trunk.channel_groups()]
        members = (*stream.members, *(m.prefixed("head") for m in self.head.stream_members()))
        return [replace(stream, members=members), *inner]

    def message_passing_modules(self) -> list[str]:
        """The submodules that freezing message passing locks: all but the read-out."""
        return ["trunk"]

    def resized(self, keep: dict[str, Tensor]) -> PropertyModel:
        """A new model with ``len(keep[group])`` channels in each group (weights not copied)."""
        trunk = self.trunk.resized({k.removeprefix("trunk."): v for k, v in keep.items()})
        spec: dict[str, Any] = {**self.head.config(), "features": trunk.hidden}
        head = MeanVarianceHead(**spec)
        return PropertyModel(trunk, head, self.elements, self.scale)

    def config(self) -> dict[str, object]:
        """What :meth:`from_architecture` needs to build this model again, as plain JSON."""
        return {
            "trunk_class": next(k for k, v in TRUNKS.items() if isinstance(self.trunk, v)),
            "trunk": self.trunk.config(),
            "head": self.head.config(),
            "elements": list(self.elements),
            "scale": asdict(self.scale),
        }

    @classmethod
    def from_config(cls, spec: dict) -> PropertyModel:
        """Build the model that :meth:`config` described (weights not loaded).

        Raises:
            ValueError: the energies of elements are not one number each.
        """
        energies = tuple(spec["scale"]["per_element"])
        if len(energies) not in (0, len(spec["elements"])) or any(map(_is_no_number, energies)):
            raise ValueError("the scale needs one energy per element, or none")
        scale = {**spec["scale"], "per_element": energies}
        return cls(
            # files of version 0.1 do not say: there was one kind
            TRUNKS[spec.get("trunk_class", "EGNN")].from_config(spec["trunk"]),
            MeanVarianceHead(**spec["head"]),
            spec["elements"],
            TargetScale(**scale),
        )
