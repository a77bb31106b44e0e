"""What predicting a large structure takes, measured on a piece of it, before it is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch_geometric.data import Data

from egnn_prune.errors import InputError
from egnn_prune.system.memory import peak_megabytes
from egnn_prune.system.memory_limit import LIMIT_GB, free_bytes, gigabytes

#: Atoms from which on memory is looked at: 10,000 take a few GB with most networks.
LARGE = 20_000
#: Atoms of the piece that is predicted, and atoms whose neighbours are counted.
PIECE, COUNTED = 400, 256
#: Angstrom; within this distance pairs are counted where the model names no cutoff.
USUAL_CUTOFF = 5.0


def refuse_what_does_not_fit(
    graphs: Sequence[Data],
    predict: Callable[[Data], object],
    cutoff: float | None,
    device: torch.device,
) -> None:
    """Refuse a large structure whose prediction would take more memory than there is.

    Memory grows with the pairs of atoms within the cutoff. Their number is estimated from some
    atoms, and what each takes is measured on a piece of the structure.

    Args:
        graphs: the structures that are predicted at once, ``z [N]`` and ``pos [N, 3]``.
        predict: predicts one structure.
        cutoff: of the model, in Angstrom.
        device: where it computes.

    Raises:
        InputError: the memory that it would take, and how much is free.
    """
    atoms = sum(len(graph.pos) for graph in graphs)
    if atoms < LARGE:
        return
    largest = max(graphs, key=lambda graph: len(graph.pos))
    points, radius = largest.pos.double().cpu().numpy(), cutoff or USUAL_CUTOFF
    tree = cKDTree(points)
    some = points[:: max(1, len(points) // COUNTED)]
    near = float(np.mean(tree.query_ball_point(some, radius, return_length=True)))
    _, rows = tree.query(some[len(some) // 2], min(PIECE, len(points)))
    inside = points[rows]
    here = float(np.mean(cKDTree(inside).query_ball_point(inside, radius, return_length=True)))
    piece = Data(z=largest.z[rows], pos=largest.pos[rows])
    measured = 1e6 * peak_megabytes(lambda: predict(piece), device)
    needed = measured * atoms * near / (len(rows) * here)
    free = float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else free_bytes()
    if needed > free:
        raise InputError(
            f"predicting {atoms:,} atoms with some {near:.0f} neighbours each would take some "
            f"{gigabytes(needed)} of memory, and {gigabytes(free)} are free; predict fewer at "
            f"once, such as a part of the structure, or take a larger machine ({LIMIT_GB}=N sets "
            "another limit on the CPU)"
        )
