"""Predictions of whole lists of graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from tqdm import tqdm

from egnn_prune.data.collation import collate, loader
from egnn_prune.prediction import Prediction
from egnn_prune.system.distributed import agree_on_draws, gathered, joined, part_of
from egnn_prune.uncertainty import Estimator

#: Graphs per batch.
BATCH = 128


def predict_all(
    estimator: Estimator, graphs: Sequence[Data], device: torch.device, label: str
) -> Prediction:
    """Predict a whole list of graphs, in order, with a progress bar.

    Positions are flattened: every coordinate of every node is a prediction, ``[K]``. Several
    processes predict a part each, and all get the whole.
    """
    estimator = estimator.to(device).eval()
    starts = range(0, len(graphs), BATCH)
    parts: list[Prediction] = []
    for start in tqdm(part_of(starts), label, leave=False):
        batch = collate(graphs[start : start + BATCH])
        found: Any = estimator.predict(batch.to(device))  # graph models predict no classes
        parts.append(found.detach().flattened())
    estimator.to("cpu")
    agree_on_draws()
    return Prediction.cat(joined(gathered(parts)))


def point_predictions(model: nn.Module, graphs: Sequence[Data], device: torch.device) -> Tensor:
    """Means of one deterministic pass, ``[K]``: what a user of the model gets by default."""
    model = model.to(device).eval()
    with torch.no_grad():
        means = [mean_of(model, b.to(device)).flatten().cpu() for b in loader(graphs, BATCH)]
    model.to("cpu")
    return torch.cat(means)


def mean_of(model: nn.Module, batch: Batch) -> Tensor:
    """Predicted means of one deterministic pass, ``[B]``."""
    return model(batch).mean


def targets(graphs: Sequence[Data]) -> Tensor:
    """The targets of a list of graphs, ``[K]``, in float64."""
    return torch.cat([g.y.flatten() for g in graphs]).double()


def graph_means(values: Tensor, graphs: Sequence[Data]) -> Tensor:
    """Means of ``values [K]`` over what each graph predicts, ``[n]`` (one value a graph stays)."""
    if len(values) == len(graphs):
        return values
    sizes = torch.tensor([g.y.numel() for g in graphs])
    index = torch.arange(len(graphs)).repeat_interleave(sizes)
    return values.new_zeros(len(graphs)).index_add(0, index, values) / sizes
