"""How error grows with sparsity, for several criteria: :func:`sparsity_sweep`."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from tqdm import tqdm

from egnn_prune.api.pruning import BATCHES, compact, fine_tune, prune
from egnn_prune.api.speed import REPEATS
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import count_macs, effective_sparsity
from egnn_prune.pruning.calling import call
from egnn_prune.pruning.criteria.batches import inputs_of
from egnn_prune.pruning.memory import peak_memory
from egnn_prune.pruning.stopwatch import TakingTurns
from egnn_prune.system.break_even import BreakEven
from egnn_prune.system.files import read_json, write_json
from egnn_prune.training.batch_losses import Losses

if TYPE_CHECKING:  # Lightning: pruning does without
    from lightning.pytorch.callbacks import Callback

Row = dict[str, Any]

#: Of :func:`egnn_prune.api.pruning.fine_tune`.
WEIGHT_DECAY, CLIP = 1e-2, 5.0


def sparsity_sweep(
    model: nn.Module,
    data: Iterable[Any],
    evaluate: Callable[[nn.Module], dict[str, float]],
    *,
    criteria: Sequence[str] = ("uncertainty", "taylor", "magnitude", "random"),
    sparsities: Sequence[float] = (0.3, 0.5, 0.7, 0.9),
    steps: int = 300,
    lr: float = 1e-3,
    weight_decay: float = WEIGHT_DECAY,
    clip: float = CLIP,
    scope: str = "global",
    round_to: int = 1,
    scored: Iterable[Any] | None = None,
    loss: Losses | None = None,
    seed: int = 0,
    device: str = "auto",
    save: str | Path | None = None,
    schedule: str = "onecycle",
    mixed_precision: str = "none",
    callbacks: Callable[[], list[Callback]] | None = None,
) -> list[Row]:
    """Prune a trained model to every sparsity by every criterion, one shot, and fine-tune it.

    Args:
        model: a trained dense model; it is not changed.
        data: batches to fine-tune on.
        evaluate: numbers about a model, such as ``{"test_mae": ...}``.
        criteria: names of criteria.
        sparsities: fractions of channels removed.
        steps: optimiser steps of every fine-tuning; 0 for none.
        lr: highest learning rate.
        weight_decay: AdamW's.
        clip: largest norm of the gradient.
        scope: see :func:`egnn_prune.pruning.choose`.
        round_to: widths become multiples of this.
        scored: batches that criteria look at; by default the first ones of ``data``.
        loss: as for :func:`egnn_prune.api.pruning.prune`.
        seed: of criteria that draw and of the batches' order; written into the rows.
        device: where to fine-tune.
        save: a JSON file that rows are added to as they are finished, and read from if it exists,
            so that an interrupted sweep goes on.
        schedule: see :func:`egnn_prune.api.pruning.fine_tune`.
        mixed_precision: see there, too.
        callbacks: makes the Lightning callbacks of a fine-tuning.

    Returns:
        One row a cell: ``seed, criterion, sparsity`` (asked for), ``effective_sparsity``,
        ``params, macs`` (of a batch), ``macs_share, latency_ms, latency_share`` (of the dense
        model's, both taking turns), ``peak_memory`` (bytes), everything that ``evaluate`` returns,
        and the same before fine-tuning as ``before_...``. A row whose criterion is ``"dense"`` has
        the dense model after the same extra steps.

    Raises:
        ConfigError: a cell cannot be pruned, or ``save`` belongs to another sweep.
    """
    if isinstance(data, Iterator):  # every cell needs it anew
        data = list(data)
    how: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "clip": clip}
    how |= {"schedule": schedule, "mixed_precision": mixed_precision}
    which: dict[str, Any] = {"scope": scope, "round_to": round_to, "seed": seed}
    asked = {"steps": steps, **how, **which}
    rows = _saved(save, asked)
    scored = list(scored) if scored is not None else list(islice(iter(data), BATCHES))
    if not scored:
        raise ConfigError("a sweep needs at least one batch of data")
    inputs = inputs_of(scored[0])
    macs = count_macs(model, lambda m: call(m, inputs))[""]
    cells = [("dense", 0.0), *((c, s) for s in sparsities for c in criteria)]
    done = {(row["criterion"], row["sparsity"]) for row in rows}
    for criterion, sparsity in tqdm(cells, f"sweep, seed {seed}"):
        if (criterion, sparsity) in done:
            continue
        torch.manual_seed(seed)
        by = "magnitude" if criterion == "dense" else criterion
        pruned = prune(model, by, sparsity, data=scored, loss=loss, batches=len(scored), **which)
        before = evaluate(compact(pruned))
        if steps:
            more = callbacks() if callbacks else None
            fine_tune(pruned, data, steps=steps, loss=loss, device=device, callbacks=more, **how)
        small = compact(pruned)
        times = TakingTurns(lambda m: call(m, inputs), REPEATS)({"dense": model, "small": small})
        count = count_macs(small, lambda m: call(m, inputs))[""]
        rows.append(
            {
                "seed": seed,
                "criterion": criterion,
                "sparsity": sparsity,
                "effective_sparsity": effective_sparsity(pruned),
                "params": sum(p.numel() for p in small.parameters()),
                "macs": count,
                "macs_share": count / macs,
                "latency_ms": statistics.median(times["small"]),
                "latency_share": BreakEven.of(times["dense"], times["small"]).share,
                "peak_memory": peak_memory(small, lambda m: call(m, inputs)),
                **evaluate(small),
                **{f"before_{k}": v for k, v in before.items()},
            }
        )
        if save is not None:
            write_json(Path(save), {"sweep": asked, "rows": rows})
    return rows


def _saved(save: str | Path | None, asked: dict[str, Any]) -> list[Row]:
    if save is None or not Path(save).exists():
        return []
    found = read_json(Path(save))
    # files of earlier versions do not say what they could not change
    before: dict[str, Any] = {"weight_decay": WEIGHT_DECAY, "clip": CLIP, "round_to": 1}
    before |= {"schedule": "onecycle", "mixed_precision": "none"}
    if before | (found.get("sweep") or {}) != asked:
        raise ConfigError(
            f"{save} holds a sweep with {found.get('sweep')}, not {asked}; choose another file"
        )
    return found["rows"]
