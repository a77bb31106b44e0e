"""Predictions of whole lists of graphs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from tqdm import tqdm

from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty import Estimator

#: Graphs per batch.
BATCH = 128


def predict_all(
    estimator: Estimator, graphs: list[Data], device: torch.device, label: str
) -> Prediction:
    """Predict a whole list of graphs, in order, with a progress bar."""
    estimator = estimator.to(device).eval()
    batches = tqdm(DataLoader(graphs, BATCH), label, leave=False)
    parts = [estimator.predict(batch.to(device)).detach() for batch in batches]
    estimator.to("cpu")
    return Prediction.cat(parts)  # type: ignore[arg-type]


def point_predictions(model: nn.Module, graphs: list[Data], device: torch.device) -> Tensor:
    """Means of one deterministic pass, ``[n]``: what a user of the model gets by default."""
    model = model.to(device).eval()
    with torch.no_grad():
        means = [mean_of(model, b.to(device)).cpu() for b in DataLoader(graphs, BATCH)]
    model.to("cpu")
    return torch.cat(means)


def mean_of(model: nn.Module, batch: Batch) -> Tensor:
    """Predicted means of one deterministic pass, ``[B]``."""
    return model(batch).mean


def targets(graphs: list[Data]) -> Tensor:
    """The targets of a list of graphs, ``[n]``, in float64."""
    return torch.cat([g.y for g in graphs]).double()
