"""Molecules with one bond pulled longer than any that a network has seen."""

from __future__ import annotations

import torch
from ase.data import covalent_radii
from scipy.sparse.csgraph import connected_components
from torch_geometric.data import Data

#: What the bond grows by, in Angstrom: five times the width of a C-O vibration at 500 K.
STRETCH = 0.2
#: Atoms nearer than this times the sum of their covalent radii are bonded.
BONDED = 1.25


def stretched(graph: Data, by: float = STRETCH) -> Data | None:
    """The molecule with the two sides of a bond between heavy atoms moved apart.

    The bond is the one with the heaviest ends of those that hold two parts together (C-O in
    ethanol).

    Args:
        graph: ``z [N]``, ``pos [N, 3]`` in Angstrom.
        by: how far.

    Returns:
        Elements and positions, with zeros for the energy and the forces, which nobody knows; or
        ``None`` where every bond of heavy atoms is part of a ring, or there is none.
    """
    z, pos = graph.z, graph.pos.double()
    radius = torch.from_numpy(covalent_radii).to(pos)[z]
    bonded = torch.cdist(pos, pos) < BONDED * (radius[:, None] + radius)
    bonded.fill_diagonal_(False)
    heavy = bonded & (z > 1)[:, None] & (z > 1)
    pairs = heavy.triu().nonzero().tolist()
    for i, j in sorted(pairs, key=lambda pair: -int(z[pair].sum())):
        cut = bonded.clone()
        cut[i, j] = cut[j, i] = False
        part = torch.from_numpy(connected_components(cut.numpy(), directed=False)[1])
        if part[i] != part[j]:
            along = (pos[j] - pos[i]) / (pos[j] - pos[i]).norm()
            moved = pos + by * along * (part == part[j])[:, None]
            return Data(z=z, pos=moved, y=torch.zeros(1).double(), forces=torch.zeros_like(moved))
    return None
