"""Trying a translated network on a structure: the same numbers as the original, or a refusal."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch_geometric.data import Data

from egnn_prune.adapters.e3nn_layout import UnknownLayout
from egnn_prune.adapters.potential import AdoptedPotential
from egnn_prune.models import energy_and_forces

#: Largest relative difference of energies and forces; float32 sums in another order differ by this.
TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-8}


def trial_structure(elements: tuple[int, ...], cutoff: float) -> Data:
    """A periodic cell in which every atom has neighbours of several elements and images.

    Args:
        elements: atomic numbers; at most 8 of them are used.
        cutoff: in Angstrom.
    """
    generator = torch.Generator().manual_seed(0)
    real = [z for z in elements if z > 0] or [1]
    known = [real[(k * len(real)) // 8] for k in range(8)]
    corners = torch.tensor([[i, j, k] for i in (0.0, 0.5) for j in (0.0, 0.5) for k in (0.0, 0.5)])
    edge = max(4.6, 0.92 * cutoff)
    moved = corners.double() + 0.06 * torch.rand(8, 3, generator=generator, dtype=torch.float64)
    cell = edge * torch.tensor([[1.0, 0, 0], [0.1, 1, 0], [0, 0.05, 1.1]], dtype=torch.float64)
    return Data(
        z=torch.tensor(known),
        pos=moved @ cell,
        cell=cell[None],
        pbc=torch.ones(1, 3, dtype=torch.bool),
    )


def try_out(
    potential: AdoptedPotential, original: Callable[[Data], tuple[Tensor, Tensor]], kind: str
) -> None:
    """Refuse a translation that computes something else than the original.

    Args:
        potential: the translated network.
        original: energy and forces ``[N, 3]`` of a structure by the original.
        kind: of networks, for the message.

    Raises:
        UnknownLayout: energies or forces differ by more than rounding.
    """
    potential.eval()
    structure = trial_structure(potential.elements, potential.network.options.cutoff)
    energy, forces = original(structure)
    prediction, found = energy_and_forces(potential, structure)
    reference = potential.reference(structure)
    tolerance = TOLERANCES[potential.atom_scale.dtype]
    size = forces.abs().max().clamp(min=1e-3)
    wrong = float((found - forces).abs().max() / size)
    bound = (energy.double() - reference).abs().clamp(min=1.0) + reference.abs() * 1e-3
    off = float((prediction.mean - energy.double()).abs().max() / bound.max())
    if not max(wrong, off) <= tolerance:
        raise UnknownLayout(
            f"the translated {kind} gives other numbers than the original (energies differ by "
            f"{off:.0e}, forces by {wrong:.0e}): its layout is not one that this version of "
            "egnn_prune knows"
        )
