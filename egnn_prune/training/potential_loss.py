"""Energies, forces and stresses of a potential learned together, in eV and Angstrom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from egnn_prune.errors import ConfigError, DataError
from egnn_prune.graphs import graph_pointer
from egnn_prune.models import energy_and_forces
from egnn_prune.models.forces import energy_forces_stress
from egnn_prune.training.loss import per_graph, weighted


class PotentialLosses:
    r"""Loss of a potential's energies and their slopes, ``losses(model, batch) -> [B]``.

    .. math::
        L_b = w_E\, \rho\!\left(\frac{E_b - E_b^\text{ref}}{\sqrt{N_b}}\right)
            + \frac{w_F}{3 N_b} \sum_{i \in b} \sum_c \rho(F_{ic} - F_{ic}^\text{ref})
            + \frac{w_S}{9} \sum_{jk} \rho\!\left(
              \frac{V_b\,(\sigma_{jk} - \sigma_{jk}^\text{ref})}{\sqrt{N_b}}\right)

    with :math:`\rho(x) = x^2`, or Huber's function. Errors of independent atoms add like their
    squares, so each term has the same size for small and large graphs; the stress counts as the
    energy's derivative by the strain, which shares the energy's unit. Nothing is divided by the
    model's scale: a pretrained potential and its small copy minimise the same number. One pass
    forwards and one back give all three (Batzner et al. 2022 for energies and forces). Variances
    that the model states are not trained.

    Args:
        energy_weight: :math:`w_E`, in 1/eV^2.
        force_weight: :math:`w_F`, in Angstrom^2/eV^2.
        stress_weight: :math:`w_S`, in 1/eV^2; stresses count only where this is positive *and* the
            batch has ``stress [B, 3, 3]``.
        huber: where positive, errors beyond it (in eV, or eV/Angstrom) count linearly, so that a
            few strained structures do not dominate.

    Raises:
        ConfigError: a weight is negative or not finite, or both energies and forces weigh nothing;
            (in a call) the model predicts no energies.
        DataError: (in a call) the batch lacks energies or forces.
    """

    def __init__(
        self,
        energy_weight: float = 0.1,
        force_weight: float = 1.0,
        stress_weight: float = 0.0,
        huber: float = 0.0,
    ) -> None:
        numbers = (energy_weight, force_weight, stress_weight, huber)
        if not all(0 <= x < float("inf") for x in numbers) or energy_weight + force_weight == 0:
            raise ConfigError(
                "the weights of energies, forces and stresses must be finite and not negative, "
                f"with one of the first two positive, not {energy_weight}, {force_weight}, "
                f"{stress_weight} (huber {huber})"
            )
        self.energy_weight, self.force_weight = energy_weight, force_weight
        self.stress_weight, self.huber = stress_weight, huber

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        """The losses; differentiable again where gradients are on."""
        energies, forces, stress = reference_labels(batch)
        history = torch.is_grad_enabled()
        if self.stress_weight and stress is not None:
            prediction, found, slope = energy_forces_stress(model, batch, history=history)
        else:
            prediction, found = energy_and_forces(model, batch, history=history)
        if prediction.mean.shape != energies.shape:
            raise ConfigError(
                "training a potential needs a model of one energy per graph, not outputs of shape "
                f"{tuple(prediction.mean.shape)} for {len(energies)} graphs"
            )
        root = graph_pointer(batch).diff().double().sqrt()
        # in float64: the difference of two numbers near -17,660 eV
        losses = self.energy_weight * self._size((prediction.mean.double() - energies) / root)
        wrong = found - forces.to(found.dtype)
        losses = losses + self.force_weight * per_graph(self._size(wrong), batch).double()
        if self.stress_weight and stress is not None:
            volume = torch.linalg.det(batch.cell.reshape(-1, 3, 3).double()).abs()
            virial = (volume / root)[:, None, None] * (slope.double() - stress.double())
            losses = losses + self.stress_weight * self._size(virial).mean((1, 2))
        return weighted(losses, batch)

    def _size(self, error: Tensor) -> Tensor:
        """Rho of every entry."""
        if not self.huber:
            return error.square()
        zero = torch.zeros_like(error)
        return 2 * F.huber_loss(error, zero, reduction="none", delta=self.huber)


def reference_labels(batch: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Energies ``[B]`` in float64, forces ``[N, 3]``, and stresses ``[B, 3, 3]`` where known.

    Raises:
        DataError: energies or forces are missing, or their number is not that of graphs or atoms.
    """
    graphs = len(graph_pointer(batch)) - 1
    energies, forces = getattr(batch, "y", None), getattr(batch, "forces", None)
    if not isinstance(energies, Tensor) or energies.numel() != graphs:
        raise DataError(
            "training a potential needs one energy y [1], in eV, with every structure; label the "
            "structures, or take them from the teacher (labels=teacher)"
        )
    if not isinstance(forces, Tensor) or forces.shape != batch.pos.shape:
        raise DataError(
            "training a potential needs forces [atoms, 3], in eV/Angstrom, with every structure; "
            "label the structures, or take them from the teacher (labels=teacher)"
        )
    stress = getattr(batch, "stress", None)
    return energies.reshape(-1).double(), forces, None if stress is None else stress.view(-1, 3, 3)


def check_labels(graphs: Sequence[Data], split: str = "training") -> None:
    """Refuse structures whose labels are missing or NaN, before an hour of training with them.

    Args:
        graphs: single structures, with ``y [1]``, ``forces [N, 3]`` and maybe ``stress``.
        split: what they are, for the message.

    Raises:
        DataError: there is none, or names the first that cannot be used.
    """
    if not len(graphs):
        raise DataError(f"there are no {split} structures; give at least one")
    for number, graph in enumerate(graphs):
        try:
            energy, forces, stress = reference_labels(graph)
        except DataError as error:
            raise DataError(f"{split} structure {number}: {error}") from None
        for name, value in (("energy", energy), ("forces", forces), ("stress", stress)):
            if value is not None and not bool(value.isfinite().all()):
                raise DataError(
                    f"the labels {name} of {split} structure {number} hold a NaN or infinite "
                    "number; mend or leave out that structure"
                )


def check_one_kind(graphs: Sequence[Data], split: str = "training") -> None:
    """Refuse structures that one batch cannot hold: some with a cell or a stress, others without.

    Raises:
        DataError: names two that differ.
    """
    for number, graph in enumerate(graphs):
        for name in ("cell", "stress"):
            if (graph.get(name) is None) != (graphs[0].get(name) is None):
                has, lacks = (0, number) if graph.get(name) is None else (number, 0)
                raise DataError(
                    f"{split} structure {has} has a {name} and structure {lacks} has none; train "
                    "on structures of one kind"
                )
