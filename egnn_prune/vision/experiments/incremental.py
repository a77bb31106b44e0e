"""S3: neurons, or single connections, that contribute least are removed during training.

After each round the neurons are cut out of the tensors and out of the optimiser's moments, so that
the training that is left gets cheaper, too.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch.optim import Optimizer

from egnn_prune.adapters import TracedNetwork
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import compact_with_optimizer, incremental
from egnn_prune.pruning.memory import peak_memory
from egnn_prune.runs.result_store import Row
from egnn_prune.vision.evaluation import macs, weight_counts
from egnn_prune.vision.experiments.seed_run import LATENCY_BATCH, Masks, SeedRun, made_permanent
from egnn_prune.vision.settings import VisionSettings
from egnn_prune.vision.training import Fitted, build_optimizer

ARMS = ("baseline", "neurons", "connections")


def check(settings: VisionSettings) -> None:
    """Refuse settings that this experiment cannot use."""
    t, p = settings.training, settings.pruning
    incremental(0, p.rate, p.every)
    if t.patience is not None or t.schedule != "constant":
        raise ConfigError(
            "pruning during training keeps one optimiser through all phases: leave "
            "training.patience at null and training.schedule at constant"
        )
    if t.epochs <= p.every:
        raise ConfigError(
            f"with training.epochs={t.epochs} and pruning.every={p.every} nothing would ever be "
            "removed; train longer or prune more often"
        )


def run_seed(settings: VisionSettings, seed: int) -> list[Row]:
    """The ordinary training, and the two that lose something every few epochs."""
    seed_run = SeedRun(settings, seed)
    return seed_run.saved.fill(({"arm": arm} for arm in ARMS), partial(trained, seed_run))


def phases(settings: VisionSettings) -> Iterator[tuple[int, float]]:
    """``(epochs, sparsity after them)`` of every phase; nothing is removed after the last."""
    t, p = settings.training, settings.pruning
    done = 0
    while done < t.epochs:
        epochs = min(p.every, t.epochs - done)
        done += epochs
        yield epochs, 0.0 if done == t.epochs else incremental(done, p.rate, p.every)


def trained(seed_run: SeedRun, arm: str) -> Row:
    """Train in phases, and say what it cost.

    ``monitor`` chooses among the epochs of the last phase: before, the network was larger.
    """
    s = seed_run.settings
    model, train = seed_run.fresh(), seed_run.training(s.training)
    optimizer = build_optimizer(model, s.training)
    history: list[Row] = []
    keep: Masks | None = None
    seconds = processor = memory = 0.0
    dense = channels(model)
    if seed_run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(seed_run.device)
    for number, (epochs, sparsity) in enumerate(phases(s), start=1):
        last = len(history) + epochs == s.training.epochs
        monitor = s.training.monitor if last else None
        fit = replace(s.training, epochs=epochs, monitor=monitor)
        label = f"{arm}, phase {number}"
        fitted = seed_run.fit(model, fit, label, optimizer=optimizer, train=train)
        costs = {"macs": macs(model, seed_run.data.shape), **weight_counts(made_permanent(model))}
        history += epoch_rows(fitted, costs, len(history), processor)
        seconds, processor = seconds + fitted.seconds, processor + fitted.cpu_seconds
        memory = max(memory, memory_mb(seed_run.device))
        if sparsity and arm == "neurons":
            left = channels(model) / dense  # what is asked counts from the dense network
            seed_run.mask_neurons(model, 1 - (1 - sparsity) / left)
            model, optimizer = _smaller(model, optimizer)
        elif sparsity and arm == "connections":
            keep = seed_run.mask_weights(model, sparsity, keep, names=connections(seed_run, model))
    network = made_permanent(model)
    x = torch.zeros(LATENCY_BATCH, *seed_run.data.shape)
    return {
        **seed_run.described(network, fitted),
        "train_seconds": seconds,
        "train_cpu_seconds": processor,
        "resident_mb": memory,
        "peak_bytes": peak_memory(network, lambda m: m(x)),
        **seed_run.latency(network),
        "history": history,
        "epochs": len(history),
        "best_epoch": len(history) - fitted.epochs + fitted.best_epoch,
    }


def dry_run(seed_run: SeedRun) -> None:
    """Prune untrained networks, so that what cannot be is said now."""
    *_, (_, sparsity), _ = phases(seed_run.settings)
    seed_run.mask_neurons(seed_run.fresh(), sparsity)
    model = seed_run.fresh()
    seed_run.mask_weights(model, sparsity, names=connections(seed_run, model))


def connections(seed_run: SeedRun, model: TracedNetwork) -> list[str]:
    """The weights of all layers: a neuron that is a class must stay, a connection to it may go."""
    return seed_run.weight_names(model, last=True)


def channels(model: TracedNetwork) -> int:
    """How many neurons and feature maps could go."""
    return sum(group.n for group in model.channel_groups())


def _smaller(model: TracedNetwork, optimizer: Optimizer) -> tuple[TracedNetwork, Optimizer]:
    small, cut = compact_with_optimizer(model, optimizer)
    assert isinstance(small, TracedNetwork)
    return small, cut


def epoch_rows(fitted: Fitted, costs: Row, epochs: int, processor: float) -> list[Row]:
    """The epochs of a phase, counted on, with processor time spread evenly over them."""
    share = fitted.cpu_seconds / fitted.epochs
    return [
        {
            "epoch": epochs + row["epoch"],
            "parameters": costs["parameters"],
            "macs": costs["macs"],
            "cpu_seconds": processor + share * row["epoch"],
            "val_accuracy": row["val_accuracy"],
            "val_loss": row["val_loss"],
        }
        for row in fitted.history
    ]


def memory_mb(device: torch.device) -> float:
    """Memory in MB: on CUDA the most that tensors held, else what the process occupies now.

    The process has all arms of a seed, its libraries and the data: on a CPU arms hardly differ.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    status = Path("/proc/self/statm")
    if not status.exists():  # other systems than Linux
        return math.nan
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
