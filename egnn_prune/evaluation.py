"""Models side by side: error, error bars, cost and symmetry on the same graphs."""

from __future__ import annotations

import statistics
import time
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from tqdm import tqdm

from egnn_prune.configs.settings import Settings, UncertaintySettings
from egnn_prune.data import GraphDataset
from egnn_prune.prediction import Prediction
from egnn_prune.pruning import count_macs
from egnn_prune.testing import equivariance_error
from egnn_prune.uncertainty import (
    DeepEnsemble,
    error_uncertainty_spearman,
    gaussian_nll,
    mc_dropout,
)

#: Graphs per batch when predicting.
BATCH = 128
#: Graphs in the batch whose latency is measured.
LATENCY_BATCH = 128
#: Timed passes of each model, after a tenth as many to warm up.
LATENCY_REPEATS = 50
#: Graphs that the symmetry is checked on.
SYMMETRY_GRAPHS = 32


def predict(
    model: nn.Module, batch: Batch, uncertainty: UncertaintySettings, device: torch.device
) -> Prediction:
    """A prediction with its uncertainty, by the method that the settings name.

    Dropout draws the same thinned networks for every batch, on any device.
    """
    with torch.no_grad():
        batch = batch.to(device)
        if uncertainty.method == "dropout":
            generator = torch.Generator().manual_seed(0)
            prediction = mc_dropout(model, batch, uncertainty.samples, generator=generator)
        else:
            prediction = model(batch)
    return prediction.detach()


def predict_all(
    model: nn.Module,
    graphs: list[Data],
    uncertainty: UncertaintySettings,
    device: torch.device,
    label: str,
) -> Prediction:
    """Predict a whole list of graphs, in order, with a progress bar."""
    model = model.to(device).eval()
    loader = DataLoader(graphs, BATCH)
    parts = [predict(model, b, uncertainty, device) for b in tqdm(loader, label, leave=False)]
    model.to("cpu")
    return Prediction.cat(parts)


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


def latencies(models: dict[str, nn.Module], batch: Batch, device: torch.device) -> dict[str, float]:
    """Median time of one deterministic pass, in ms; the models take turns, so drift hits all."""
    batch = batch.to(device)
    times: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        model.to(device).eval()
    with torch.no_grad():
        for repeat in tqdm(range(LATENCY_REPEATS + LATENCY_REPEATS // 10), "latency", leave=False):
            for name, model in models.items():
                start = time.perf_counter()
                model(batch)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if repeat >= LATENCY_REPEATS // 10:
                    times[name].append(1e3 * (time.perf_counter() - start))
    for model in models.values():
        model.to("cpu")
    return {name: statistics.median(values) for name, values in times.items()}


def evaluate(
    models: dict[str, nn.Module],
    dataset: GraphDataset,
    settings: Settings,
    device: torch.device,
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Compare models on the test and out-of-distribution splits.

    Args:
        models: by name; all predict the data set's target.
        dataset: the data.
        settings: for the uncertainty method.
        device: where to run.

    Returns:
        For each model its numbers (see the README), and the arrays of targets and predictions.
    """
    test = dataset.split("test")
    batch = Batch.from_data_list(test)
    symmetry = Batch.from_data_list(test[:SYMMETRY_GRAPHS])
    timed = Batch.from_data_list(test[:LATENCY_BATCH])
    latency = latencies(models, timed, device)
    results: dict[str, dict[str, Any]] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, model in models.items():
        result: dict[str, Any] = {"unit": dataset.unit}
        val = dataset.split("val")
        error = point_predictions(model, val, device) - torch.cat([g.y for g in val])
        result["val_mae"] = float(error.abs().mean())
        for split in ("test", "ood"):
            graphs = dataset.split(split)
            if not graphs:
                result[f"{split}_mae"] = None
                continue
            y = torch.cat([g.y for g in graphs]).double()
            point = point_predictions(model, graphs, device)
            prediction = predict_all(
                model, graphs, settings.uncertainty, device, f"{name}, {split}"
            )
            error = point - y
            result[f"{split}_mae"] = float(error.abs().mean())
            arrays[f"{split}_target"] = y.numpy()
            arrays[f"{split}_{name}_mean"] = point.numpy()
            arrays[f"{split}_{name}_std"] = prediction.variance.sqrt().numpy()
            arrays[f"{split}_{name}_epistemic_std"] = prediction.epistemic.sqrt().numpy()
            arrays[f"{split}_reference"] = reference(model, graphs).numpy()
            if split == "test":
                result["test_rmse"] = float(error.square().mean().sqrt())
                # error bars are judged around the point that is reported, one deterministic pass
                result["nll"] = gaussian_nll(y, point, prediction.variance)
                result["spearman_error_uncertainty"] = error_uncertainty_spearman(
                    y, point, prediction.variance
                )
        spread = float(np.std(arrays["test_target"] - arrays["test_reference"]))
        result["params"] = sum(p.numel() for p in model.parameters())
        macs = count_macs(model, lambda m: m(batch))[""]
        result["macs_per_graph"] = round(macs / len(test))
        result["latency_ms"] = latency[name]
        result["latency_batch"] = timed.num_graphs
        result["equivariance_error"] = equivariance_error(
            partial(mean_of, model), symmetry, scale=spread or 1.0, seed=settings.seed
        )
        results[name] = result
    return results, arrays


def reference(model: nn.Module, graphs: list[Data]) -> Tensor:
    """What the per-element fit alone predicts for every graph, ``[n]``."""
    first: Any = model.members[0] if isinstance(model, DeepEnsemble) else model
    counts = first.element_counts(Batch.from_data_list(graphs))
    return first.scale.reference(counts)
