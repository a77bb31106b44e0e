"""Lottery tickets: prune, then train on from the trained, the initial, or new weights.

What happens to accuracy, to calibration, and to images of unknown classes?
"""

from __future__ import annotations

import copy

from egnn_prune.adapters import TracedNetwork
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import sparsities
from egnn_prune.runs.result_store import Row
from egnn_prune.vision.experiments.seed_run import FRESH, Masks, SeedRun, made_permanent, smaller
from egnn_prune.vision.settings import VisionSettings
from egnn_prune.vision.training import Fitted

STRUCTURES = ("structured", "unstructured")
STRATEGIES = ("one_shot", "shuffled", "rewound", "reinitialised", "iterative")


def check(settings: VisionSettings) -> None:
    """Refuse settings that this experiment cannot use."""
    p = settings.pruning
    if min(p.sparsities) == 0:
        raise ConfigError("the dense network is always there; leave 0 out of pruning.sparsities")
    for sparsity in p.sparsities:
        sparsities("iterative", sparsity, p.rounds)


def run_seed(settings: VisionSettings, seed: int) -> list[Row]:
    """All cells of a seed; finished ones are read, not computed again."""
    seed_run = SeedRun(settings, seed)
    dense = seed_run.dense()
    p = settings.pruning
    cells = [("dense", "trained_on", 0.0)]
    cells += [(a, b, s) for a in p.structures for b in p.strategies for s in p.sparsities]

    def find_out(structure: str, strategy: str, sparsity: float) -> Row:
        model, fitted = ticket(seed_run, copy.deepcopy(dense), structure, strategy, sparsity)
        return seed_run.described(made_permanent(model), fitted)

    names = ("structure", "strategy", "sparsity")
    seed_run.saved.fill((dict(zip(names, cell, strict=True)) for cell in cells), find_out)
    return [_as_cell(row) for row in seed_run.saved.rows]


def dry_run(seed_run: SeedRun) -> None:
    """Prune untrained networks as much as will be asked, so that what cannot be is said now."""
    p = seed_run.settings.pruning
    for structure in p.structures:
        mask = seed_run.mask_neurons if structure == "structured" else seed_run.mask_weights
        for sparsity in p.sparsities:
            mask(seed_run.fresh(), sparsity)


def ticket(
    seed_run: SeedRun, model: TracedNetwork, structure: str, strategy: str, sparsity: float
) -> tuple[TracedNetwork, Fitted]:
    """Prune a trained network and train it on as the strategy says; the network is used up."""
    s = seed_run.settings
    label = f"{structure}, {strategy}, {sparsity:g}"
    if strategy == "trained_on":
        return model, seed_run.fit(model, s.finetuning, label)
    mask = seed_run.mask_neurons if structure == "structured" else seed_run.mask_weights
    growing = sparsities("iterative", sparsity, s.pruning.rounds if strategy == "iterative" else 1)
    keep: Masks | None = None
    for now in growing[:-1]:
        keep = mask(model, now, keep)
        seed_run.fit(model, s.finetuning, label)
    mask(model, growing[-1], keep, shuffled=strategy == "shuffled")
    if strategy in ("rewound", "reinitialised"):
        seed_run.restart(model, seed_run.seed if strategy == "rewound" else FRESH + seed_run.seed)
    small = smaller(model) if structure == "structured" else model
    # a network that starts anew gets the dense network's training, one that goes on a shorter one
    anew = strategy in ("rewound", "reinitialised")
    return small, seed_run.fit(small, s.training if anew else s.finetuning, label)


def _as_cell(row: Row) -> Row:
    if row.get("arm") == "dense":
        return {"structure": "dense", "strategy": "dense", "sparsity": 0.0, **row}
    return row
