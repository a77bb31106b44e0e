"""What the studies do with networks: train, prune, fine-tune and measure them.

The networks of the calibration study are trained once a seed, pruned, fine-tuned and saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from egnn_prune.api.pruning import compact, fine_tune, prune
from egnn_prune.channels import Prunable
from egnn_prune.configs.over_seeds import CalibrationStudySettings
from egnn_prune.deployment import checkpoint
from egnn_prune.errors import ConfigError
from egnn_prune.evaluation.predict import point_predictions, targets
from egnn_prune.pipeline.fit_callbacks import with_the_asked
from egnn_prune.pipeline.main_job import Job
from egnn_prune.runs.result_store import Row
from egnn_prune.studies.frame import open_job, seed_settings, study_folder
from egnn_prune.system.files import read_json, write_json

#: The dense network that a job trained.
TRAINED = "stages/trained.safetensors"
#: Graphs per batch when channels are scored.
BATCH = 64


def network_job(
    settings: CalibrationStudySettings, recipe: str, seed: int, first: Job | None = None
) -> Job:
    """The main job of one network, whose first stage trains the dense model.

    ``"single"`` has one mean and variance and dropout in its read-out: a mean-variance network,
    Monte Carlo dropout and a last-layer method all read the same weights. ``"shallow"`` is a
    shallow ensemble without dropout, trained on the CRPS of its pooled members (with forces its
    members are trained apart, as everywhere). A further member of a deep ensemble learns from the
    data of the ``first`` one: where splits are drawn by the seed, its own would hold test graphs.
    """
    job = seed_settings(settings, seed)
    job.out = str(study_folder(settings) / f"{recipe}{seed}")
    job.uncertainty = replace(job.uncertainty, method="dropout")
    if recipe == "shallow":
        job.uncertainty = replace(job.uncertainty, method="shallow")
        job.training = replace(job.training, loss=None)  # the CRPS, unless there are forces
        job.model = replace(job.model, readout_dropout=None)  # none
    opened = open_job(job)
    if first is not None:
        opened.dataset, opened.train, opened.val = first.dataset, first.train, first.val
    return opened


def train_networks(job: Job, sparsities: list[float], steps: int) -> dict[float, Path]:
    """The dense network (sparsity 0) and its pruned copies, all after the same extra steps.

    One-shot pruning by the Taylor criterion; every copy, and the dense network itself, then takes
    ``steps`` steps on all training graphs. What is there already is not made again.

    Returns:
        The file of the network of every sparsity.

    Raises:
        ConfigError: the folder holds networks that were fine-tuned for another number of steps.
    """
    job.train_dense()
    folder, asked = job.folder.path, {"steps": steps}
    record = folder / "fine_tuning.json"
    if record.exists() and read_json(record) != asked:
        raise ConfigError(
            f"{folder} holds networks fine-tuned with {read_json(record)}, not {asked}; choose "
            "another out"
        )
    write_json(record, asked)
    paths = {s: folder / f"sparsity{s:g}.safetensors" for s in (0.0, *sparsities)}
    p, seed = job.settings.pruning, job.settings.seed
    for sparsity, path in paths.items():
        if path.exists():
            continue
        torch.manual_seed(seed)
        model = job.load(TRAINED)
        scored = DataLoader(job.train, BATCH, shuffle=True)
        if sparsity:
            model = prune(
                model,
                "taylor",
                sparsity,
                data=scored,
                scope=p.scope,
                round_to=p.round_to,
                loss=job.losses,
                seed=seed,
            )
        loader = DataLoader(
            job.train, job.settings.training.batch_size, shuffle=True, drop_last=True
        )
        fine_tuned(model, loader, steps, job)
        checkpoint.save(compact(model) if sparsity else model, path)
    return paths


def selected(job: Job) -> tuple[list[Data], list[float]]:
    """The graphs that the dense network of a job selects, and how often every graph is drawn."""
    job.train_dense()
    job.select_uncertain_graphs()
    rows, weights = job.chosen()
    return [job.train[i] for i in rows], weights.tolist()


def pruned_on(graphs: Sequence[Data], dense: nn.Module, job: Job, batch: int = BATCH) -> Prunable:
    """A masked copy of the dense network, its channels scored on all of these graphs."""
    p, scored = job.settings.pruning, DataLoader(graphs, batch)
    return prune(
        dense,
        p.criterion,
        p.removed,
        data=scored,
        scope=p.scope,
        round_to=p.round_to,
        loss=job.losses,
        batches=len(scored),
        seed=job.settings.seed,
    )


def fine_tuned(model: nn.Module, loader: DataLoader, steps: int, job: Job) -> nn.Module:
    """The same network after ``steps`` steps, as the job's settings say."""
    t = job.settings.training
    return fine_tune(
        model,
        loader,
        steps=steps,
        lr=t.finetune_lr,
        weight_decay=t.weight_decay,
        clip=t.clip,
        loss=job.losses,
        device=job.settings.device,
        schedule=t.schedule,
        mixed_precision=t.mixed_precision,
        callbacks=averages(job),
    )


def averages(job: Job) -> list[Callback]:
    """What averages the weights of a fine-tuning, as the job's settings say."""
    # these fits look at no validation, by which the best weights would be chosen
    return with_the_asked([], replace(job.settings.training, monitor=None))


def errors(model: nn.Module, job: Job, splits: Sequence[str] = ("test", "ood")) -> Row:
    """Mean absolute errors on the splits that there are, in the target's unit."""
    found: Row = {"unit": job.dataset.unit}
    for split in splits:
        if graphs := job.dataset.split(split):
            error = point_predictions(model, graphs, job.device) - targets(graphs)
            found[f"{split}_mae"] = float(error.abs().mean())
    return found
