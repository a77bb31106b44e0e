"""What the edge block's kernels gain: times, memory and their share of the machine's limit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from egnn_prune.deployment.cuda_graph import CudaGraph
from egnn_prune.device_checks.checking import CheckContext, Found, Skipped, require
from egnn_prune.device_checks.edge_kernels import TOLERANCES, deviation
from egnn_prune.device_checks.speed import FEATURES, silent
from egnn_prune.graphs import complete_edges
from egnn_prune.models import EGNN, kernels
from egnn_prune.models.basis import SquaredDistance
from egnn_prune.models.edge_sums import EdgeInputs, EdgeWeights, Geometry, edge_sums
from egnn_prune.models.kernels.traffic import kernel_traffic
from egnn_prune.system.timing import alternating_medians, stepper
from egnn_prune.testing.textbook import TextbookEGNN

#: Graphs of 18 nodes, all pairs connected, as in the small molecules of QM9.
NODES, LAYERS = 18, 2
#: Edges and widths; the largest last, should the memory not hold the textbook's.
CASES = ((10**5, 64), (10**5, 128), (10**6, 64), (10**6, 128))
#: Bytes of the copy, and width of the product, that measure what the machine can do.
COPY, PRODUCT = 2**28, 4096


def speed(context: CheckContext, found: Found) -> None:
    """The edge block alone against the counted floor, whole networks against the textbook's."""
    if not (context.on_gpu and kernels.available(context.device)):
        raise Skipped("needs a GPU of compute capability 8.0 and Triton")
    limits = ceilings(context.device)
    found["GB/s"], found["TFLOP/s"] = limits[0] / 1e9, limits[1] / 1e12
    small_batch(context, found)
    for edges, hidden in CASES[: context.pick(4, 1)]:
        label = f"{edges:.0e} x {hidden}"
        try:
            edge_block(context, found, label, edges, hidden, limits)
            networks(context, found, label, edges, hidden)
        except torch.OutOfMemoryError:
            found[f"{label} memory"] = "full"
        torch.cuda.empty_cache()


def ceilings(device: torch.device) -> tuple[float, float]:
    """Bytes a second of a copy, and operations a second of a product, as torch is set."""
    a = torch.empty(COPY, dtype=torch.uint8, device=device)
    m = torch.randn(PRODUCT, PRODUCT, device=device)
    runs: dict[str, Callable[[], object]] = {
        "copy": partial(torch.empty_like(a).copy_, a),
        "product": partial(torch.mm, m, m),
    }
    ms = alternating_medians(runs, 10, 3, device)
    return 2 * COPY / ms["copy"] * 1e3, 2 * PRODUCT**3 / ms["product"] * 1e3


def batch_of(edges: int, device: torch.device) -> Batch:
    """As many complete graphs as have that many edges."""
    graphs = max(1, round(edges / (NODES * (NODES - 1))))
    one = Data(x=torch.randn(NODES, FEATURES), pos=2.0 * torch.randn(NODES, 3))
    batch = Batch.from_data_list([one] * graphs).to(device)
    batch.edge_index = complete_edges(batch.ptr)
    return batch


