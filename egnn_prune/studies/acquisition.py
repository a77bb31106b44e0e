"""Pool-based acquisition: which graphs to label next, from a few random ones on."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch_geometric.loader import DataLoader

from egnn_prune.configs.over_seeds import AcquisitionSettings
from egnn_prune.errors import ConfigError
from egnn_prune.evaluation.predict import BATCH, predict_all
from egnn_prune.pipeline.build import build_estimator, build_model
from egnn_prune.pipeline.fit_callbacks import with_the_asked
from egnn_prune.pipeline.main_job import Job
from egnn_prune.report.studies.learning_curve import learning_curve_plot, learning_curve_table
from egnn_prune.runs.result_store import Row, Rows
from egnn_prune.selection import score_samples, select
from egnn_prune.studies.frame import Results, Study, open_job, seed_settings
from egnn_prune.studies.networks import errors
from egnn_prune.training import FitSettings, RegressionTask, fit, graph_batches

#: The network of round 0, which all strategies share.
FIRST = "first.safetensors"
#: Strategies that label a pool: they choose a given number, and not by labels.


def check(settings: AcquisitionSettings) -> None:
    """Refuse what cannot label a pool."""
    if settings.uncertainty.method in ("snapshot", "bootstrap"):
        raise ConfigError(
            "acquisition trains one network (or a deep ensemble) on, so uncertainty.method="
            f"{settings.uncertainty.method} does not fit it; choose dropout, shallow or deep"
        )


def results(settings: AcquisitionSettings, rows: list[Row]) -> Results:
    """The rounds that are asked for now, strategy by strategy; who was labelled is left out."""
    order = settings.strategies
    rows = [
        {key: value for key, value in row.items() if key != "added"}
        for row in rows
        if row["strategy"] in order and row["round"] <= settings.rounds
    ]
    rows.sort(key=lambda row: (order.index(row["strategy"]), row["seed"], row["round"]))
    unit = rows[0]["unit"]
    figure = learning_curve_plot(rows, unit, settings.steps)
    return Results(rows, learning_curve_table(rows, unit), figure)


def run_seed(settings: AcquisitionSettings, seed: int) -> list[Row]:
    """All rounds of all strategies of a seed; finished ones are read, not computed again.

    All strategies of a seed begin with the same labels and the same network, trained once. Every
    round trains it further, equally long for all strategies, on all labels so far; from scratch a
    network would need a whole training a round before its error says anything about the labels.
    So a curve shows labels *and* steps; what the strategies differ by is the labels alone.
    """
    job = job_of_seed(settings, seed)
    asked = {k: getattr(settings, k) for k in ("initial", "added", "first_steps", "steps")}
    saved = Rows(job.folder.path / "acquisition.json", asked, seed=seed)
    order = torch.randperm(len(job.train), generator=torch.Generator().manual_seed(seed))
    for strategy in settings.strategies:
        labelled, before = order[: settings.initial], ""
        for number in range(settings.rounds + 1):
            place = f"{strategy}-{number}.safetensors" if number else FIRST
            cell = {"strategy": strategy, "round": number}
            row = saved.find(**cell)
            if row is None:
                if not (job.folder.path / place).exists():
                    torch.manual_seed(1000 * seed + number)
                    model = job.load(before) if before else fresh(job, labelled)
                    steps = settings.steps if before else settings.first_steps
                    train(job, model, labelled, steps, further=bool(before))
                    job.save(model, place)
                model = job.load(place)
                chosen = acquired(job, model, labelled, strategy, settings.added, number)
                found = {"labelled": len(labelled), **errors(model, job), "added": chosen.tolist()}
                row = saved.add(cell | found)
            labelled = torch.cat([labelled, torch.tensor(row["added"], dtype=torch.long)])
            before = place
    return saved.rows


def job_of_seed(settings: AcquisitionSettings, seed: int) -> Job:
    """Data and folder of a seed.

    Raises:
        ConfigError: the rounds need more graphs than there are.
    """
    job = open_job(seed_settings(settings, seed))
    asked = settings.initial + settings.rounds * settings.added
    if asked > len(job.train):
        raise ConfigError(
            f"initial + rounds * added asks for {asked} of {len(job.train)} training graphs; "
            "lower one of them"
        )
    return job


def fresh(job: Job, labelled: Tensor) -> nn.Module:
    """A fresh network, the scale of its target fitted on the first labels alone.

    Raises:
        ConfigError: the labelled graphs lack an element.
    """
    dataset = job.dataset
    splits = {**dataset.splits, "train": dataset.splits["train"][labelled]}
    known = replace(dataset, splits=splits)
    if known.elements != dataset.elements:
        raise ConfigError(
            f"{len(labelled)} labelled graphs have the elements {known.elements}, but the pool "
            f"has {dataset.elements}; raise initial"
        )
    return build_model(job.settings, known)


def train(job: Job, model: nn.Module, labelled: Tensor, steps: int, *, further: bool) -> None:
    """Train in place on the labelled graphs, with the main job's rate for the first or more steps.

    Args:
        job: data and settings.
        model: the network.
        labelled: row numbers in the training split.
        steps: optimiser steps.
        further: whether the network was trained before.
    """
    t = job.settings.training
    graphs = [job.train[i] for i in labelled.tolist()]
    lr = t.finetune_lr if further else t.lr
    how = FitSettings(
        steps,
        lr,
        t.weight_decay,
        t.clip,
        schedule=t.schedule,
        mixed_precision=t.mixed_precision,
    )
    task = RegressionTask(model, how, job.losses)
    batches = graph_batches(graphs, t.batch_size)
    callbacks = with_the_asked([], t)
    fit(task, batches, device=job.device, label=f"{len(graphs)} labels", callbacks=callbacks)


def acquired(
    job: Job, model: nn.Module, labelled: Tensor, strategy: str, count: int, number: int
) -> Tensor:
    """Row numbers of the ``count`` graphs of the pool that a strategy labels next.

    What is left of a pool that holds fewer. Nothing here reads a label of the pool: error bars are
    fitted on labelled graphs, and diversity counts the distance to them too.
    """
    free = torch.ones(len(job.train), dtype=torch.bool)
    free[labelled] = False
    pool = free.nonzero().flatten()
    if len(pool) == 0:
        return pool
    fraction = min(count, len(pool)) / len(pool)
    generator = torch.Generator().manual_seed(1000 * job.settings.seed + number)
    if strategy == "random":  # looks at nothing, so there is nothing to compute
        zeros = torch.zeros(len(pool))
        return pool[select(zeros, strategy, fraction=fraction, generator=generator)]
    graphs = [job.train[i] for i in pool.tolist()]
    known = [job.train[i] for i in labelled.tolist()]
    estimator = build_estimator(job.settings.uncertainty, model.to(job.device))
    estimator.fit(job.batches(known, "fitting the error bars"))
    epistemic_std = predict_all(estimator, graphs, job.device, "pool").ood_variance.sqrt()
    sample_scores = score_samples(
        model, DataLoader(graphs, BATCH), epistemic_std, device=job.device
    )
    if strategy == "diverse":
        zeros = torch.zeros(len(known))
        covered = score_samples(
            model, DataLoader(known, BATCH), zeros, device=job.device
        ).embeddings
        sample_scores = replace(sample_scores, covered=covered)
    band = job.settings.selection.band
    return pool[select(sample_scores, strategy, fraction=fraction, band=band, generator=generator)]


#: Learning curves of all strategies.
run_acquisition = Study("acquisition", run_seed, results, check)
