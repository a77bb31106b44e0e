"""The edges of nodes with about as many neighbours, side by side for one batched product."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

#: Rows of padding that cost less than a block of its own, and what share of them does.
SPARE, SHARE = 96, 0.05


@dataclass(frozen=True)
class Block:
    """Some nodes that have the same number of rows each.

    Attributes:
        nodes: their range among all nodes, sorted by their number of neighbours.
        rows: the range of their rows.
        degree: rows of each.
    """

    nodes: slice
    rows: slice
    degree: int


@dataclass(frozen=True)
class NeighbourRows:
    """Rows of edges, those of a node one after another, nodes sorted by how many they have.

    A node may have more rows than edges, so that as many nodes as possible have the same number:
    such padding repeats an edge of the node, and does not count.

    Attributes:
        source: ``[R]``, the node that each row's edge comes from.
        edge: ``[R]``, the edge of each row.
        real: ``[R, 1]``, whether it is no padding; ``None`` where nothing is padded.
        row: ``[E]``, the row of each edge.
        place: ``[N]``, where every node is among the sorted.
        groups: nodes of the same number of rows.
        lonely: how many nodes have no neighbours; they come first.
    """

    source: Tensor
    edge: Tensor
    real: Tensor | None
    row: Tensor
    place: Tensor
    groups: list[Block]
    lonely: int

    def blocks(self, rows: int) -> Iterator[Block]:
        """The groups in blocks of about so many rows."""
        for group in self.groups:
            nodes, step = group.nodes, max(rows // group.degree, 1)
            for first in range(nodes.start, nodes.stop, step):
                last = min(first + step, nodes.stop)
                start = group.rows.start + (first - nodes.start) * group.degree
                stop = start + (last - first) * group.degree
                yield Block(slice(first, last), slice(start, stop), group.degree)

    def spread(self, values: Tensor) -> Tensor:
        """Values ``[E, ...]`` of edges in rows, zero in padding."""
        rows = values.index_select(0, self.edge)
        return rows if self.real is None else rows * self.real


def neighbour_rows(source: Tensor, target: Tensor, nodes: int) -> NeighbourRows:
    """Sort nodes by how many edges lead to them, and pad a little.

    Args:
        source: ``[E]``.
        target: ``[E]``, in any order.
        nodes: how many nodes there are.
    """
    degree = torch.bincount(target, minlength=nodes)
    sorted_degree, order = degree.sort(stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(nodes)
    counts = torch.bincount(degree).tolist()
    groups = _groups(counts)
    length = torch.zeros_like(degree)
    for group in groups:
        length[group.nodes] = group.degree
    first = target.argsort(stable=True)  # the edges of a node side by side
    starts = degree.cumsum(0) - degree
    of_row = torch.repeat_interleave(length)  # the place of its node
    within = torch.arange(len(of_row)) - (length.cumsum(0) - length)[of_row]
    inside = within < sorted_degree[of_row]
    within = torch.minimum(within, sorted_degree[of_row] - 1)
    edge = first[starts[order][of_row] + within]
    padded = len(of_row) != len(target)
    row = torch.empty_like(target)
    if padded:
        row[edge[inside]] = inside.nonzero()[:, 0]
    else:
        row[edge] = torch.arange(len(edge))
    real = inside[:, None] if padded else None
    lonely = counts[0] if counts else 0
    return NeighbourRows(source[edge], edge, real, row, place, groups, lonely)


def _groups(counts: list[int]) -> list[Block]:
    """Numbers of neighbours that are near to each other, from how many nodes have each."""
    groups: list[Block] = []
    node = counts[0] if counts else 0
    row = real = held = 0  # of the group that is open: its edges and nodes

    def close(degree: int) -> None:
        nonlocal node, row, real, held
        if held:
            stop = row + held * degree
            groups.append(Block(slice(node, node + held), slice(row, stop), degree))
            node, row, real, held = node + held, stop, 0, 0

    last = 0
    for degree, n in enumerate(counts[1:], 1):
        if not n:
            continue
        spare = held * degree - real
        if held and spare > max(SPARE, SHARE * real):
            close(last)
        real, held, last = real + n * degree, held + n, degree
    close(last)
    return groups
