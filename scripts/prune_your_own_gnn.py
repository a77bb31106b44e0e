"""Prune a graph network that is not ours: a SchNet-like one, written here with plain PyG layers.

What a module needs so that everything in egnn_prune works on it stands between the two rules below:
`channel_groups()` says which tensors shrink together, `resized()` builds the narrower network, and
the gates mark where channels flow. The rest is a usual network and a usual training script.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import MessagePassing, global_add_pool

from egnn_prune import channel_groups, compact, fine_tune, prune
from egnn_prune.channels import ChannelGate, ChannelGroup, Member, gate_members, linear_members
from egnn_prune.data import load
from egnn_prune.graphs import cutoff_edges
from egnn_prune.testing import assert_prunable

CUTOFF = 5.0  # Angstrom
CENTRES = 16  # of the radial basis
ELEMENTS = 10  # the embedded data hold H, C, N, O and F


class FilterConv(MessagePassing):
    """Continuous-filter convolution (Schuett et al. 2017): messages `x_j * w(|r_ij|)`."""

    def __init__(self, stream: int, filters: int, radial: int) -> None:
        super().__init__(aggr="add")
        self.widths = (filters, radial)
        self.inward = nn.Linear(stream, filters, bias=False)
        self.radial_in = nn.Linear(CENTRES, radial)
        self.radial_out = nn.Linear(radial, filters)
        self.outward = nn.Linear(filters, stream)
        self.filter_gate, self.radial_gate = ChannelGate(filters), ChannelGate(radial)

    def forward(
        self, h: Tensor, edge_index: Tensor, basis: Tensor, envelope: Tensor, graph: Tensor
    ) -> Tensor:
        hidden = self.radial_gate(F.silu(self.radial_in(basis)), graph[edge_index[1]])
        weight = self.radial_out(hidden) * envelope
        collected = self.propagate(edge_index, x=self.inward(h), weight=weight)
        return F.silu(self.outward(self.filter_gate(collected, graph)))

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
        return x_j * weight


class FilterNet(nn.Module):
    """Sums atomic contributions to one invariant number a graph."""

    def __init__(self, stream: int, widths: list[tuple[int, int]]) -> None:
        super().__init__()
        self.stream = stream
        self.embedding = nn.Embedding(ELEMENTS, stream)
        self.stream_gate = ChannelGate(stream)
        self.layers = nn.ModuleList(FilterConv(stream, *w) for w in widths)
        self.readout = nn.Linear(stream, 1)
        self.register_buffer("centres", torch.linspace(0.5, CUTOFF, CENTRES))

    def forward(self, batch: Batch) -> Tensor:
        graph, (source, target) = batch.batch, batch.edge_index
        like = self.readout.weight
        r = (batch.pos[source] - batch.pos[target]).to(like).norm(dim=-1, keepdim=True)
        basis = torch.exp(-5.0 * (r - self.centres) ** 2)
        envelope = 0.5 * (torch.cos(torch.pi * r / CUTOFF) + 1.0)
        h = self.stream_gate(self.embedding(batch.z), graph)
        for layer in self.layers:
            step = layer(h, batch.edge_index, basis, envelope, graph)
            h = self.stream_gate(h + step, graph)
        return global_add_pool(self.readout(h), graph).squeeze(-1)

    # ------------------------------------------------------------ what makes it prunable

    def channel_groups(self) -> list[ChannelGroup]:
        n = self.stream
        stream = [
            Member.span("embedding.weight", 1, n),  # an embedding makes channels in its columns
            *linear_members("readout", n),
            *gate_members("stream_gate", n),
        ]
        groups = []
        for i, layer in enumerate(self.layers):
            p, (filters, radial) = f"layers.{i}", layer.widths
            stream += linear_members(f"{p}.inward", n)
            stream += linear_members(f"{p}.outward", n, rows=True)
            groups += [
                ChannelGroup(f"{p}.filter", "filter", filters, (
                    *linear_members(f"{p}.inward", filters, rows=True, bias=False),
                    *linear_members(f"{p}.radial_out", filters, rows=True),
                    *linear_members(f"{p}.outward", filters),
                    *gate_members(f"{p}.filter_gate", filters),
                ), f"{p}.filter_gate"),
                ChannelGroup(f"{p}.radial", "radial", radial, (
                    *linear_members(f"{p}.radial_in", radial, rows=True),
                    *linear_members(f"{p}.radial_out", radial),
                    *gate_members(f"{p}.radial_gate", radial),
                ), f"{p}.radial_gate"),
            ]  # fmt: skip
        return [ChannelGroup("stream", "stream", n, tuple(stream), "stream_gate"), *groups]

    def resized(self, keep: dict[str, Tensor]) -> FilterNet:
        widths = [
            (len(keep[f"layers.{i}.filter"]), len(keep[f"layers.{i}.radial"]))
            for i in range(len(self.layers))
        ]
        return FilterNet(len(keep["stream"]), widths)

    # ------------------------------------------------------------------------------------


def losses(model: nn.Module, batch: Batch) -> Tensor:
    """One number a graph, as criteria need it."""
    return F.smooth_l1_loss(model(batch), batch.y, reduction="none")


@torch.no_grad()
def error(model: nn.Module, graphs: list[Data]) -> float:
    """Mean absolute error, in standard deviations of the target."""
    batch = Batch.from_data_list(graphs)
    return float((model.eval()(batch) - batch.y).abs().mean())


@torch.no_grad()
def milliseconds(model: nn.Module, graphs: list[Data], repeats: int = 20) -> float:
    """Median wall time of one forward pass over a batch."""
    batch, times = Batch.from_data_list(graphs), []
    for _ in range(repeats):
        start = time.perf_counter()
        model(batch)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def molecules(split: list[Data], count: int, mean: float, deviation: float) -> list[Data]:
    """The first molecules of a split with neighbour lists and a normalised target."""
    graphs = []
    for graph in split[:count]:
        graph = graph.clone()
        graph.edge_index = cutoff_edges(graph.pos, CUTOFF)
        graph.y = ((graph.y - mean) / deviation).float()
        graphs.append(graph)
    return graphs


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--molecules", type=int, default=2000, help="training molecules (2000)")
    parser.add_argument("--steps", type=int, default=600, help="training steps (600)")
    parser.add_argument("--tuning", type=int, default=300, help="steps after pruning (300)")
    parser.add_argument("--width", type=int, default=64, help="of the dense network (64)")
    parser.add_argument("--sparsity", type=float, default=0.5, help="channels removed (0.5)")
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.manual_seed(0)
    data = load("xtb", target="atomisation_energy")
    y = torch.cat([g.y for g in data.split("train")])
    scale = (float(y.mean()), float(y.std()))
    train = molecules(data.split("train"), options.molecules, *scale)
    test = molecules(data.split("test"), 300, *scale)
    loader = DataLoader(train, batch_size=64, shuffle=True)

    dense = FilterNet(options.width, [(options.width, options.width)] * 3)
    assert_prunable(dense, Batch.from_data_list(test[:8]))
    print("assert_prunable: passed\n")
    fine_tune(dense, loader, steps=options.steps, lr=2e-3, loss=losses, device="cpu")

    pruned = prune(dense, "taylor", options.sparsity, data=loader, loss=losses)
    print(channel_groups(pruned), end="\n\n")
    at_once = compact(pruned)
    fine_tune(pruned, loader, steps=options.tuning, lr=1e-3, loss=losses, device="cpu")
    small = compact(pruned)
    assert_prunable(small, Batch.from_data_list(test[:8]))

    print(f"error: mean absolute, over {len(test)} test molecules, in units of {scale[1]:.2f} eV")
    print(f"time: median forward pass of 64 molecules, CPU, {torch.get_num_threads()} thread(s)")
    print(f"{'':28}{'steps':>6}{'weights':>10}{'error':>8}{'time/ms':>9}")
    both = options.steps + options.tuning
    for name, model, steps in (
        ("dense", dense, options.steps),
        (f"without {options.sparsity:.0%} of channels", at_once, options.steps),
        ("the same, fine-tuned", small, both),
    ):
        weights = sum(p.numel() for p in model.parameters())
        mae, time_ms = error(model, test), milliseconds(model, test[:64])
        print(f"{name:28}{steps:6}{weights:10,}{mae:8.3f}{time_ms:9.1f}")


if __name__ == "__main__":
    main()
