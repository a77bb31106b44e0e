"""A training step against the textbook's, and the compact network against the dense one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from egnn_prune.api import pruning as api
from egnn_prune.device_checks.checking import CheckContext, Found, require
from egnn_prune.device_checks.graphs import (
    TOLERANCE,
    batch_of,
    deviation,
    egnn,
    parameters_of,
)
from egnn_prune.graphs import complete_edges
from egnn_prune.models import EGNN
from egnn_prune.pruning import apply_masks
from egnn_prune.system.timing import alternating_medians, stepper
from egnn_prune.testing.textbook import TextbookEGNN

FEATURES = 5


def states(network: EGNN, batch: Batch) -> tuple[Tensor, Tensor]:
    """Features and positions of all nodes after the last layer."""
    out = network(batch)
    return out.x, out.pos


def against_the_textbook(context: CheckContext, found: Found) -> None:
    """Ours and the layer as the paper writes it: equal outputs, and both times.

    A slower step is no failure: it is what the table is to show.
    """
    torch.manual_seed(0)
    graphs, nodes = context.pick((96, 18), (4, 6))
    batch = Batch.from_data_list(
        [
            Data(x=torch.randn(nodes, FEATURES), pos=2.0 * torch.randn(nodes, 3))
            for _ in range(graphs)
        ]
    ).to(context.device)
    batch.edge_index = complete_edges(batch.ptr)
    hidden, layers = context.pick((128, 7), (8, 2))
    ours = EGNN(FEATURES, hidden, layers, position_aggregation="sum", aggregation="sum")
    ours = ours.to(context.device)
    theirs = TextbookEGNN(ours)

    run_ours = partial(states, ours, batch)

    def run_theirs() -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = theirs(batch.x, batch.pos, batch.edge_index)
        return found

    with torch.no_grad():
        pairs = zip(run_ours(), run_theirs(), strict=True)
        found["deviation"] = max(deviation(a, b) for a, b in pairs)
    require(found["deviation"] <= TOLERANCE[torch.float32], "ours and the textbook's differ")
    times = partial(_medians, context)
    step = times({"ours": stepper(ours, run_ours), "textbook": stepper(theirs, run_theirs)})
    forward = times({"ours": silent(run_ours), "textbook": silent(run_theirs)})
    for label, ms in (("step", step), ("forward", forward)):
        found |= {f"{label} {name} ms": value for name, value in ms.items()}
        found[f"{label} textbook/ours"] = ms["textbook"] / ms["ours"]
    if context.on_gpu:
        for name, model, run in (("ours", ours, run_ours), ("textbook", theirs, run_theirs)):
            torch.cuda.reset_peak_memory_stats(context.device)
            stepper(model, run)()
            found[f"step {name} MiB"] = torch.cuda.max_memory_allocated(context.device) / 2**20
    compact_against_dense(context, found)


def compact_against_dense(context: CheckContext, found: Found) -> None:
    """Latency of the main job's network with and without half of its channels."""
    dense = egnn(context).to(context.device)
    masked = egnn(context).to(context.device)
    apply_masks(masked, {g.name: torch.arange(g.n) % 2 == 0 for g in masked.channel_groups()})
    small = api.compact(masked)
    batch = batch_of(context, full=128).to(context.device)
    require(parameters_of(small) < parameters_of(dense), "compact is no smaller than dense")
    runs = {name: silent(partial(m, batch)) for name, m in (("dense", dense), ("half", small))}
    ms = _medians(context, runs)
    found |= {"latency dense ms": ms["dense"], "latency half ms": ms["half"]}


def silent(run: Callable[[], Any]) -> Callable[[], object]:
    """The same without gradients."""
    return torch.no_grad()(run)


def _medians(context: CheckContext, runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    return alternating_medians(runs, context.pick(20, 2), context.pick(5, 1), context.device)
