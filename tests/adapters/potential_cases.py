"""Structures and checks that the tests of adopted potentials share."""

from __future__ import annotations

import torch
from ase import Atoms
from ase.build import molecule
from torch import Tensor
from torch_geometric.data import Batch, Data

from egnn_prune.adapters import AdoptedPotential
from egnn_prune.models import energy_and_forces, energy_forces_stress


def ethanol(seed: int = 1) -> Atoms:
    """A molecule away from its minimum, so that there are forces."""
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.08, seed=seed)
    return atoms


def methanol_crystal(edge: float = 4.6) -> Atoms:
    """A skewed periodic cell, smaller than twice a usual cutoff."""
    atoms = molecule("CH3OH")
    atoms.set_cell([[edge, 0, 0], [0.4, edge + 0.3, 0], [0, -0.3, edge + 0.1]])
    atoms.pbc = True
    atoms.rattle(0.05, seed=2)
    return atoms


def graph_of(atoms: Atoms) -> Data:
    """As this package takes it, in float64."""
    graph = Data(z=torch.tensor(atoms.numbers), pos=torch.tensor(atoms.positions))
    if atoms.pbc.any():
        graph.cell = torch.tensor(atoms.cell.array)[None]
        graph.pbc = torch.tensor(atoms.pbc)[None]
    return graph


def batch_of(*structures: Atoms) -> Batch:
    """Several structures of one kind, periodic or not."""
    return Batch.from_data_list([graph_of(atoms) for atoms in structures])


def results(model: AdoptedPotential, atoms: Atoms) -> tuple[float, Tensor, Tensor | None]:
    """Energy, forces, and the stress of a periodic structure."""
    if atoms.pbc.any():
        prediction, forces, stress = energy_forces_stress(model, graph_of(atoms))
        return float(prediction.mean), forces.double(), stress[0].double()
    prediction, forces = energy_and_forces(model, graph_of(atoms))
    return float(prediction.mean), forces.double(), None


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest number."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))


def mirror_error(model: AdoptedPotential, atoms: Atoms) -> float:
    """How far the mirror image's forces are from the mirrored forces, over their size."""
    mirrored = atoms.copy()
    mirrored.positions[:, 0] *= -1
    _, forces, _ = results(model, atoms)
    _, found, _ = results(model, mirrored)
    return relative(found * torch.tensor([-1.0, 1.0, 1.0]).double(), forces)
