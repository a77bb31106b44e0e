"""A pretrained potential of some hundred weights, and structures for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from egnn_prune.adapters.activations import Activations
from egnn_prune.adapters.interaction_layer import LayerShape
from egnn_prune.adapters.interaction_network import InteractionNetwork, InteractionOptions
from egnn_prune.adapters.potential import AdoptedPotential
from egnn_prune.adapters.radial import RadialOptions

ELEMENTS = (1, 6, 8, 14)
FROM_SCALARS = (("0e", 0, "0e", True), ("0e", 1, "1e", True))
TO_SCALARS = (("0e", 0, "0e", True), ("1e", 1, "0e", True))
#: The last is odd: a cross product, which tells mirror images apart.
BETWEEN = (*TO_SCALARS, ("0e", 1, "1e", True), ("1e", 0, "1e", True), ("1e", 1, "1e", True))


def tiny_teacher(seed: int = 0, cutoff: float = 3.0) -> AdoptedPotential:
    """Three layers without parity, one odd path among them; it knows H, C, O and Si."""
    torch.manual_seed(seed)
    both = "8x0e+8x1e"
    shapes = [
        LayerShape("8x0e", both, (6,), FROM_SCALARS),
        LayerShape(both, both, (6,), BETWEEN),
        LayerShape(both, "8x0e", (6,), TO_SCALARS),
    ]
    options = InteractionOptions(RadialOptions(cutoff, bessel=4), 1, Activations())
    network = InteractionNetwork(len(ELEMENTS), 8, shapes, [4], options)
    return AdoptedPotential(network, ELEMENTS, [-3.0, -150.0, -430.0, -290.0]).eval()


def structures(count: int = 24, seed: int = 0, periodic: bool = False) -> list[Atoms]:
    """Water and methanol, shaken; or two molecules of water in a cell that is smaller than 3 A."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(count):
        atoms = molecule("H2O" if k % 2 or periodic else "CH3OH")
        if periodic:
            atoms.set_cell([2.9, 5.0, 5.0])
            atoms.pbc = True
        atoms.positions += 0.06 * rng.normal(size=atoms.positions.shape)
        made.append(atoms)
    return made


def write_labelled(path: Path, frames: list[Atoms], seed: int = 1) -> Path:
    """The structures with energies and forces that some smooth function could have."""
    rng = np.random.default_rng(seed)
    for atoms in frames:
        forces = rng.normal(size=atoms.positions.shape)
        energy = -5.0 * len(atoms) + 0.1 * rng.normal()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces - forces.mean(0))
    write(path, frames, format="extxyz")
    return path
