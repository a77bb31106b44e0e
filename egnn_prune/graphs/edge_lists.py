"""What an edge list says of itself, and what is asked of one that says nothing.

Lists that were found here carry ``listed_for [B, 2]`` (the cutoff, infinite for all pairs, and the
number of edges of each graph), ``listed_at [N, n]`` (the positions) and ``listed_in [B, 3, 3]``
(the periodic lattice vectors, zero for molecules). They are collated like all else in a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from egnn_prune.errors import DataError

#: The fields of the record.
RECORD = ("listed_for", "listed_at", "listed_in")


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


def check_indices(edge_index: Tensor, graph: Tensor) -> None:
    """Refuse edges that are no pairs of nodes of one graph.

    Raises:
        DataError: says what is wrong with which edge.
    """
    if not isinstance(edge_index, Tensor) or edge_index.dim() != 2 or len(edge_index) != 2:
        found = tuple(edge_index.shape) if isinstance(edge_index, Tensor) else type(edge_index)
        raise DataError(f"edge_index must be a tensor of shape [2, edges], not {found}")
    if edge_index.dtype != torch.int64:
        raise DataError(f"edge_index must hold whole numbers (torch.long), not {edge_index.dtype}")
    if not edge_index.numel():
        return
    low, high = torch.stack(edge_index.aminmax()).tolist()
    if low < 0 or high >= len(graph):
        raise DataError(
            f"edge_index names node {low if low < 0 else high}, but the batch has the nodes 0 to "
            f"{len(graph) - 1}; number the nodes of each graph from 0 before they are batched"
        )
    apart = graph.index_select(0, edge_index[0]) != graph.index_select(0, edge_index[1])
    if bool(apart.any()):
        edge = int(apart.nonzero()[0])
        raise DataError(
            f"edge {edge} (node {int(edge_index[0, edge])} to node {int(edge_index[1, edge])}) "
            "connects two graphs; give each graph its own edges"
        )


def check_pairs(edge_index: Tensor, nodes: int, images: Tensor | None) -> None:
    """Refuse a list in which a pair stands twice, in one direction only, or is a node with itself.

    Args:
        edge_index: ``[2, E]``, see :func:`check_indices`.
        nodes: the number of nodes.
        images: ``[E, 3]``, whole numbers of lattice vectors of periodic graphs.

    Raises:
        DataError: says what is wrong with which edge.
    """
    source, target = edge_index
    forth, back = target * nodes + source, source * nodes + target
    if images is None:
        own = source == target
        forth, back = forth.sort()[0], back.sort()[0]
        twice = forth[1:] == forth[:-1]
        alike = torch.equal(forth, back)
    else:
        own = (source == target) & (images == 0).all(1)
        rows, counts = torch.cat([forth[:, None], images], 1).unique(dim=0, return_counts=True)
        twice = counts > 1
        forth = rows[:, 0]
        alike = torch.equal(rows, torch.cat([back[:, None], -images], 1).unique(dim=0))
    if bool(own.any()):
        raise DataError(
            f"node {int(source[own][0])} has an edge to itself; leave such edges out (in PyG: "
            "remove_self_loops)"
        )
    if bool(twice.any()):
        key = int(forth[: len(twice)][twice][0])
        raise DataError(
            f"the edge from node {key % nodes} to node {key // nodes} stands in edge_index more "
            "than once; leave it out (in PyG: coalesce)"
        )
    if not alike:
        raise DataError(
            "some pairs of nodes have an edge in one direction only; give both directions (in PyG: "
            "to_undirected), or no edge_index to have the edges found"
        )


def images_of(shift: Tensor, cells: Tensor) -> Tensor:
    """``[E, 3]``: shifts as whole numbers of lattice vectors.

    Args:
        shift: ``[E, 3]``.
        cells: ``[E, 3, 3]``, the periodic lattice vectors of each edge's graph, see
            :func:`lattice`.

    Raises:
        DataError: a shift is none.
    """
    cells, shift = cells.double(), shift.detach().double()
    images = torch.einsum("ei,eij->ej", shift, torch.linalg.pinv(cells)).round()
    left = (torch.einsum("ei,eij->ej", images, cells) - shift).abs().amax(1)
    size = cells.abs().amax((1, 2)) + shift.abs().amax(1)
    if bool((left > 1e-3 * size + 1e-9).any()):
        edge = int((left - 1e-3 * size).argmax())
        raise DataError(
            f"edge_shift of edge {edge} is not a whole number of lattice vectors; give the shifts "
            "of this cell, or no edge_index to have the edges found"
        )
    return images.long()
