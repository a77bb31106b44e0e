"""Main jobs over seeds, arms and sparsities, and what they say together."""

from __future__ import annotations

from pathlib import Path

from egnn_prune.configs.over_seeds import ComparisonSettings
from egnn_prune.configs.settings import Settings
from egnn_prune.pipeline.check_settings import validate
from egnn_prune.pipeline.main_job import run
from egnn_prune.report.studies.comparison import COLUMNS, comparison_plot, summary_table
from egnn_prune.runs.result_store import Row
from egnn_prune.runs.run_folder import RunFolder
from egnn_prune.studies.frame import Results, Study, seed_settings
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


def check(settings: ComparisonSettings) -> None:
    """Refuse what the arms cannot use."""
    for job in jobs_of_seed(settings, settings.seeds[0]):
        validate(job)


def results(settings: ComparisonSettings, rows: list[Row]) -> Results:
    """One table and one figure of all models."""
    return Results(rows, summary_table(rows), comparison_plot(rows), COLUMNS)


def jobs_of_seed(settings: ComparisonSettings, seed: int) -> list[Settings]:
    """The main jobs of one seed; all but the first re-use what the first one trained."""
    jobs: list[Settings] = []
    for sparsity in settings.sparsities:
        for arm in settings.arms:
            job = seed_settings(settings, seed)
            for name, value in ARMS[arm].items():
                section, key = name.split(".")
                setattr(getattr(job, section), key, value)
            job.pruning.sparsity = sparsity
            job.out = f"{job.out}-{arm}-{sparsity:g}"
            if jobs and jobs[0].out:
                job.reuse = [*job.reuse, jobs[0].out]
            jobs.append(job)
    return jobs


def run_seed(settings: ComparisonSettings, seed: int) -> list[Row]:
    """Run the jobs of a seed one after another and read their results."""
    rows: list[Row] = []
    for job in jobs_of_seed(settings, seed):
        assert job.out is not None
        if not RunFolder(job).finished:
            run(job)
        metrics = read_json(Path(job.out) / "metrics.json")
        arm = Path(job.out).name.split("-")[1]
        names = {"pruned": arm} if rows else {"dense": "dense", "pruned": arm}
        for model, label in names.items():
            sparsity = 0.0 if label == "dense" else job.pruning.sparsity
            row = {"seed": job.seed, "arm": label, "sparsity": sparsity}
            found = metrics["models"][model].items()
            rows.append(row | {k: v for k, v in found if not isinstance(v, dict)})
    return rows


#: Runs the jobs, or re-uses finished ones, and compares their models.
compare = Study("comparison", run_seed, results, check)
