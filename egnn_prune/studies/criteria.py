"""The sparsity sweep on a data set, over seeds: what ``scripts/sparsity_sweep.py`` runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from torch import nn
from torch.utils.data import WeightedRandomSampler
from torch_geometric.loader import DataLoader

from egnn_prune.api.sparsity_sweep import Row, sparsity_sweep
from egnn_prune.configs.settings import Settings, SweepSettings, main_job
from egnn_prune.configs.unused import refuse_unused
from egnn_prune.errors import ConfigError
from egnn_prune.evaluation.predict import point_predictions, predict_all, targets
from egnn_prune.pipeline.check_settings import validate
from egnn_prune.pipeline.main_job import Job
from egnn_prune.pruning.criteria import CRITERIA
from egnn_prune.report.common.files import write_atomic
from egnn_prune.report.common.style import png_bytes
from egnn_prune.report.studies.comparison import write_csv
from egnn_prune.report.studies.sweep import rivals_table, sweep_plot, sweep_table
from egnn_prune.runs.folder_lock import alone_in
from egnn_prune.runs.run_folder import RunFolder
from egnn_prune.system.device import choose_device
from egnn_prune.uncertainty.metrics import nll

#: Graphs per batch when channels are scored and latencies measured.
BATCH = 64


@alone_in("runs/sweep")
def run_sweep(settings: SweepSettings) -> Path:
    """Sweep all criteria and sparsities for every seed, then write table and figure.

    Args:
        settings: seeds, criteria, sparsities, steps, and those of the main job.

    Returns:
        The folder with ``sweep.csv``, ``sweep.png`` and ``sweep.txt``.

    Raises:
        ConfigError: nothing to sweep, or an unknown criterion.
    """
    unknown = set(settings.criteria) - set(CRITERIA)
    if unknown or not settings.criteria:
        known = ", ".join(name for name in CRITERIA if name != "movement")
        raise ConfigError(f"criteria must be some of {known}, not {sorted(unknown)}")
    if "movement" in settings.criteria:
        raise ConfigError("movement watches training and so cannot be swept; leave it out")
    for name in ("seeds", "criteria", "sparsities"):
        values = getattr(settings, name)
        if not values or len(set(values)) < len(values):
            raise ConfigError(f"{name} needs one or more different values, not {values}")
    if settings.workers < 1 or settings.steps < 0:
        raise ConfigError("workers must be at least 1 and steps at least 0")
    out = Path(settings.out or "runs/sweep").expanduser()
    refuse_unused(settings)
    validate(job_of_seed(settings, settings.seeds[0], out))
    if settings.workers == 1:
        parts = [sweep_seed(settings, seed, out) for seed in settings.seeds]
    else:
        os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")  # see command_line.py
        work = joblib.delayed(sweep_seed)
        parts = joblib.Parallel(n_jobs=settings.workers)(
            work(settings, seed, out) for seed in settings.seeds
        )
    order = ["dense", *settings.criteria]  # earlier runs in this folder may have had more
    rows = [row for part in parts for row in part if row["criterion"] in order]
    rows.sort(key=lambda row: (order.index(row["criterion"]), row["sparsity"], row["seed"]))
    unit = rows[0]["unit"]
    text = "\n\n".join(
        [
            sweep_table(rows, unit),
            sweep_table(rows, unit, "before_test_mae"),
            sweep_table(rows, "nats", "nll"),
            *([rivals_table(rows)] if "uncertainty" in settings.criteria else []),
        ]
    )
    named = [
        {**row, "arm": row["criterion"], "macs_per_graph": row["macs"] / BATCH} for row in rows
    ]
    write_csv(named, out / "sweep.csv")
    write_atomic(out / "sweep.txt", f"{text}\n".encode())
    write_atomic(out / "sweep.png", png_bytes(sweep_plot(rows, unit, settings.steps)))
    print(f"{text}\nWritten: {out / 'sweep.csv'}, {out / 'sweep.png'}, {out / 'sweep.txt'}")
    return out


def job_of_seed(settings: SweepSettings, seed: int, out: Path) -> Settings:
    """The main job whose dense model a seed's cells start from."""
    job = main_job(settings)
    job.seed, job.out = seed, str(out / f"seed{seed}")
    if settings.workers > 1 and job.threads is None:
        job.threads = max(1, (os.cpu_count() or 1) // settings.workers)
    return job


def sweep_seed(settings: SweepSettings, seed: int, out: Path) -> list[Row]:
    """All cells of a seed; its dense model and its finished cells are re-used."""
    s = job_of_seed(settings, seed, out)
    if s.threads is not None:
        torch.set_num_threads(s.threads)
    job = Job(s, RunFolder(s), choose_device(s.device))
    job.train_dense()
    job.select_uncertain_graphs()
    model = job.load("stages/trained.safetensors")
    with np.load(job.folder.path / "stages/selection.npz", allow_pickle=False) as archive:
        selected, weights = archive["selected"].tolist(), archive["weights"]
    sampler = WeightedRandomSampler(weights.tolist(), len(job.train))
    return sparsity_sweep(
        model,
        DataLoader(job.train, s.training.batch_size, sampler=sampler, drop_last=True),
        evaluator(job),
        criteria=settings.criteria,
        sparsities=settings.sparsities,
        steps=settings.steps,
        lr=s.training.finetune_lr,
        weight_decay=s.training.weight_decay,
        clip=s.training.clip,
        loss=job.losses,
        scope=s.pruning.scope,
        round_to=s.pruning.round_to,
        scored=DataLoader([job.train[i] for i in selected], BATCH),
        seed=seed,
        device=s.device,
        save=job.folder.path / "sweep.json",
    )


def evaluator(job: Job) -> Callable[[nn.Module], dict[str, Any]]:
    """Errors on the test and out-of-distribution splits, and the likelihood of the error bars."""

    def evaluate(model: nn.Module) -> dict[str, Any]:
        found: dict[str, Any] = {"unit": job.dataset.unit}
        for split in ("test", "ood"):
            graphs = job.dataset.split(split)
            if graphs:
                y = targets(graphs)
                point = point_predictions(model, graphs, job.device)
                found[f"{split}_mae"] = float((point - y).abs().mean())
            if split == "test":
                bars = predict_all(job.estimator(model), graphs, job.device, split)
                found["nll"] = float(nll(bars.mean, bars.variance, y))
        return found

    return evaluate
