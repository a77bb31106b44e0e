"""One structure whose atoms move: its graph, and the pairs within a cutoff at every step."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data

from egnn_prune.graphs import SkinList

Array = NDArray[np.float64]


class MovingGraph:
    """A structure of which positions and cell change, and nothing else.

    Args:
        graph: ``z [N]``, ``pos [N, 3]``, and ``cell [1, 3, 3]``, ``pbc [1, 3]`` where periodic.
        cutoff: within which atoms see each other, in Angstrom; ``None`` for all pairs.

    Attributes:
        graph: the structure as it is now, on the CPU.
    """

    def __init__(self, graph: Data, cutoff: float | None) -> None:
        self.graph, self.cutoff = graph, cutoff
        self.edges = SkinList(cutoff)
        self._periodic = "cell" in graph

    def is_of(self, numbers: NDArray[np.int64], pbc: NDArray[np.bool_]) -> bool:
        """Whether a structure is this one but for its positions and its cell."""
        same = np.array_equal(pbc, self.graph.pbc.numpy()[0]) if self._periodic else not pbc.any()
        return same and np.array_equal(numbers, self.graph.z.numpy())

    def has_cell(self, cell: Array) -> bool:
        """Whether its cell is this one; molecules have none, whatever is written there."""
        return not self._periodic or np.array_equal(cell, self.graph.cell.numpy()[0])

    def move(self, positions: Array, cell: Array) -> None:
        """Put the atoms elsewhere; what was handed out before is left as it is.

        Args:
            positions: ``[N, 3]`` in Angstrom, finite.
            cell: ``[3, 3]`` in Angstrom; not read of molecules.
        """
        self.graph = copy.copy(self.graph)
        self.graph.pos = torch.from_numpy(np.array(positions, dtype=np.float64))
        if self._periodic:
            self.graph.cell = torch.from_numpy(np.array(cell, dtype=np.float64))[None]

    def neighbours(self) -> tuple[Tensor, Tensor]:
        """``edge_index [2, E]`` and ``edge_shift [E, 3]`` where the atoms are now.

        Raises:
            DataError: they lie too far apart for a neighbour search, or too close.
        """
        graph = self.graph
        lattice = [graph[name].numpy()[0] for name in ("cell", "pbc") if name in graph]
        return self.edges(graph.pos.numpy(), *lattice)
