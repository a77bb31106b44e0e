"""Wall times of several things that take turns, so that a busy machine slows all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

Clock = Callable[[], float]


def milliseconds(
    run: Callable[[], object], device: str | torch.device, clock: Clock = time.perf_counter
) -> float:
    """How long a call takes, with all that it started on a GPU."""
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
    start = clock()
    run()
    if on_gpu:
        torch.cuda.synchronize(device)
    return 1000 * (clock() - start)


def alternating_times(
    runs: Mapping[str, Callable[[], object]],
    repeats: int,
    warmup: int,
    device: str | torch.device,
    clock: Clock = time.perf_counter,
) -> dict[str, list[float]]:
    """Times in ms of each, measured by turns, without those of the first ``warmup`` turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warmup + repeats):
        for name, run in runs.items():
            taken = milliseconds(run, device, clock)
            if turn >= warmup:
                times[name].append(taken)
    return times


def alternating_medians(
    runs: dict[str, Callable[[], object]], repeats: int, warmup: int, device: str | torch.device
) -> dict[str, float]:
    """Median time in ms of each, measured by turns."""
    times = alternating_times(runs, repeats, warmup, device)
    return {name: statistics.median(values) for name, values in times.items()}


def stepper(model: nn.Module, forward: Callable[[], tuple[Tensor, Tensor]]) -> Callable[[], None]:
    """A training step on ``forward() -> (h, pos)``: forward, backward, AdamW."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def step() -> None:
        optimiser.zero_grad()
        h, pos = forward()
        (h.square().mean() + pos.square().mean()).backward()
        optimiser.step()

    return step
