"""What ways to error bars cost against one deterministic prediction.

All take turns (A B A B ...), so that a busy machine slows all of them.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch_geometric.data import Batch

from egnn_prune import data
from egnn_prune.device_checks.speed import silent
from egnn_prune.models import EGNNOptions, PropertyModel
from egnn_prune.system.timing import alternating_times
from egnn_prune.uncertainty import DeepEnsemble, LastLayer, MCDropout, SinglePass

#: Deterministic predictions that are timed together: a single one, being short, would find quiet
#: moments of a busy machine that no ensemble finds.
PASSES = 5
#: Largest cost of each estimator, in deterministic predictions.
COST_LIMITS = {
    "shallow ensemble of 5": 1.2,
    "last layer": 1.2,
    "deep ensemble of 5": 5.2,
    "MC dropout of 20, every layer": 21.0,
    "MC dropout of 20, read-out": 3.0,
}


def estimators(arguments: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """One deterministic prediction of a batch, and every estimator's, by the names of the limits.

    Untrained networks with the main job's options: the cost does not depend on the weights.
    """
    dataset = data.load("xtb").with_cutoff(4.0)

    def batch_of(split: str) -> Batch:
        return Batch.from_data_list(dataset.split(split)[: arguments.graphs]).to(arguments.device)

    def network(members: int = 1, dropout: float = 0.0, readout_dropout: float = 0.0) -> nn.Module:
        options = EGNNOptions(attention=True, radial=20, cutoff=4.0, dropout=dropout)
        model = PropertyModel.build(
            dataset.elements,
            hidden=arguments.hidden,
            layers=arguments.layers,
            members=members,
            readout_dropout=readout_dropout,
            options=options,
        )
        return model.to(arguments.device).eval()

    batch, deterministic = batch_of("test"), network()
    found = [
        SinglePass(network(members=5)),
        LastLayer(network()).fit([batch_of("train")]),
        SinglePass(DeepEnsemble([network() for _ in range(5)])),
        MCDropout(network(dropout=0.1, readout_dropout=0.1), samples=20),
        MCDropout(network(readout_dropout=0.1), samples=20),
    ]
    print(
        f"{batch.num_graphs} graphs of the embedded data, {batch.num_nodes} atoms, "
        f"{batch.num_edges} edges, hidden {arguments.hidden}, {arguments.layers} layers, float32; "
        f"{arguments.device}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"{arguments.repeats} turns"
    )
    runs = {"deterministic": silent(lambda: [deterministic(batch) for _ in range(PASSES)])}
    for name, estimator in zip(COST_LIMITS, found, strict=True):
        runs[name] = partial(estimator.predict, batch)
    return runs


def cost_of_uncertainty(arguments: argparse.Namespace) -> bool:
    """Print the cost of every estimator; whether all medians are within their limits."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    runs = estimators(arguments)
    times = alternating_times(runs, arguments.repeats, arguments.warmup, arguments.device)
    median = {name: statistics.median(values) for name, values in times.items()}
    least = {name: min(values) for name, values in times.items()}
    one, best = median["deterministic"] / PASSES, least["deterministic"] / PASSES
    print(f"deterministic: median {one:.1f} ms, fastest {best:.1f} ms")
    print(f"{'':30} median   ratio  fastest   ratio   limit")
    within = True
    for name, limit in COST_LIMITS.items():
        ratio = median[name] / one
        within = within and ratio <= limit
        print(
            f"{name:30} {median[name]:6.1f} {ratio:6.2f}x   {least[name]:6.1f} "
            f"{least[name] / best:6.2f}x  {limit:5.1f}x  {'ok' if ratio <= limit else 'TOO SLOW'}"
        )
    return within
