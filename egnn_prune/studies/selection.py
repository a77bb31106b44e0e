"""Which graphs to fine-tune a pruned network on: strategies after equally many steps."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import WeightedRandomSampler
from torch_geometric.loader import DataLoader

from egnn_prune.api.pruning import compact, fine_tune, prune
from egnn_prune.configs.settings import CalibrationStudySettings, SelectionStudySettings, main_job
from egnn_prune.configs.unused import refuse_unused
from egnn_prune.errors import ConfigError
from egnn_prune.evaluation.predict import BATCH, point_predictions, targets
from egnn_prune.pipeline.check_settings import validate
from egnn_prune.pipeline.main_job import DENSE, Job
from egnn_prune.pipeline.run_context import Workbench
from egnn_prune.report.common.csv_file import write_rows
from egnn_prune.report.common.files import write_atomic
from egnn_prune.report.common.style import png_bytes
from egnn_prune.report.studies.selection import selection_plot, selection_table
from egnn_prune.runs.folder_lock import alone_in
from egnn_prune.runs.result_store import Row, Rows, different, over_seeds
from egnn_prune.selection import STRATEGIES, Evidence, replay_weights
from egnn_prune.studies.trained_networks import network_job

#: The control that selects nothing: all training graphs, drawn equally often.
ALL = "all"
TRAINED = "stages/trained.safetensors"


@alone_in("runs/selection")
def run_selection_study(settings: SelectionStudySettings) -> Path:
    """Compare strategies over seeds, then write ``selection.csv``, ``.txt`` and ``.png``.

    Args:
        settings: seeds, strategies, replays, steps, and those of the main job.

    Returns:
        The folder of the study.

    Raises:
        ConfigError: an unknown strategy, nothing to compare, or networks that do not fit.
    """
    unknown = sorted(set(settings.strategies) - {*STRATEGIES, ALL})
    if unknown:
        raise ConfigError(
            f"strategies must be some of {', '.join(STRATEGIES)}, {ALL}, not {unknown}"
        )
    different("strategies", settings.strategies)
    different("replays", settings.replays)
    if settings.steps < 1:
        raise ConfigError(f"steps must be at least 1, not {settings.steps}")
    validate(settings)
    refuse_unused(settings)
    found = over_seeds(study_seed, settings, settings.seeds, settings.workers)
    cells = [(s, r) for r in settings.replays for s in settings.strategies]
    rows = [row for row in found if (row["strategy"], row["replay"]) in cells]
    rows.sort(key=lambda row: (cells.index((row["strategy"], row["replay"])), row["seed"]))
    unit = rows[0]["unit"]
    out = Path(settings.out or "runs/selection").expanduser()
    text = selection_table(rows, unit)
    write_rows(rows, out / "selection.csv")
    write_atomic(out / "selection.txt", f"{text}\n".encode())
    write_atomic(out / "selection.png", png_bytes(selection_plot(rows, unit, settings.steps)))
    print(f"{text}\nWritten: selection.csv, selection.txt and selection.png in {out}")
    return out


def trained_job(settings: SelectionStudySettings, seed: int) -> Job:
    """The job of a seed with its dense network: copied from ``networks``, or trained here.

    Raises:
        ConfigError: ``networks`` lacks the network, or holds one trained with other settings.
    """
    out = Path(settings.out or "runs/selection").expanduser()
    study = CalibrationStudySettings(**vars(main_job(settings)))
    if settings.networks is None:
        job = network_job(study, "single", seed, out)
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

    job = network_job(replace(study, reuse=[*study.reuse, str(there)]), "single", seed, out)
    job.folder.stage("dense", DENSE, (TRAINED,), refuse)
    return job


def study_seed(settings: SelectionStudySettings, seed: int) -> list[Row]:
    """All cells of a seed; finished ones are read, not computed again.

    Every strategy sees the same dense network and the same evidence. The network pruned on a
    strategy's graphs is fine-tuned once for every replay.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    job = trained_job(settings, seed)
    saved = Rows(job.folder.path / "selection.json", {"steps": settings.steps})
    missing = {
        strategy: [r for r in settings.replays if not saved.find(strategy=strategy, replay=r)]
        for strategy in settings.strategies
    }
    if not any(missing.values()):
        return saved.rows
    dense = job.load(TRAINED)
    evidence = job.evidence(dense)
    for strategy, replays in missing.items():
        if not replays:
            continue
        chosen = chosen_by(strategy, evidence, job)
        pruned = pruned_on(chosen, dense, job)
        for replay in replays:
            weights = replay_weights(chosen, len(job.train), replay)
            small = fine_tuned(pruned, weights, settings.steps, job)
            saved.add(
                {
                    "seed": seed,
                    "strategy": strategy,
                    "replay": replay,
                    "selected": len(chosen),
                    "mean_uncertainty": float(evidence.uncertainty[chosen].mean()),
                    **errors(small, job),
                }
            )
    return saved.rows


def chosen_by(strategy: str, evidence: Evidence, job: Job) -> Tensor:
    """Row numbers of the graphs that a strategy selects; the job's seed drives its draws."""
    if strategy == ALL:
        return torch.arange(len(evidence))
    job.settings.selection.strategy = strategy
    return job.select(evidence)


def pruned_on(chosen: Tensor, dense: nn.Module, job: Job) -> nn.Module:
    """A masked copy of the dense network, its channels scored on all of the selected graphs."""
    s = job.settings
    scored = DataLoader([job.train[i] for i in chosen.tolist()], BATCH)
    return prune(
        dense,
        s.pruning.criterion,
        s.pruning.sparsity,
        data=scored,
        scope=s.pruning.scope,
        round_to=s.pruning.round_to,
        loss=job.losses,
        batches=len(scored),
        seed=s.seed,
    )


def fine_tuned(pruned: nn.Module, weights: Tensor, steps: int, job: Job) -> nn.Module:
    """The pruned network after ``steps`` steps on graphs drawn by ``weights``, compact."""
    t = job.settings.training
    torch.manual_seed(job.settings.seed)
    sampler = WeightedRandomSampler(weights.tolist(), len(job.train))
    model = fine_tune(
        copy.deepcopy(pruned),
        DataLoader(job.train, t.batch_size, sampler=sampler, drop_last=True),
        steps=steps,
        lr=t.finetune_lr,
        weight_decay=t.weight_decay,
        clip=t.clip,
        loss=job.losses,
        device=job.settings.device,
    )
    return compact(model)


def errors(model: nn.Module, job: Workbench) -> Row:
    """Mean absolute errors on the test and out-of-distribution splits, in the target's unit."""
    found: Row = {"unit": job.dataset.unit}
    for split in ("test", "ood"):
        graphs = job.dataset.split(split)
        if graphs:
            error = point_predictions(model, graphs, job.device) - targets(graphs)
            found[f"{split}_mae"] = float(error.abs().mean())
    return found
