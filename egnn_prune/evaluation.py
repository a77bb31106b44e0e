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
from tqdm import tqdm

from egnn_prune.configs.settings import Settings
from egnn_prune.data import GraphDataset
from egnn_prune.error_bars import judge
from egnn_prune.predicting import mean_of, point_predictions, targets
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
            if split != "val":
                arrays[f"{split}_target"] = y.numpy()
                arrays[f"{split}_reference"] = reference(network, graphs).numpy()
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
            partial(mean_of, network), symmetry, scale=spread or 1.0, seed=settings.seed
        )
        results[name] = result
    return results, arrays


def reference(model: nn.Module, graphs: list[Data]) -> Tensor:
    """What the per-element fit alone predicts for every graph, ``[n]``."""
    first: Any = model.members[0] if isinstance(model, DeepEnsemble) else model
    counts = first.element_counts(Batch.from_data_list(graphs))
    return first.scale.reference(counts)
