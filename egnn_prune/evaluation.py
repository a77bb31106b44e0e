"""Models side by side: error, error bars, cost and symmetry on the same graphs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from tqdm import tqdm

from egnn_prune.configs.settings import Settings
from egnn_prune.data import GraphDataset
from egnn_prune.error_bars import judge
from egnn_prune.models import PositionModel, forces
from egnn_prune.predicting import BATCH, mean_of, point_predictions, targets
from egnn_prune.pruning import count_macs
from egnn_prune.testing import equivariance_error
from egnn_prune.uncertainty import Calibrated, DeepEnsemble

#: Graphs in the batch whose latency is measured.
LATENCY_BATCH = 128
#: Timed passes of each model, after a tenth as many to warm up.
LATENCY_REPEATS = 50
#: Graphs that the symmetry is checked on.
SYMMETRY_GRAPHS = 32


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
    models: dict[str, Calibrated],
    dataset: GraphDataset,
    settings: Settings,
    device: torch.device,
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Compare models on the test and out-of-distribution splits.

    Errors, latency and symmetry are those of one deterministic pass; error bars are judged with
    the mean of their own method.

    Args:
        models: by name; all predict the data set's target.
        dataset: the data.
        settings: the seed is read.
        device: where to run.

    Returns:
        For each model its numbers (see the README), and the arrays of targets and predictions.
    """
    test = dataset.split("test")
    batch = Batch.from_data_list(test)
    symmetry = Batch.from_data_list(test[:SYMMETRY_GRAPHS])
    timed = Batch.from_data_list(test[:LATENCY_BATCH])
    latency = latencies({name: model.network for name, model in models.items()}, timed, device)
    view = moved if dataset.outputs == "positions" else mean_of
    results: dict[str, dict[str, Any]] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, model in models.items():
        network = model.network
        result: dict[str, Any] = {"unit": dataset.unit}
        for split in ("val", "test", "ood"):
            graphs = dataset.split(split)
            if not graphs:
                result[f"{split}_mae"] = None
                continue
            y = targets(graphs)
            error = point_predictions(network, graphs, device) - y
            result[f"{split}_mae"] = float(error.abs().mean())
            if split == "test":
                result["test_rmse"] = float(error.square().mean().sqrt())
                if dataset.outputs == "positions":  # the report tells positions by this key
                    result["test_mse"] = float(error.square().mean())
            if settings.training.force_weight:
                result |= force_errors(network, graphs, device, split)
            if split != "val":
                arrays[f"{split}_target"] = y.numpy()
                if len(y) != len(graphs):  # whose errors go together
                    sizes = [g.y.numel() for g in graphs]
                    arrays[f"{split}_graph"] = np.repeat(np.arange(len(graphs)), sizes)
                arrays[f"{split}_reference"] = reference(network, graphs).flatten().numpy()
        judged, found = judge(name, model, dataset, device)
        result |= judged
        arrays |= found
        spread = float(np.std(arrays["test_target"] - arrays["test_reference"]))
        result["params"] = sum(p.numel() for p in network.parameters())
        macs = count_macs(network, lambda m: m(batch))[""]
        result["macs_per_graph"] = round(macs / len(test))
        result["latency_ms"] = latency[name]
        result["latency_batch"] = timed.num_graphs
        result["equivariance_error"] = equivariance_error(
            partial(view, network), symmetry, scale=spread or 1.0, seed=settings.seed
        )
        results[name] = result
    return results, arrays


def force_errors(
    model: nn.Module, graphs: Sequence[Data], device: torch.device, split: str
) -> dict[str, float | None]:
    """Mean absolute and root mean square error of force components, in the target's unit/Angstrom.

    Nothing but ``None`` where a graph of the split has no forces.
    """
    errors: list[Tensor] = []
    model = model.to(device).eval()
    for batch in tqdm(DataLoader(graphs, BATCH), f"forces, {split}", leave=False):
        if getattr(batch, "forces", None) is None:
            return {f"{split}_force_mae": None, f"{split}_force_rmse": None}
        batch = batch.to(device)
        errors.append((forces(model, batch) - batch.forces).double().flatten().cpu())
    model.to("cpu")
    error = torch.cat(errors)
    return {
        f"{split}_force_mae": float(error.abs().mean()),
        f"{split}_force_rmse": float(error.square().mean().sqrt()),
    }


def moved(model: nn.Module, batch: Batch) -> Data:
    """Predicted positions as positions: they turn with the graph, where numbers stay."""
    return Data(pos=mean_of(model, batch))


def reference(model: nn.Module, graphs: Sequence[Data]) -> Tensor:
    """What no network predicts: the per-element fit, or that nothing moves, ``[K]``."""
    first: Any = model.members[0] if isinstance(model, DeepEnsemble) else model
    batch = Batch.from_data_list(list(graphs))
    if isinstance(first, PositionModel):
        return first.reference(batch)
    return first.scale.reference(first.element_counts(batch))
