"""Main jobs over seeds, arms and sparsities, and what they say together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import joblib
from tqdm import tqdm

from egnn_prune.configs.settings import ComparisonSettings, Settings, main_job
from egnn_prune.configs.unused import refuse_unused
from egnn_prune.errors import ConfigError
from egnn_prune.pipeline.check_settings import validate
from egnn_prune.pipeline.main_job import run
from egnn_prune.report.common.files import write_atomic
from egnn_prune.report.common.style import png_bytes
from egnn_prune.report.studies.comparison import comparison_plot, summary_table, write_csv
from egnn_prune.runs.folder_lock import alone_in
from egnn_prune.runs.run_folder import RunFolder
from egnn_prune.system.files import read_json

#: What each arm changes in the settings. All arms of a seed start from the same dense model and
#: take the same optimiser steps; the first three differ only in how channels are chosen, the last
#: two only in the graphs that they are scored and fine-tuned on.
ARMS: dict[str, dict[str, str]] = {
    "uncertainty": {"pruning.criterion": "taylor", "selection.strategy": "top"},
    "magnitude": {"pruning.criterion": "magnitude", "selection.strategy": "top"},
    "random": {"pruning.criterion": "random", "selection.strategy": "top"},
    "random_graphs": {"pruning.criterion": "taylor", "selection.strategy": "random"},
    "least_uncertain": {"pruning.criterion": "taylor", "selection.strategy": "least"},
}


@alone_in("runs/comparison")
def compare(settings: ComparisonSettings) -> Path:
    """Run (or re-use finished) jobs, then write ``comparison.csv`` and ``comparison.png``.

    Args:
        settings: seeds, arms, sparsities, and the settings of each job.

    Returns:
        The folder of the comparison.

    Raises:
        ConfigError: an unknown arm, or nothing to compare.
    """
    unknown = set(settings.arms) - set(ARMS)
    if unknown or not settings.arms:
        raise ConfigError(f"arms must be some of {', '.join(ARMS)}, not {sorted(unknown)}")
    if not settings.seeds or not settings.sparsities:
        raise ConfigError("a comparison needs at least one seed and one sparsity")
    for name in ("seeds", "arms", "sparsities"):
        values = getattr(settings, name)
        if len(set(values)) < len(values):
            raise ConfigError(f"{name} names the same value twice: {values}")
    if settings.workers < 1:
        raise ConfigError(f"workers must be at least 1, not {settings.workers}")
    refuse_unused(settings)
    out = Path(settings.out or "runs/comparison").expanduser()
    jobs = {seed: jobs_of_seed(settings, seed, out) for seed in settings.seeds}
    for job in (job for several in jobs.values() for job in several):
        validate(job)
    tasks = (joblib.delayed(run_seed)(several, settings.workers) for several in jobs.values())
    if settings.workers == 1:
        rows = [run_seed(several, 1) for several in jobs.values()]
    else:
        os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")  # see command_line.py
        os.environ["TQDM_DISABLE"] = "1"  # bars of several workers would overwrite each other
        pool = joblib.Parallel(n_jobs=settings.workers, return_as="generator")
        rows = list(tqdm(pool(tasks), "seeds", total=len(jobs), disable=False))
    flat = [row for several in rows for row in several]
    write_csv(flat, out / "comparison.csv")
    write_atomic(out / "comparison.png", png_bytes(comparison_plot(flat)))
    print(summary_table(flat))
    print(f"Written: {out / 'comparison.csv'}, {out / 'comparison.png'}")
    return out


def jobs_of_seed(settings: ComparisonSettings, seed: int, out: Path) -> list[Settings]:
    """The main jobs of one seed; all but the first re-use what the first one trained."""
    jobs: list[Settings] = []
    for sparsity in settings.sparsities:
        for arm in settings.arms:
            job = main_job(settings)
            for name, value in ARMS[arm].items():
                section, key = name.split(".")
                setattr(getattr(job, section), key, value)
            job.seed, job.pruning.sparsity = seed, sparsity
            job.out = str(out / f"seed{seed}-{arm}-{sparsity:g}")
            if jobs and jobs[0].out:
                job.reuse = [*job.reuse, jobs[0].out]
            jobs.append(job)
    return jobs


def run_seed(jobs: list[Settings], workers: int) -> list[dict[str, Any]]:
    """Run the jobs of a seed one after another and read their results.

    Args:
        jobs: see :func:`jobs_of_seed`.
        workers: processes that share this machine's cores.
    """
    rows: list[dict[str, Any]] = []
    for job in jobs:
        if workers > 1 and job.threads is None:
            job.threads = max(1, (os.cpu_count() or 1) // workers)
        assert job.out is not None
        if not RunFolder(job).finished:
            run(job)
        metrics = read_json(Path(job.out) / "metrics.json")
        arm = Path(job.out).name.split("-")[1]
        names = {"pruned": arm} if rows else {"dense": "dense", "pruned": arm}
        for model, label in names.items():
            sparsity = 0.0 if label == "dense" else job.pruning.sparsity
            row = {"seed": job.seed, "arm": label, "sparsity": sparsity}
            rows.append(row | metrics["models"][model])
    return rows
