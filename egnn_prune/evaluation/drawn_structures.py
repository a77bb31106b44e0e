"""What the report needs of structures to draw them, beyond elements and positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Data


def frames_and_cells(graphs: Sequence[Data]) -> dict[str, NDArray[Any]]:
    """Where structures come from and what they repeat along.

    Args:
        graphs: with ``record [1]`` or ``row [1]``, the number in the user's data, and maybe with
            ``cell [1, 3, 3]`` in Angstrom and ``pbc [1, 3]``.

    Returns:
        ``frame [B]``, unless a graph has no number, and ``cell [B, 3, 3]``, unless none is
        periodic: rows are lattice vectors, zero along directions that do not repeat.
    """
    numbers = [graph.get("record", graph.get("row")) for graph in graphs]
    found = {}
    if all(number is not None for number in numbers):
        found["frame"] = np.array([int(number) for number in numbers])
    cells = np.stack([_lattice(graph) for graph in graphs])
    if cells.any():
        found["cell"] = cells
    return found


def _lattice(graph: Data) -> NDArray[np.float64]:
    cell, pbc = graph.get("cell"), graph.get("pbc")
    if cell is None:
        return np.zeros((3, 3))
    repeats = torch.ones(3) if pbc is None else pbc.reshape(3)
    return np.asarray((cell.reshape(3, 3).cpu().double() * repeats.cpu()[:, None]).numpy())
