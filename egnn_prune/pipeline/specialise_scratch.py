"""The control: a small network's shape without the teacher's weights."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from egnn_prune.data import GraphDataset
from egnn_prune.deployment import checkpoint
from egnn_prune.training import refit_shifts


def fresh(model: Any, dataset: GraphDataset) -> Any:
    """The same shape with fresh weights, as one would begin with these structures alone.

    Messages are divided by the root of the structures' own number of neighbours, energies are in
    units of their forces (Batzner et al. 2022), and the energies of the elements are refitted: with
    the teacher's numbers the control would be a straw man.

    Args:
        model: a small potential.
        dataset: its training structures, with neighbour lists, energies and forces.
    """
    new: Any = checkpoint.from_config(model).to(next(model.parameters()).dtype)
    train = dataset.split("train")
    atoms = sum(len(g.pos) for g in train)
    neighbours = sum(g.edge_index.shape[1] for g in train) / atoms
    squares = sum(float(g.forces.double().square().sum()) for g in train)
    new.atom_scale.fill_(math.sqrt(squares / (3 * atoms)) or 1.0)
    for module in new.modules():
        if isinstance(found := getattr(module, "denominator", None), Tensor):
            found.fill_(math.sqrt(max(neighbours, 1.0)))
    refit_shifts(new, train)
    return new
