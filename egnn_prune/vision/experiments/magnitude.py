"""S2: single convolution weights removed by magnitude, masks made permanent, size and time."""

from __future__ import annotations

import copy
import gzip
from pathlib import Path

from torch import nn

from egnn_prune.adapters import TracedNetwork
from egnn_prune.errors import ConfigError
from egnn_prune.runs.result_store import Row
from egnn_prune.vision.experiments.seed_run import (
    SeedRun,
    load_network,
    made_permanent,
    save_network,
)
from egnn_prune.vision.settings import VisionSettings

#: ``random`` removes as many weights of every layer as ``magnitude``, but others.
ARMS = ("dense_longer", "magnitude", "random")


def check(settings: VisionSettings) -> None:
    """Refuse settings that this experiment cannot use."""
    found = settings.pruning.sparsities
    if len(found) != 1 or not 0 < found[0] < 1:
        raise ConfigError(f"pruning.sparsities needs one fraction in (0, 1) here, not {found}")


def run_seed(settings: VisionSettings, seed: int) -> list[Row]:
    """The dense network, trained on, and pruned by magnitude and at random."""
    seed_run = SeedRun(settings, seed)
    dense = seed_run.dense()
    (sparsity,) = settings.pruning.sparsities
    for arm in ARMS:
        path = seed_run.folder / f"{seed}_{arm}.safetensors"
        row = seed_run.saved.find(arm=arm)
        if row and path.exists():
            continue
        model = copy.deepcopy(dense)
        if arm != "dense_longer":
            prune(seed_run, model, shuffled=arm == "random")
        fitted = seed_run.fit(model, settings.finetuning, arm)
        network = made_permanent(model)
        save_network(network, path)
        removed = 0.0 if arm == "dense_longer" else sparsity
        if not row:
            found = seed_run.described(network, fitted)
            seed_run.saved.add({"arm": arm, "sparsity": removed, **found})
    return [measured(seed_run, row) for row in seed_run.saved.rows]


def prune(seed_run: SeedRun, model: TracedNetwork, shuffled: bool = False) -> None:
    """Mask the smallest weights of the convolutions, or as many others of each."""
    (sparsity,) = seed_run.settings.pruning.sparsities
    names = convolutions(model, seed_run.settings.pruning.ignored)
    seed_run.mask_weights(model, sparsity, criterion="magnitude", names=names, shuffled=shuffled)


def dry_run(seed_run: SeedRun) -> None:
    """Prune an untrained network, so that what cannot be is said now."""
    prune(seed_run, seed_run.fresh())


def convolutions(model: TracedNetwork, ignored: list[str]) -> list[str]:
    """Names of the convolutions' weights.

    Raises:
        ConfigError: there are none.
    """
    names = [
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and name.removeprefix("network.") not in ignored
    ]
    if not names:
        raise ConfigError("this experiment removes weights of convolutions; the network has none")
    return names


def measured(seed_run: SeedRun, row: Row) -> Row:
    """The row with sizes of its file, and time: measured last, all arms side by side."""
    path = seed_run.folder / f"{seed_run.seed}_{row['arm']}.safetensors"
    network = seed_run.plain()
    load_network(network, path)
    return {
        "sparsity": 0.0,
        **row,
        "val_accuracy": row["history"][row["best_epoch"] - 1]["val_accuracy"],
        "seconds_per_epoch": row["seconds"] / row["epochs"],
        "weights": row["stored"],
        "nonzero": row["parameters"],
        "file_mb": path.stat().st_size / 1e6,
        "compressed_mb": compressed_bytes(path) / 1e6,
        **seed_run.latency(network),
    }


def compressed_bytes(path: Path) -> int:
    """Size of a file after gzip, which is where zeros of an unstructured mask pay."""
    return len(gzip.compress(path.read_bytes(), compresslevel=6, mtime=0))
