"""Models side by side: error, error bars, cost and symmetry on the same graphs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from tqdm import tqdm

from egnn_prune.configs.settings import Settings
from egnn_prune.data import GraphDataset
from egnn_prune.data.collation import loader
from egnn_prune.evaluation.element_errors import Sums, force_errors_by_element, sums_of
from egnn_prune.evaluation.equivariance import equivariance_error
from egnn_prune.evaluation.force_uncertainty import gallery_of_atoms, score_force_uncertainty
from egnn_prune.evaluation.predict import BATCH, mean_of, point_predictions, targets
from egnn_prune.evaluation.type_errors import errors_by_type
from egnn_prune.evaluation.uncertainty_scores import score_uncertainty
from egnn_prune.models import forces
from egnn_prune.prediction import members_of
from egnn_prune.pruning import count_macs
from egnn_prune.system.timing import Clock, alternating_times
from egnn_prune.uncertainty import Calibrated

#: Graphs in the batch whose latency is measured.
LATENCY_BATCH = 128
#: Timed passes of each model, after a tenth as many to warm up.
LATENCY_REPEATS = 50
#: Graphs that the symmetry is checked on.
SYMMETRY_GRAPHS = 32


def latencies(
    models: dict[str, nn.Module],
    batch: Batch,
    device: torch.device,
    clock: Clock = time.perf_counter,
) -> dict[str, list[float]]:
    """Times of deterministic passes, in ms; the models take turns, so drift hits all.

    Args:
        models: by name.
        batch: what they predict.
        device: where.
        clock: tells the time, in seconds.

    Returns:
        For each model the times of :data:`LATENCY_REPEATS` passes.
    """
    batch = batch.to(device)
    runs = {name: partial(model.to(device).eval(), batch) for name, model in models.items()}
    with torch.no_grad():
        times = alternating_times(runs, LATENCY_REPEATS, LATENCY_REPEATS // 10, device, clock)
    for model in models.values():
        model.to("cpu")
    return times


def evaluate(
    models: dict[str, Calibrated],
    dataset: GraphDataset,
    settings: Settings,
    device: torch.device,
    clock: Clock = time.perf_counter,
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Compare models on the test and out-of-distribution splits.

    Errors, latency and symmetry are those of one deterministic pass; error bars are judged with
    the mean of their own method.

    Args:
        models: by name; all predict the data set's target.
        dataset: the data.
        settings: the seed is read.
        device: where to run.
        clock: what latencies are measured with.

    Returns:
        For each model its numbers (see the README), and the arrays of targets and predictions.
    """
    test = dataset.split("test")
    batch = Batch.from_data_list(test)
    symmetry = Batch.from_data_list(test[:SYMMETRY_GRAPHS])
    timed = Batch.from_data_list(test[:LATENCY_BATCH])
    latency = latencies(
        {name: model.network for name, model in models.items()}, timed, device, clock
    )
    view = moved if dataset.outputs == "positions" else mean_of
    results: dict[str, dict[str, Any]] = {}
    arrays = {f"latency_{name}": np.array(times) for name, times in latency.items()}
    for name, model in models.items():
        network = model.network
        result: dict[str, Any] = {"unit": dataset.unit}
        for split in ("val", "test", "ood"):
            graphs = dataset.split(split)
            if not graphs:
                result[f"{split}_mae"] = None
                continue
            y = targets(graphs)
            point = point_predictions(network, graphs, device)
            error = point - y
            result[f"{split}_mae"] = float(error.abs().mean())
            if split == "test":
                result["test_rmse"] = float(error.square().mean().sqrt())
                if dataset.outputs == "positions":  # the report tells positions by this key
                    result["test_mse"] = float(error.square().mean())
            if settings.training.force_weight:
                measured, sums = force_errors(network, graphs, device)
                result |= {f"{split}_{key}": value for key, value in measured.items()}
                if split != "val":
                    names = {k: k if k == "force_count" else f"{name}_{k}" for k in sums}
                    arrays |= {f"{split}_{names[k]}": values for k, values in sums.items()}
            if split != "val":
                arrays[f"{split}_target"] = y.numpy()
                arrays[f"{split}_{name}_point"] = point.numpy()
                if len(y) != len(graphs):  # whose errors go together
                    sizes = [g.y.numel() for g in graphs]
                    arrays[f"{split}_graph"] = np.repeat(np.arange(len(graphs)), sizes)
                arrays[f"{split}_reference"] = reference(network, graphs).flatten().numpy()
        scored, found = score_uncertainty(name, model, dataset, device)
        result |= scored
        arrays |= found
        scored, found = score_force_uncertainty(name, model, dataset, device)
        result |= scored
        arrays |= found
        spread = float(np.std(arrays["test_target"] - arrays["test_reference"]))
        result["params"] = sum(p.numel() for p in network.parameters())
        macs = count_macs(network, lambda m: m(batch))[""]
        result["macs_per_graph"] = round(macs / len(test))
        result["latency_ms"] = statistics.median(latency[name])
        result["latency_batch"] = timed.num_graphs
        result["equivariance_error"] = equivariance_error(
            partial(view, network), symmetry, scale=spread or 1.0, seed=settings.seed
        )
        results[name] = result
    return results, arrays | gallery_of_atoms(arrays, "pruned")


