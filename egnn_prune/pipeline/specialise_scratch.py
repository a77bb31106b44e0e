"""The control: a small network's shape without the teacher's weights."""

from __future__ import annotations

import math
from typing import Any

from egnn_prune.adapters import from_scratch
from egnn_prune.data import GraphDataset
from egnn_prune.training import refit_shifts


def fresh(model: Any, dataset: GraphDataset, seed: int) -> Any:
    """The same shape with fresh weights, as one would begin with these structures alone.

    Messages are divided by the root of the structures' own number of neighbours, energies are in
    units of their forces (Batzner et al. 2022), and the energies of the elements are refitted: with
    the teacher's numbers the control would be a straw man.

    Args:
        model: a small potential.
        dataset: its training structures, with neighbour lists, energies and forces.
        seed: of the weights.
    """
    train = dataset.split("train")
    atoms = sum(len(g.pos) for g in train)
    neighbours = sum(g.edge_index.shape[1] for g in train) / atoms
    squares = sum(float(g.forces.double().square().sum()) for g in train)
    new = from_scratch(model, max(neighbours, 1.0), seed)
    new.atom_scale.fill_(math.sqrt(squares / (3 * atoms)) or 1.0)
    refit_shifts(new, train)
    return new
