"""An experiment on images: its seeds, then metrics, figures and report in one folder."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch

from egnn_prune.configs.settings import check
from egnn_prune.configs.unused import refuse_unused
from egnn_prune.report.images import image_table, write_image_report
from egnn_prune.runs.result_store import Row
from egnn_prune.runs.run_folder import RunFolder
from egnn_prune.runs.seed_jobs import over_seeds
from egnn_prune.system.device import choose_device
from egnn_prune.system.files import read_json, write_json
from egnn_prune.system.git import command_line, git_commit
from egnn_prune.vision.data.inputs import image_inputs
from egnn_prune.vision.evaluation import macs, weight_counts
from egnn_prune.vision.experiments import incremental, lottery, magnitude, selection, structured
from egnn_prune.vision.experiments.published_results import published
from egnn_prune.vision.experiments.seed_run import SeedRun
from egnn_prune.vision.settings import VisionSettings
from egnn_prune.vision.unused import unused_by

SCHEMA = 1


class Kind(Protocol):
    """What the module of an experiment has."""

    def check(self, settings: VisionSettings) -> None:
        """Refuse settings that it cannot use, in one sentence about the first of them."""

    def dry_run(self, seed_run: SeedRun) -> None:
        """Do on untrained networks what could fail later."""

    def run_seed(self, settings: VisionSettings, seed: int) -> list[Row]:
        """All rows of a seed; what was found already is read."""


KINDS: dict[str, Kind] = {
    "lottery": lottery,
    "magnitude": magnitude,
    "incremental": incremental,
    "structured": structured,
    "selection": selection,
}


def run_experiment(settings: VisionSettings) -> Path:
    """Run all seeds, write ``metrics.json``, figures and ``report.html``, print the table.

    Interrupted, the same command goes on after the last finished network.

    Args:
        settings: everything that can be chosen.

    Returns:
        The folder of the run.

    Raises:
        InputError: a setting or the data cannot be used.
    """
    check(settings)
    kind = KINDS[settings.kind]
    kind.check(settings)
    refuse_unused(settings, unused_by(settings))
    choose_device(settings.device)
    folder = RunFolder(settings, image_inputs(settings.data))
    settings.out = str(folder.path)
    if folder.finished:
        print(f"{folder.path} is finished; nothing is run again.")
        print(image_table(read_json(folder.path / "metrics.json")))
        return folder.path
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    seed_run = SeedRun(settings, settings.seeds[0])
    about = described(settings, seed_run)
    kind.dry_run(seed_run)
    for fit in (settings.training, settings.finetuning):
        seed_run.training(fit)
    start = time.perf_counter()
    rows = over_seeds(kind.run_seed, settings, settings.seeds, folder.path)
    metrics = {
        **about,
        "config_hash": folder.hash,
        "git_commit": git_commit(),
        "threads": settings.threads or torch.get_num_threads(),
        "seconds": time.perf_counter() - start,
        "rows": rows,
        "published": published(settings.kind, settings.data.name, settings.network.name),
    }
    write_json(folder.path / "metrics.json", metrics)
    page = write_image_report(folder.path)
    folder.stage("report", (), ("metrics.json", "report.html"), dict)
    print(f"{image_table(metrics)}\nReport: {page}")
    return folder.path


def described(settings: VisionSettings, seed_run: SeedRun) -> dict[str, Any]:
    """What the report says about the experiment, its data and its dense network."""
    data, network = seed_run.data, seed_run.plain()
    return {
        "schema_version": SCHEMA,
        "experiment": settings.kind,
        "title": settings.title or settings.name,
        "command": command_line(),
        "device": str(choose_device(settings.device)),
        "seeds": list(settings.seeds),
        "data": {
            "name": data.name,
            "train": len(data.train),
            "val": len(data.val),
            "test": len(data.test),
            "ood": None if data.ood is None else len(data.ood),
            "classes": list(data.classes),
            "ood_classes": None if data.ood is None else list(data.ood.classes),
            "shape": list(data.shape),
        },
        "network": {
            "name": settings.network.name,
            "parameters": weight_counts(network)["stored"],
            "macs": macs(network, data.shape),
            "dropout": settings.network.dropout,
        },
        "training": asdict(settings.training),
        "finetuning": asdict(settings.finetuning),
    }
