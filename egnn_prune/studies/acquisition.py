"""Pool-based acquisition: which graphs to label next, from a few random ones on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch_geometric.loader import DataLoader

from egnn_prune.configs.settings import AcquisitionSettings, main_job
from egnn_prune.configs.unused import refuse_unused
from egnn_prune.errors import ConfigError
from egnn_prune.evaluation.predict import BATCH, predict_all
from egnn_prune.pipeline.build import build_estimator, build_model
from egnn_prune.pipeline.check_settings import validate
from egnn_prune.pipeline.run_context import Workbench
from egnn_prune.report.common.csv_file import write_rows
from egnn_prune.report.common.files import write_atomic
from egnn_prune.report.common.style import png_bytes
from egnn_prune.report.studies.learning_curve import learning_curve_plot, learning_curve_table
from egnn_prune.runs.folder_lock import alone_in
from egnn_prune.runs.result_store import Row, Rows, different, over_seeds
from egnn_prune.runs.run_folder import RunFolder
from egnn_prune.selection import STRATEGIES, gather, select
from egnn_prune.studies.selection import errors
from egnn_prune.system.device import choose_device
from egnn_prune.training import FitSettings, RegressionTask, fit, graph_batches

#: The network of round 0, which all strategies share.
FIRST = "first.safetensors"
#: Strategies that label a pool: they choose a given number, and not by labels.
POOL_STRATEGIES = tuple(name for name in STRATEGIES if name not in ("loss", "threshold"))


@alone_in("runs/acquisition")
def run_acquisition(settings: AcquisitionSettings) -> Path:
    """Learning curves of all strategies over seeds: ``acquisition.csv``, ``.txt`` and ``.png``.

    Args:
        settings: seeds, strategies, sizes, steps, and those of the main job.

    Returns:
        The folder of the study.

    Raises:
        ConfigError: a strategy that cannot label a pool, or a number out of range.
    """
    unknown = sorted(set(settings.strategies) - set(POOL_STRATEGIES))
    if unknown:
        raise ConfigError(
            f"strategies must be some of {', '.join(POOL_STRATEGIES)}, not {unknown}: a pool has "
            "no labels, and every round adds equally many"
        )
    different("strategies", settings.strategies)
    for name in ("initial", "added", "rounds", "first_steps", "steps"):
        least = 2 if name == "initial" else 1
        if getattr(settings, name) < least:
            raise ConfigError(f"{name} must be at least {least}, not {getattr(settings, name)}")
    if settings.uncertainty.method in ("snapshot", "bootstrap"):
        raise ConfigError(
            "acquisition trains one network (or a deep ensemble) on, so uncertainty.method="
            f"{settings.uncertainty.method} does not fit it; choose dropout, shallow or deep"
        )
    validate(settings)
    refuse_unused(settings)
    found = over_seeds(acquire_seed, settings, settings.seeds, settings.workers)
    order = settings.strategies
    rows = [r for r in found if r["strategy"] in order and r["round"] <= settings.rounds]
    rows.sort(key=lambda row: (order.index(row["strategy"]), row["seed"], row["round"]))
    unit = rows[0]["unit"]
    out = Path(settings.out or "runs/acquisition").expanduser()
    text = learning_curve_table(rows, unit)
    write_rows([{k: r[k] for k in r if k != "added"} for r in rows], out / "acquisition.csv")
    write_atomic(out / "acquisition.txt", f"{text}\n".encode())
    plot = learning_curve_plot(rows, unit, settings.steps)
    write_atomic(out / "acquisition.png", png_bytes(plot))
    print(f"{text}\nWritten: acquisition.csv, acquisition.txt and acquisition.png in {out}")
    return out


def acquire_seed(settings: AcquisitionSettings, seed: int) -> list[Row]:
    """All rounds of all strategies of a seed; finished ones are read, not computed again.

    All strategies of a seed begin with the same labels and the same network, trained once. Every
    round trains it further, equally long for all strategies, on all labels so far; from scratch a
    network would need a whole training a round before its error says anything about the labels.
    So a curve shows labels *and* steps; what the strategies differ by is the labels alone.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    bench = workbench(settings, seed)
    asked = {k: getattr(settings, k) for k in ("initial", "added", "first_steps", "steps")}
    saved = Rows(bench.folder.path / "acquisition.json", asked)
    order = torch.randperm(len(bench.train), generator=torch.Generator().manual_seed(seed))
    for strategy in settings.strategies:
        labelled, before = order[: settings.initial], ""
        for number in range(settings.rounds + 1):
            place = f"{strategy}-{number}.safetensors" if number else FIRST
            row = saved.find(strategy=strategy, round=number)
            if row is None:
                if not (bench.folder.path / place).exists():
                    torch.manual_seed(1000 * seed + number)
                    model = bench.load(before) if before else fresh(bench, labelled)
                    steps = settings.steps if before else settings.first_steps
                    train(bench, model, labelled, steps, further=bool(before))
                    bench.save(model, place)
                model = bench.load(place)
                chosen = acquired(bench, model, labelled, strategy, settings.added, number)
                row = saved.add(
                    {
                        "seed": seed,
                        "strategy": strategy,
                        "round": number,
                        "labelled": len(labelled),
                        **errors(model, bench),
                        "added": chosen.tolist(),
                    }
                )
            labelled = torch.cat([labelled, torch.tensor(row["added"], dtype=torch.long)])
            before = place
    return saved.rows


