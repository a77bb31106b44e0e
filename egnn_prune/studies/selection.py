"""Which graphs to fine-tune a pruned network on: strategies after equally many steps."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import WeightedRandomSampler
from torch_geometric.loader import DataLoader

from egnn_prune.api.pruning import compact
from egnn_prune.configs.over_seeds import CalibrationStudySettings, SelectionStudySettings, main_job
from egnn_prune.errors import ConfigError
from egnn_prune.evaluation.predict import BATCH
from egnn_prune.pipeline.main_job import DENSE, Job
from egnn_prune.report.studies.selection import selection_plot, selection_table
from egnn_prune.runs.result_store import Row, Rows
from egnn_prune.selection import SampleScores, replay_weights
from egnn_prune.studies.frame import Results, Study
from egnn_prune.studies.networks import TRAINED, errors, fine_tuned, network_job, pruned_on

#: The control that selects nothing: all training graphs, drawn equally often.
ALL = "all"


def results(settings: SelectionStudySettings, rows: list[Row]) -> Results:
    """All strategies, replay by replay."""
    cells = [(s, r) for r in settings.replays for s in settings.strategies]
    rows = sorted(rows, key=lambda r: (cells.index((r["strategy"], r["replay"])), r["seed"]))
    unit = rows[0]["unit"]
    return Results(rows, selection_table(rows, unit), selection_plot(rows, unit, settings.steps))


def trained_job(settings: SelectionStudySettings, seed: int) -> Job:
    """The job of a seed with its dense network: copied from ``networks``, or trained here.

    Raises:
        ConfigError: ``networks`` lacks the network, or holds one trained with other settings.
    """
    study = CalibrationStudySettings(**vars(main_job(settings)))
    if settings.networks is None:
        job = network_job(study, "single", seed)
        job.train_dense()
        return job
    there = Path(settings.networks).expanduser() / f"single{seed}"
    if not (there / TRAINED).exists() or not (there / "stages/dense.json").exists():
        raise ConfigError(
            f"networks={settings.networks} has no trained network single{seed}; train it first, "
            "or leave networks away to train it here"
        )

    def refuse() -> Row:
        raise ConfigError(
            f"{there} was trained with other settings; give this study the same ones (data, "
            "model, uncertainty, training), or leave networks away"
        )

    job = network_job(replace(study, reuse=[*study.reuse, str(there)]), "single", seed)
    job.folder.stage("dense", DENSE, (TRAINED,), refuse)
    return job


def run_seed(settings: SelectionStudySettings, seed: int) -> list[Row]:
    """All cells of a seed; finished ones are read, not computed again.

    Every strategy sees the same dense network and the same evidence. The network pruned on a
    strategy's graphs is fine-tuned once for every replay.
    """
    job = trained_job(settings, seed)
    saved = Rows(job.folder.path / "selection.json", {"steps": settings.steps}, seed=seed)
    cells = [
        {"strategy": strategy, "replay": replay}
        for strategy in settings.strategies
        for replay in settings.replays
    ]

    @cache
    def trained() -> tuple[nn.Module, SampleScores]:
        dense = job.load(TRAINED)
        return dense, job.sample_scores(dense)

    @cache
    def pruned_by(strategy: str) -> tuple[Tensor, nn.Module]:
        dense, sample_scores = trained()
        chosen = chosen_by(strategy, sample_scores, job)
        graphs = [job.train[i] for i in chosen.tolist()]
        return chosen, pruned_on(graphs, dense, job, BATCH)

    def find_out(strategy: str, replay: float) -> Row:
        chosen, pruned = pruned_by(strategy)
        weights = replay_weights(chosen, len(job.train), replay)
        return {
            "selected": len(chosen),
            "mean_uncertainty": float(trained()[1].uncertainty[chosen].mean()),
            **errors(trained_on(pruned, weights, settings.steps, job), job),
        }

    return saved.fill(cells, find_out)


def chosen_by(strategy: str, sample_scores: SampleScores, job: Job) -> Tensor:
    """Row numbers of the graphs that a strategy selects; the job's seed drives its draws."""
    if strategy == ALL:
        return torch.arange(len(sample_scores))
    job.settings.selection.strategy = strategy
    return job.select(sample_scores)


def trained_on(pruned: nn.Module, weights: Tensor, steps: int, job: Job) -> nn.Module:
    """The pruned network after ``steps`` steps on graphs drawn by ``weights``, compact."""
    torch.manual_seed(job.settings.seed)
    sampler = WeightedRandomSampler(weights.tolist(), len(job.train))
    size = job.settings.training.batch_size
    loader = DataLoader(job.train, size, sampler=sampler, drop_last=True)
    return compact(fine_tuned(copy.deepcopy(pruned), loader, steps, job))


#: Compares strategies after equally many steps.
run_selection_study = Study("selection", run_seed, results)
