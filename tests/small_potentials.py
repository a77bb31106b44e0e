"""A teacher of energies with periodic and free structures that it labels, for tests of fits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from egnn_prune.models import IrrepsOptions, PropertyModel, TargetScale

ELEMENTS = (1, 8)
#: As large as those of all-electron calculations: float32 has a spacing of 2 meV there.
SHIFTS = (-1360.0, -8290.0)


def potential(dtype: torch.dtype = torch.float64, seed: int = 0, copies: int = 4) -> PropertyModel:
    """An untrained network of some eV, with a smooth cutoff."""
    torch.manual_seed(seed)
    model = PropertyModel.build_irreps(
        ELEMENTS,
        copies=copies,
        layers=2,
        radial=8,
        hidden=8,
        options=IrrepsOptions(cutoff=3.0, lmax=1),
        scale=TargetScale(SHIFTS, 0.0, 1.0),
    )
    return model.to(dtype).eval()


def water(shake: float = 0.1, seed: int = 0, cell: float = 0.0) -> Data:
    """One shaken molecule, in a cubic cell where that has a size."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.tensor([[0.0, 0.0, 0.0], [0.76, 0.59, 0.0], [-0.76, 0.59, 0.0]]).double()
    noise = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    graph = Data(z=torch.tensor([8, 1, 1]), pos=place + shake * noise)
    if cell:
        graph.cell = cell * torch.eye(3, dtype=torch.float64)[None]
        graph.pbc = torch.ones(1, 3, dtype=torch.bool)
    return graph


def labelled(graph: Data, energy: float = -11010.0, force: float = 0.5) -> Data:
    """With labels that say nothing."""
    graph.y = torch.tensor([energy], dtype=torch.float64)
    graph.forces = force * torch.ones_like(graph.pos)
    if graph.get("cell") is not None:
        graph.stress = 0.01 * torch.eye(3, dtype=torch.float64)[None]
    return graph


def parameters_of(model: torch.nn.Module) -> dict[str, Tensor]:
    """Copies of all weights."""
    return {name: value.detach().clone() for name, value in model.named_parameters()}