def errors_by_type_of_test(
    dataset: GraphDataset, models: Iterable[str], arrays: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Errors on the test split by type of structure; nothing where the data have no types.

    Args:
        dataset: the data.
        models: names of those that :func:`evaluate` compared.
        arrays: that it found.
    """
    types = dataset.types_of("test")
    if not types:
        return {}
    sums: dict[str, dict[str, Sums]] = {}
    for name in models:
        error = arrays[f"test_{name}_point"] - arrays["test_target"]
        sums[name] = {"energy": sums_of(error, np.arange(len(types)), len(types))}
        if f"test_{name}_force_abs" in arrays:
            absolute, square = (arrays[f"test_{name}_force_{k}"] for k in ("abs", "square"))
            sums[name]["force"] = (absolute, square, arrays["test_force_count"])
    units = {"energy": dataset.unit, "force": f"{dataset.unit}/Angstrom"}
    return errors_by_type(types, sums, units, ("pruned", "dense"))


def force_errors(
    model: nn.Module, graphs: Sequence[Data], device: torch.device
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Errors of force components, in the target's unit/Angstrom.

    Returns:
        ``force_mae`` and ``force_rmse``, ``None`` where a graph has no forces, else with
        ``force_by_element``, see :func:`force_errors_by_element`; and for each graph
        ``[n]`` the sums of absolute and squared errors, ``force_abs`` and ``force_square``, and how
        many components they sum, ``force_count``.
    """
    nothing: dict[str, Any] = {"force_mae": None, "force_rmse": None}
    parts: list[Tensor] = []
    wrong: list[Tensor] = []
    elements: list[Tensor] = []
    model = model.to(device).eval()
    for batch in tqdm(loader(graphs, BATCH), "forces", leave=False):
        if getattr(batch, "forces", None) is None:
            model.to("cpu")
            return nothing, {}
        batch = batch.to(device)
        error = (forces(model, batch) - batch.forces).double()
        columns = torch.stack([error.abs(), error.square(), torch.ones_like(error)]).sum(2)
        sums = columns.new_zeros(3, batch.num_graphs).index_add(1, batch.batch, columns)
        parts.append(sums.cpu())
        wrong.append(error.cpu())
        elements.append(batch.z.cpu())
    model.to("cpu")
    total, square, count = torch.cat(parts, 1)
    mae, rmse = total.sum() / count.sum(), (square.sum() / count.sum()).sqrt()
    return (
        {
            "force_mae": float(mae),
            "force_rmse": float(rmse),
            "force_by_element": force_errors_by_element(torch.cat(wrong), torch.cat(elements)),
        },
        {
            "force_abs": total.numpy(),
            "force_square": square.numpy(),
            "force_count": count.numpy(),
        },
    )


def moved(model: nn.Module, batch: Batch) -> Data:
    """Predicted positions as positions: they turn with the graph, where numbers stay."""
    return Data(pos=mean_of(model, batch))


def reference(model: nn.Module, graphs: Sequence[Data]) -> Tensor:
    """What no network predicts: the per-element fit, or that nothing moves, ``[K]``."""
    return members_of(model)[0].reference(Batch.from_data_list(list(graphs)))
