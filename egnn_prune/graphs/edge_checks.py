"""What is asked of an edge list that somebody else made."""

from __future__ import annotations

import torch
from torch import Tensor

from egnn_prune.errors import DataError


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
