"""The networks of the calibration study: trained once a seed, pruned, fine-tuned, saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch_geometric.loader import DataLoader

from egnn_prune.api.pruning import compact, fine_tune, prune
from egnn_prune.configs.settings import CalibrationStudySettings, main_job
from egnn_prune.deployment import checkpoint
from egnn_prune.errors import ConfigError
from egnn_prune.pipeline.main_job import Job
from egnn_prune.runs.run_folder import RunFolder
from egnn_prune.system.device import choose_device
from egnn_prune.system.files import read_json, write_json

#: Ways to train a network: settings that differ from the study's, by name.
RECIPES = ("single", "shallow")
#: Graphs per batch when channels are scored.
BATCH = 64


def network_job(settings: CalibrationStudySettings, recipe: str, seed: int, out: Path) -> Job:
    """The main job of one network, whose first stage trains the dense model.

    ``"single"`` has one mean and variance and dropout in its read-out: a mean-variance network,
    Monte Carlo dropout and a last-layer method all read the same weights. ``"shallow"`` is a
    shallow ensemble without dropout, trained on the CRPS of its pooled members (with forces its
    members are trained apart, as everywhere).
    """
    job = main_job(settings)
    job.seed, job.out = seed, str(out / f"{recipe}{seed}")
    job.uncertainty = replace(job.uncertainty, method="dropout")
    if recipe == "shallow":
        job.uncertainty = replace(job.uncertainty, method="shallow")
        if not job.training.force_weight:
            job.training = replace(job.training, loss="crps")
        job.model = replace(job.model, readout_dropout=0.0)
    return Job(job, RunFolder(job), choose_device(job.device))


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
    places = {s: folder / f"sparsity{s:g}.safetensors" for s in (0.0, *sparsities)}
    t = job.settings.training
    p, seed = job.settings.pruning, job.settings.seed
    for sparsity, path in places.items():
        if path.exists():
            continue
        torch.manual_seed(seed)
        model = job.load("stages/trained.safetensors")
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
        loader = DataLoader(job.train, t.batch_size, shuffle=True, drop_last=True)
        fine_tune(
            model,
            loader,
            steps=steps,
            lr=t.finetune_lr,
            weight_decay=t.weight_decay,
            clip=t.clip,
            loss=job.losses,
            device=job.settings.device,
        )
        checkpoint.save(compact(model) if sparsity else model, path)
    return places
