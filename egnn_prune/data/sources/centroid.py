"""Centroid: nodes with masses, each drawn towards the centre of mass; made in memory."""

from __future__ import annotations

import numpy as np
import torch

from egnn_prune.data.dataset import SPLITS, GraphDataset
from egnn_prune.data.store import GraphStore

#: Graphs and nodes a graph in each split.
GRAPHS = {"train": 2000, "val": 200, "test": 500, "ood": 500}
NODES = {"train": 6, "val": 6, "test": 6, "ood": 12}


def load_centroid(seed: int = 0) -> GraphDataset:
    """Where is every node after it moved towards the centre of mass, by its own mass?

    Formula:
        ``y_i = x_i + m_i (c - x_i)`` with ``c = sum_j m_j x_j / sum_j m_j``, positions uniform in
        the unit square and masses uniform in [0, 1).

    ========== ========== ======================================
    attribute  unit       meaning
    ========== ========== ======================================
    x [N, 1]   mass unit  mass
    pos [N, 2] box length where a node is
    y [N, 2]   box length where it will be
    ========== ========== ======================================

    Graphs are fully connected: the model joins all pairs where it has no cutoff. The task S0 of
    EXPERIMENTS.md trains on 6 nodes and tests on 12; here 12 nodes are the out-of-distribution
    split ``ood``, and ``test`` has 6, so that the two errors stand apart.

    Args:
        seed: of the graphs; every split has a stream of its own.
    """
    parts, splits, start = [], {}, 0
    for number, split in enumerate(SPLITS):
        count = GRAPHS[split]
        parts.append(_draw(count, NODES[split], np.random.default_rng([seed, number])))
        splits[split] = torch.arange(start, start + count)
        start += count
    sizes = np.repeat([NODES[split] for split in SPLITS], [GRAPHS[split] for split in SPLITS])
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return GraphDataset(
        name="centroid",
        target="positions",
        unit="box length",
        extensive=False,
        graphs=GraphStore(np.concatenate([[0], sizes.cumsum()]), columns, {}),
        splits=splits,
        outputs="positions",
        units={"pos": "box length", "y": "box length", "x": "mass unit"},
    )


def _draw(count: int, nodes: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """``x [count * nodes, 1]``, ``pos`` and ``y [count * nodes, 2]``."""
    mass = rng.uniform(size=(count, nodes, 1))
    pos = rng.uniform(size=(count, nodes, 2))
    centroid = (mass * pos).sum(1, keepdims=True) / mass.sum(1, keepdims=True)
    moved = pos + mass * (centroid - pos)
    return {"x": mass.reshape(-1, 1), "pos": pos.reshape(-1, 2), "y": moved.reshape(-1, 2)}
