"""Compare importances with what removing each channel really does.

Trains small networks (an EGNN with five read-outs of a mean and a variance, on the embedded data),
estimates every channel's importance on some held-out graphs, closes each channel in turn on
*other* held-out graphs, and prints Spearman's rank correlation of the two for each network:

* ``all``: over all channels of the network, as a global ranking uses them;
* ``group``: within each group, averaged over the groups, as a ranking by group uses them.

The truth is the score of the criterion "uncertainty" from exact changes of loss and log variance.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from egnn_prune import data
from egnn_prune.models import EGNNOptions, PropertyModel, TargetScale
from egnn_prune.pruning import Context, score_channels
from egnn_prune.pruning.criteria.leave_one_out import leave_one_out
from egnn_prune.pruning.criteria.uncertainty import combined
from egnn_prune.training import FitSettings, RegressionTask, fit, graph_batches, graph_losses

CRITERIA = ("uncertainty", "taylor", "fisher", "magnitude", "random")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", type=int, default=5, help="networks, one a seed (5)")
    parser.add_argument("--steps", type=int, default=400, help="optimiser steps of each (400)")
    parser.add_argument(
        "--graphs", type=int, default=96, help="held-out graphs of either kind (96)"
    )
    parser.add_argument("--criteria", nargs="+", default=list(CRITERIA), help="what to compare")
    return parser.parse_args()


def variance(model: nn.Module, batch: Batch) -> Tensor:
    """Total predictive variance of each graph, in the target's unit squared."""
    return model(batch).variance


def log_variance(model: nn.Module, batch: Batch) -> Tensor:
    return variance(model, batch).log()


def trained(seed: int, steps: int) -> PropertyModel:
    """A small network, with two or three layers and with or without attention by the seed."""
    dataset = data.load("xtb").limited(1600, seed)
    graphs = dataset.split("train")
    torch.manual_seed(seed)
    options = EGNNOptions(radial=8, attention=seed % 4 < 2)
    model = PropertyModel.build(
        dataset.elements, hidden=16, layers=2 + seed % 2, members=5, options=options
    )
    batch = Batch.from_data_list(graphs)
    model.scale = TargetScale.fit(model.element_counts(batch), batch.y)
    task = RegressionTask(model, FitSettings(steps, lr=1e-2))
    val = DataLoader(dataset.split("val")[:16], 16)
    fit(task, graph_batches(graphs, 32), val, device=torch.device("cpu"))
    return model


def exact_scores(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The score of "uncertainty" with exact changes in the place of first-order ones."""
    context = Context(model, model.channel_groups(), [batch])  # type: ignore[operator]
    return combined(leave_one_out(context, graph_losses), leave_one_out(context, log_variance))


def estimated_scores(model: nn.Module, batch: Batch, criterion: str) -> dict[str, Tensor]:
    groups = model.channel_groups()  # type: ignore[operator]
    context = Context(model, groups, [batch], graph_losses, variance=variance)
    return score_channels(criterion, context)


def held_out(graphs: int) -> tuple[Batch, Batch]:
    """Validation graphs to estimate on, and test graphs to measure on."""
    dataset = data.load("xtb")
    val, test = (dataset.split(name)[:graphs] for name in ("val", "test"))
    return Batch.from_data_list(val), Batch.from_data_list(test)


def correlation(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Spearman's rank correlation over all channels of all groups."""
    return float(spearmanr(*(torch.cat([x[name] for name in a]) for x in (a, b))).statistic)


def correlation_in_groups(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """The same within each group, averaged over the groups."""
    return statistics.mean(float(spearmanr(a[name], b[name]).statistic) for name in a)


def line(label: str, values: Iterable[float]) -> str:
    values = list(values)
    shown = "  ".join(f"{value:6.3f}" for value in values)
    return f"{label:24} {shown}   median {statistics.median(values):6.3f}"


def main() -> None:
    arguments = parse()
    here, there = held_out(arguments.graphs)
    rows: dict[str, list[float]] = {}
    for seed in range(arguments.nets):
        model = trained(seed, arguments.steps)
        with torch.no_grad():
            prediction = model(there)
        error = (prediction.mean - there.y).abs().mean()
        truth = exact_scores(model, there)
        print(
            f"network {seed}: {sum(map(len, truth.values()))} channels, test error {error:.2f} eV, "
            f"stated {prediction.variance.sqrt().mean():.2f} eV"
        )
        for criterion in arguments.criteria:
            score = estimated_scores(model, here, criterion)
            for how, measure in (("all", correlation), ("group", correlation_in_groups)):
                rows.setdefault(f"{criterion}, {how}", []).append(measure(score, truth))
        repeat = exact_scores(model, here)  # no estimate can be expected to do better
        rows.setdefault("exact elsewhere, all", []).append(correlation(repeat, truth))
        rows.setdefault("exact elsewhere, group", []).append(correlation_in_groups(repeat, truth))
    print(f"\nSpearman's rank correlation with exact removal, {arguments.steps} steps of training")
    for label, values in rows.items():
        print(line(label, values))


if __name__ == "__main__":
    main()