def workbench(settings: AcquisitionSettings, seed: int) -> Workbench:
    """Data and folder of a seed.

    Raises:
        ConfigError: the rounds need more graphs than there are.
    """
    job = main_job(settings)
    job.seed = seed
    job.out = str(Path(settings.out or "runs/acquisition").expanduser() / f"seed{seed}")
    bench = Workbench(job, RunFolder(job), choose_device(job.device))
    asked = settings.initial + settings.rounds * settings.added
    if asked > len(bench.train):
        raise ConfigError(
            f"initial + rounds * added asks for {asked} of {len(bench.train)} training graphs; "
            "lower one of them"
        )
    return bench


def fresh(bench: Workbench, labelled: Tensor) -> nn.Module:
    """A fresh network, the scale of its target fitted on the first labels alone.

    Raises:
        ConfigError: the labelled graphs lack an element.
    """
    dataset = bench.dataset
    splits = {**dataset.splits, "train": dataset.splits["train"][labelled]}
    known = replace(dataset, splits=splits)
    if known.elements != dataset.elements:
        raise ConfigError(
            f"{len(labelled)} labelled graphs have the elements {known.elements}, but the pool "
            f"has {dataset.elements}; raise initial"
        )
    return build_model(bench.settings, known)


def train(
    bench: Workbench, model: nn.Module, labelled: Tensor, steps: int, *, further: bool
) -> None:
    """Train in place on the labelled graphs, with the main job's rate for the first or more steps.

    Args:
        bench: data and settings.
        model: the network.
        labelled: row numbers in the training split.
        steps: optimiser steps.
        further: whether the network was trained before.
    """
    t = bench.settings.training
    graphs = [bench.train[i] for i in labelled.tolist()]
    how = FitSettings(steps, t.finetune_lr if further else t.lr, t.weight_decay, t.clip)
    task = RegressionTask(model, how, bench.losses)
    batches = graph_batches(graphs, t.batch_size)
    fit(task, batches, device=bench.device, label=f"{len(graphs)} labels")


def acquired(
    bench: Workbench, model: nn.Module, labelled: Tensor, strategy: str, count: int, number: int
) -> Tensor:
    """Row numbers of the ``count`` graphs of the pool that a strategy labels next.

    What is left of a pool that holds fewer. Nothing here reads a label of the pool: error bars are
    fitted on labelled graphs, and diversity counts the distance to them too.
    """
    free = torch.ones(len(bench.train), dtype=torch.bool)
    free[labelled] = False
    pool = free.nonzero().flatten()
    if len(pool) == 0:
        return pool
    fraction = min(count, len(pool)) / len(pool)
    generator = torch.Generator().manual_seed(1000 * bench.settings.seed + number)
    if strategy == "random":  # looks at nothing, so there is nothing to compute
        zeros = torch.zeros(len(pool))
        return pool[select(zeros, strategy, fraction=fraction, generator=generator)]
    graphs = [bench.train[i] for i in pool.tolist()]
    known = [bench.train[i] for i in labelled.tolist()]
    estimator = build_estimator(bench.settings.uncertainty, model.to(bench.device))
    estimator.fit(bench.batches(known, "fitting the error bars"))
    doubt = predict_all(estimator, graphs, bench.device, "pool").doubt.sqrt()
    evidence = gather(model, DataLoader(graphs, BATCH), doubt, device=bench.device)
    if strategy == "diverse":
        zeros = torch.zeros(len(known))
        covered = gather(model, DataLoader(known, BATCH), zeros, device=bench.device).embeddings
        evidence = replace(evidence, covered=covered)
    band = bench.settings.selection.band
    return pool[select(evidence, strategy, fraction=fraction, band=band, generator=generator)]