def edge_block(
    context: CheckContext,
    found: Found,
    label: str,
    edges: int,
    hidden: int,
    limits: tuple[float, float],
) -> None:
    """Sums over edges forward and backward, plain and by kernels."""
    batch = batch_of(edges, context.device)
    source, target = batch.edge_index
    nodes = len(batch.pos)

    def leaf(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, device=context.device) / shape[-1] ** 0.5
        return drawn.requires_grad_()

    inputs = EdgeInputs(leaf(nodes, hidden), leaf(nodes, hidden), batch.pos.requires_grad_())
    weights = EdgeWeights(
        radial=leaf(hidden, 1),
        out=leaf(hidden, hidden),
        out_bias=leaf(hidden),
        position_in=leaf(hidden, hidden),
        position_bias=leaf(hidden),
        position_out=leaf(1, hidden),
    )
    geometry = Geometry(SquaredDistance(), 1e-3)
    leaves = [t for t in (*inputs, *weights) if t is not None]
    arguments = (inputs, weights, geometry, source, target)
    functions: dict[str, Callable[..., tuple[Tensor, Tensor | None]]]
    functions = {"plain": edge_sums, "kernels": kernels.use()(kernels.edge_sums)}

    def both(name: str) -> tuple[Tensor, ...]:
        received, moved = functions[name](*arguments)
        assert moved is not None
        seeds = [torch.ones_like(received), torch.ones_like(moved)]
        return torch.autograd.grad([received, moved], leaves, seeds)

    runs: dict[str, Callable[[], object]] = {}
    for name, function in functions.items():
        runs[f"{name} forward"] = silent(partial(function, *arguments))
        runs[f"{name} both"] = partial(both, name)
    ms = alternating_medians(runs, context.pick(5, 2), 2, context.device)
    traffic = kernel_traffic(source.numel(), nodes, hidden)
    found |= {f"{label} edges {name} ms": value for name, value in ms.items()}
    once = ms["kernels forward"]
    floor = 1e3 * traffic["forward"].seconds(*limits)
    found[f"{label} forward GB/s"] = traffic["forward"].moved / once / 1e6
    found[f"{label} forward of floor"] = floor / once
    floor += 1e3 * traffic["backward"].seconds(*limits)
    moved = traffic["forward"].moved + traffic["backward"].moved
    found[f"{label} both GB/s"] = moved / ms["kernels both"] / 1e6
    found[f"{label} both of floor"] = floor / ms["kernels both"]


def networks(context: CheckContext, found: Found, label: str, edges: int, hidden: int) -> None:
    """Inference and training steps of whole networks: the textbook's twice, ours twice."""
    batch = batch_of(edges, context.device)
    ours = EGNN(FEATURES, hidden, LAYERS, position_aggregation="sum").to(context.device)
    theirs = TextbookEGNN(ours)
    compiled = torch.compile(theirs)
    graph = batch.batch

    def run_ours() -> tuple[Tensor, Tensor]:
        h, pos, _ = ours.features(batch.x, batch.pos, batch.edge_index, graph)
        return h, pos

    run_plain, run_kernels = kernels.use(False)(run_ours), kernels.use()(run_ours)

    forwards: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
        "textbook": partial(theirs, batch.x, batch.pos, batch.edge_index),
        "compiled": partial(compiled, batch.x, batch.pos, batch.edge_index),
        "plain": run_plain,
        "kernels": run_kernels,
    }
    models = {"textbook": theirs, "compiled": theirs, "plain": ours, "kernels": ours}
    with torch.no_grad():
        expected = [t.double() for t in run_plain()]
        found[f"{label} deviation"] = deviation(run_kernels(), expected)
    tolerance = TOLERANCES["float32"]
    require(found[f"{label} deviation"] <= tolerance, f"{label}: kernels and plain version differ")
    for kind in ("infer", "train"):
        runs: dict[str, Callable[[], object]] = {
            name: silent(run) if kind == "infer" else stepper(models[name], run)
            for name, run in forwards.items()
        }
        ms = alternating_medians(runs, context.pick(5, 2), 2, context.device)
        found |= {f"{label} {kind} {name} ms": value for name, value in ms.items()}
        for name, run in runs.items():
            torch.cuda.reset_peak_memory_stats(context.device)
            run()
            peak = torch.cuda.max_memory_allocated(context.device) / 2**20
            found[f"{label} {kind} {name} MiB"] = round(peak)


def small_batch(context: CheckContext, found: Found) -> None:
    """One molecule, where launching kernels takes the time: with and without a CUDA graph."""
    batch = batch_of(1, context.device)
    network = EGNN(FEATURES, 64, 4).to(context.device).eval()
    given = (batch.x, batch.pos, batch.edge_index, batch.batch)
    recorded = CudaGraph(network.features, *given)
    run = silent(partial(network.features, *given))
    moved = (batch.x, batch.pos + 0.1, batch.edge_index, batch.batch)
    with torch.no_grad():
        expected, played = network.features(*moved)[0], recorded(*moved)
    assert isinstance(played, tuple)
    found["graph deviation"] = deviation([played[0]], [expected.double()])
    require(found["graph deviation"] <= TOLERANCES["float32"], "a CUDA graph changes the numbers")
    runs: dict[str, Callable[[], object]] = {"eager": run, "graph": partial(recorded, *given)}
    ms = alternating_medians(runs, context.pick(20, 2), 3, context.device)
    found |= {f"one molecule {name} ms": value for name, value in ms.items()}
