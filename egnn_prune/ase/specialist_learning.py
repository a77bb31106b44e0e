"""What a specialist learns from: labelled structures, and what its new file has to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch_geometric.data import Data

from egnn_prune.ase.collection import Collected
from egnn_prune.ase.structures import graph_of
from egnn_prune.ase.teacher import EnergyOffset
from egnn_prune.deployment.trained_model import TrainedModel
from egnn_prune.deployment.training_domain import TrainingDomain
from egnn_prune.training.distillation import bare
from egnn_prune.uncertainty import Estimator

#: Structures that are predicted at once.
BATCH = 16


def labelled(graph: Data) -> Data:
    """Geometry, energy and forces of a training structure, alike for all."""
    out = bare(graph)
    out.y, out.forces = graph.y.reshape(1).double(), graph.forces.double()
    return out


def with_labels(items: Sequence[Collected], offset: EnergyOffset) -> list[Data]:
    """Collected structures as the network's training structures are.

    Without what the teacher could not label, and compositions whose offset of energies is not
    settled: the teacher's own zero would teach energies that are wrong.
    """
    found = []
    for item in items:
        if item.labels is None or not offset.knows(item.atoms.numbers):
            continue
        graph = graph_of(item.atoms)
        energy = item.labels.energy + offset(item.atoms.numbers)
        graph.y = torch.tensor([energy], dtype=torch.float64)
        graph.forces = torch.from_numpy(item.labels.forces)
        found.append(graph)
    return found


def renewed(
    old: TrainedModel, estimator: Estimator, train: Sequence[Data], val: Sequence[Data]
) -> TrainedModel:
    """The model with a network that was trained further, and with limits that belong to it.

    Args:
        old: what answered until now.
        estimator: what answers from now on.
        train: all structures that it was trained on.
        val: the old validation structures, which say what epistemic deviation is usual.
    """
    model = replace(
        old,
        estimator=estimator.eval().requires_grad_(False),
        domain=TrainingDomain.of(train) if old.domain else None,
        ood_threshold=None,
    )
    if not model.has_error_bars:
        return model
    scores: list[float] = []
    for start in range(0, len(val), BATCH):
        parts = model.predict(val[start : start + BATCH])
        scores += [part.ood_score for part in parts if part.ood_score is not None]
    return replace(model, ood_threshold=float(np.quantile(scores, 0.99)) or None)
