"""The sparsity sweep on a data set, over seeds: what ``scripts/sparsity_sweep.py`` runs."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.utils.data import WeightedRandomSampler
from torch_geometric.loader import DataLoader

from egnn_prune.api.sparsity_sweep import sparsity_sweep
from egnn_prune.configs.over_seeds import SweepSettings
from egnn_prune.evaluation.predict import predict_all, targets
from egnn_prune.pipeline.main_job import Job
from egnn_prune.report.studies.comparison import COLUMNS
from egnn_prune.report.studies.sweep import rivals_table, sweep_plot, sweep_table
from egnn_prune.runs.result_store import Row
from egnn_prune.studies.frame import Results, Study, open_job, seed_settings
from egnn_prune.studies.networks import BATCH, TRAINED, averages, errors, selected
from egnn_prune.uncertainty.metrics import nll


def results(settings: SweepSettings, rows: list[Row]) -> Results:
    """Errors after and before fine-tuning, likelihoods, and what else draws on uncertainty."""
    order = ["dense", *settings.criteria]  # earlier runs in this folder may have had more
    rows = [row for row in rows if row["criterion"] in order]
    rows.sort(key=lambda row: (order.index(row["criterion"]), row["sparsity"], row["seed"]))
    unit = rows[0]["unit"]
    tables = [
        sweep_table(rows, unit),
        sweep_table(rows, unit, "before_test_mae"),
        sweep_table(rows, "nats", "nll"),
        *([rivals_table(rows)] if "uncertainty" in settings.criteria else []),
    ]
    figure = sweep_plot(rows, unit, settings.steps)
    named = [
        {**row, "arm": row["criterion"], "macs_per_graph": row["macs"] / BATCH} for row in rows
    ]
    return Results(named, "\n\n".join(tables), figure, COLUMNS)


def run_seed(settings: SweepSettings, seed: int) -> list[Row]:
    """All cells of a seed; its dense model and its finished cells are re-used."""
    job = open_job(seed_settings(settings, seed))
    t, p = settings.training, settings.pruning
    graphs, weights = selected(job)
    sampler = WeightedRandomSampler(weights, len(job.train))
    return sparsity_sweep(
        job.load(TRAINED),
        DataLoader(job.train, t.batch_size, sampler=sampler, drop_last=True),
        evaluator(job),
        criteria=settings.criteria,
        sparsities=settings.sparsities,
        steps=settings.steps,
        lr=t.finetune_lr,
        weight_decay=t.weight_decay,
        clip=t.clip,
        loss=job.losses,
        scope=p.scope,
        round_to=p.round_to,
        scored=DataLoader(graphs, BATCH),
        seed=seed,
        device=settings.device,
        save=job.folder.path / "sweep.json",
        schedule=t.schedule,
        mixed_precision=t.mixed_precision,
        callbacks=lambda: averages(job),
    )


def evaluator(job: Job) -> Callable[[nn.Module], Row]:
    """Errors on the test and out-of-distribution splits, and the likelihood of the error bars."""
    test = job.dataset.split("test")

    def evaluate(model: nn.Module) -> Row:
        found = errors(model, job, ["test"])
        bars = predict_all(job.estimator(model), test, job.device, "test")
        found["nll"] = float(nll(bars.mean, bars.variance, targets(test)))
        return found | errors(model, job, ["ood"])

    return evaluate


#: Sweeps all criteria and sparsities for every seed.
run_sweep = Study("sweep", run_seed, results)
