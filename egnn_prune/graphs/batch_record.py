"""What a batch remembers of the work that was done on it, so that it is not done twice.

PyG batches hold fields and nothing else, so the memory is fields, which are read and written here
alone:

- ``listed_for [B, 2]`` (the cutoff, infinite for all pairs, and the number of edges of each graph),
  ``listed_at [N, n]`` (the positions) and ``listed_in [B, 3, 3]`` (the periodic lattice vectors,
  zero for molecules) of an edge list that was found here. They are collated like all else.
- ``checked_edge_index``: an edge list of the user's that was found to be right, to be recognised
  by identity.
- ``prepared_for``: what a model with elements, cutoff and precision like these made of the batch,
  and ``found_edges``: whether it found the edges itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from egnn_prune.errors import DataError

#: The record of a list that was found here.
LISTED = ("listed_for", "listed_at", "listed_in")
#: The mark of a list that was looked at.
CHECKED = "checked_edge_index"


def record(
    pos: Tensor, cutoff: float, edges: int, cell: Tensor | None = None, pbc: Tensor | None = None
) -> dict[str, Tensor]:
    """The record of *one* graph's list, as fields of its ``Data``."""
    fields = {
        "listed_for": torch.tensor([[cutoff, edges]], dtype=torch.float64, device=pos.device),
        "listed_at": pos.detach().clone(),  # the positions may be changed in place
    }
    if pos.shape[1] == 3:
        fields["listed_in"] = pos.new_zeros(1, 3, 3) if cell is None else lattice(cell, pbc)
    return fields


def lattice(cell: Tensor, pbc: Tensor | None) -> Tensor:
    """``[B, 3, 3]``: the lattice vectors of the periodic directions, zero for the others."""
    cell = cell.detach().reshape(-1, 3, 3)
    if pbc is None:
        return cell.clone()
    return torch.where(pbc.reshape(-1, 3, 1).to(torch.bool), cell, torch.zeros_like(cell))


def is_recorded(batch: Batch | Data) -> bool:
    """Whether the batch's edges were found here, as far as can be told."""
    found, at = batch.get("listed_for"), batch.get("listed_at")
    if not isinstance(found, Tensor) or not isinstance(at, Tensor):
        return False
    return int(found[:, 1].sum()) == batch.edge_index.shape[1]  # else somebody changed the list


def is_stale(batch: Batch | Data, cutoff: float | None) -> bool:
    """Whether the batch's edges were found here, but for something else."""
    if batch.edge_index is None or not is_recorded(batch):
        return False
    return not is_current(batch, cutoff)


def is_current(batch: Batch | Data, cutoff: float | None) -> bool:
    """Whether a recorded list is for this cutoff (or a longer one), these positions and cells.

    Raises:
        DataError: the graphs were found in cells, but the batch has none.
    """
    found, at, pos = batch.listed_for, batch.listed_at, batch.pos.detach()
    needed = float("inf") if cutoff is None else cutoff
    if at.shape != pos.shape or not bool((found[:, 0] >= needed).all()):
        return False
    if not torch.equal(at.to(pos.dtype), pos):
        return False
    cell, old = batch.get("cell"), batch.get("listed_in")
    if cell is None:
        if old is not None and bool(old.any()):  # PyG keeps what the first of the graphs has
            raise DataError(
                "some graphs of the batch were periodic and have lost their cells; give every "
                "graph cell and pbc (of zeros for molecules) before they are joined"
            )
        return True
    if old is None:
        return False
    now = lattice(cell, batch.get("pbc"))
    return now.shape == old.shape and torch.equal(old.to(now), now)


def forget_edges(batch: Batch | Data) -> None:
    """Remove what belongs to an edge list that cannot be used, in place."""
    for name in ("edge_shift", *LISTED):
        if name in batch:
            del batch[name]


def mark_checked(batch: Batch | Data) -> None:
    """Remember that the edge list is right."""
    batch[CHECKED] = batch.edge_index


def is_checked(batch: Batch | Data) -> bool:
    """Whether this very edge list was found to be right."""
    return getattr(batch, CHECKED, None) is batch.edge_index


def mark_prepared(batch: Batch | Data, needs: Any) -> None:
    """Remember for which needs the batch is prepared."""
    batch.prepared_for = needs


def is_prepared(batch: Batch | Data, needs: Any) -> bool:
    """Whether the batch was prepared for the same needs."""
    return getattr(batch, "prepared_for", None) == needs


def drop_found_edges(batch: Batch | Data) -> None:
    """Remove edges that a model with other needs found, in place, and remember who finds them."""
    if getattr(batch, "found_edges", False):
        batch.edge_index = None
    batch.found_edges = batch.edge_index is None
