"""What ``egnn-prune bench`` measures: training steps, pruned networks, and error bars.

The cases take turns (A B A B ...), so that a busy machine slows all of them.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from egnn_prune import data
from egnn_prune.api import compact
from egnn_prune.device_checks.speed import silent, states
from egnn_prune.graphs import complete_edges, with_edges
from egnn_prune.models import EGNN, EGNNOptions, IrrepsNet, PropertyModel
from egnn_prune.pruning import apply_masks, count_macs
from egnn_prune.system.timing import alternating_medians, alternating_times, stepper
from egnn_prune.testing.textbook import TextbookEGNN
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


def benchmark(arguments: argparse.Namespace) -> bool:
    """Measure what was asked for.

    Returns:
        Whether outputs agree and costs are within their limits.
    """
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.uncertainty:
        return cost_of_uncertainty(arguments)
    return (irreps_and_half if arguments.irreps else ours_and_textbook)(arguments)


def random_batch(graphs: int, nodes: int, features: int, device: str) -> Batch:
    """Random graphs with all pairs connected."""
    torch.manual_seed(0)
    batch = Batch.from_data_list(
        [
            Data(x=torch.randn(nodes, features), pos=2.0 * torch.randn(nodes, 3))
            for _ in range(graphs)
        ]
    ).to(device)
    batch.edge_index = complete_edges(batch.ptr)
    return batch


def irreps_and_half(arguments: argparse.Namespace) -> bool:
    """Multiplications and time of an IrrepsNet, whole and with every second channel removed."""
    torch.manual_seed(0)
    dense = IrrepsNet(5, arguments.irreps, arguments.layers, lmax=2).to(arguments.device)
    masked = copy.deepcopy(dense)
    apply_masks(masked, {g.name: torch.arange(g.n) % 2 == 0 for g in dense.channel_groups()})
    half = compact(masked)
    batch = random_batch(arguments.graphs, arguments.nodes, 5, arguments.device)
    batch.edge_index = None
    batch = with_edges(batch, dense.options.cutoff)
    print(
        f"{arguments.graphs} graphs of {arguments.nodes} nodes, {batch.edge_index.shape[1]} edges, "
        f"{arguments.irreps} copies of each irrep to l = 2, {arguments.layers} layers, float32; "
        f"{arguments.device}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"median of {arguments.repeats}"
    )
    macs = {k: count_macs(m, lambda m: m(batch))[""] for k, m in (("d", dense), ("h", half))}
    print(
        f"MACs: {macs['d'] / 1e6:.0f} M, half {macs['h'] / 1e6:.0f} M, {macs['h'] / macs['d']:.1%}"
    )

    def forward(model: nn.Module) -> Callable[[], tuple[Tensor, Tensor]]:
        def run() -> tuple[Tensor, Tensor]:
            out = model(batch)
            return out.x, out.pos

        return run

    for label, wrap in (("training step", None), ("forward only", silent)):
        runs: dict[str, Callable[[], object]] = {
            name: wrap(forward(m)) if wrap else stepper(m, forward(m))
            for name, m in (("dense", dense), ("half", half))
        }
        ms = alternating_medians(runs, arguments.repeats, arguments.warmup, arguments.device)
        print(
            f"{label}: dense {ms['dense']:.1f} ms, half {ms['half']:.1f} ms, "
            f"speed-up {ms['dense'] / ms['half']:.2f}"
        )
    return True


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


def ours_and_textbook(arguments: argparse.Namespace) -> bool:
    """Print the times of our EGNN and the textbook's; whether both compute the same."""
    device = arguments.device
    ours = EGNN(
        5, arguments.hidden, arguments.layers, position_aggregation="sum", aggregation="sum"
    ).to(device)
    textbook = TextbookEGNN(ours)
    batch = random_batch(arguments.graphs, arguments.nodes, 5, device)

    run_ours = partial(states, ours, batch)

    def run_textbook() -> tuple[Tensor, Tensor]:
        return textbook(batch.x, batch.pos, batch.edge_index)

    print(
        f"{arguments.graphs} graphs of {arguments.nodes} nodes, {batch.edge_index.shape[1]} edges, "
        f"hidden {arguments.hidden}, {arguments.layers} layers, float32; {device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"median of {arguments.repeats}"
    )
    with torch.no_grad():
        differences = [
            float((a - b).abs().max() / b.abs().max())
            for a, b in zip(run_ours(), run_textbook(), strict=True)
        ]
    worst = max(differences)
    said = "agree" if worst < 1e-4 else "DO NOT AGREE"
    print(f"outputs {said}: largest difference {worst:.1e} of their scale")

    cases: dict[str, dict[str, Callable[[], object]]] = {
        "training step": {
            "ours": stepper(ours, run_ours),
            "textbook": stepper(textbook, run_textbook),
        },
        "forward only": {
            "ours": silent(run_ours),
            "textbook": silent(run_textbook),
        },
    }
    for label, runs in cases.items():
        ms = alternating_medians(runs, arguments.repeats, arguments.warmup, device)
        print(
            f"{label}: ours {ms['ours']:.1f} ms, textbook {ms['textbook']:.1f} ms, "
            f"ratio {ms['textbook'] / ms['ours']:.2f}"
        )
    return worst < 1e-4
