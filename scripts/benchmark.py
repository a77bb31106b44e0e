"""Time a training step of our EGNN against the layer as the paper writes it.

Both compute the same function with the same weights: position updates, sums over messages, the
squared distance, no attention. They take turns (A B A B ...), so that a busy machine slows both,
and the median over the repeats is printed. One batch of random graphs, all pairs connected.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from egnn_prune.models import EGNN
from egnn_prune.models.graph import complete_edges

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "models"))
from textbook import TextbookEGNN


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--graphs", type=int, default=96, help="graphs in the batch (96)")
    parser.add_argument("--nodes", type=int, default=18, help="nodes of each graph (18)")
    parser.add_argument("--hidden", type=int, default=128, help="width of every part (128)")
    parser.add_argument("--layers", type=int, default=7, help="message-passing layers (7)")
    parser.add_argument("--repeats", type=int, default=10, help="timed steps of each (10)")
    parser.add_argument("--warmup", type=int, default=2, help="steps before the clock starts (2)")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (torch's choice)")
    parser.add_argument("--device", default="cpu", help="such as cpu or cuda (cpu)")
    return parser.parse_args()


def random_batch(graphs: int, nodes: int, features: int, device: str) -> Batch:
    torch.manual_seed(0)
    batch = Batch.from_data_list(
        [
            Data(x=torch.randn(nodes, features), pos=2.0 * torch.randn(nodes, 3))
            for _ in range(graphs)
        ]
    ).to(device)
    batch.edge_index = complete_edges(batch.ptr)
    return batch


def milliseconds(run: Callable[[], object], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


def alternating_medians(
    runs: dict[str, Callable[[], object]], repeats: int, warmup: int, device: str
) -> dict[str, float]:
    """Median time in ms of each, measured by turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warmup + repeats):
        for name, run in runs.items():
            taken = milliseconds(run, device)
            if turn >= warmup:
                times[name].append(taken)
    return {name: statistics.median(values) for name, values in times.items()}


def stepper(model: nn.Module, forward: Callable[[], tuple[Tensor, Tensor]]) -> Callable[[], None]:
    """A training step: forward, backward, AdamW."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def step() -> None:
        optimiser.zero_grad()
        h, pos = forward()
        (h.square().mean() + pos.square().mean()).backward()
        optimiser.step()

    return step


def main() -> None:
    arguments = parse()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = arguments.device
    ours = EGNN(
        5, arguments.hidden, arguments.layers, position_aggregation="sum", aggregation="sum"
    ).to(device)
    textbook = TextbookEGNN(ours)
    batch = random_batch(arguments.graphs, arguments.nodes, 5, device)

    def run_ours() -> tuple[Tensor, Tensor]:
        out = ours(batch)
        return out.x, out.pos

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
    agree = "agree" if max(differences) < 1e-4 else "DO NOT AGREE"
    print(f"outputs {agree}: largest difference {max(differences):.1e} of their scale")

    def without_gradient(run: Callable[[], object]) -> Callable[[], object]:
        return torch.no_grad()(run)

    cases = {
        "training step": {
            "ours": stepper(ours, run_ours),
            "textbook": stepper(textbook, run_textbook),
        },
        "forward only": {
            "ours": without_gradient(run_ours),
            "textbook": without_gradient(run_textbook),
        },
    }
    for label, runs in cases.items():
        ms = alternating_medians(runs, arguments.repeats, arguments.warmup, device)
        print(
            f"{label}: ours {ms['ours']:.1f} ms, textbook {ms['textbook']:.1f} ms, "
            f"ratio {ms['textbook'] / ms['ours']:.2f}"
        )
    if agree != "agree":
        sys.exit(1)


if __name__ == "__main__":
    main()
