"""S0: do training on uncertain graphs and pruning help on the centroid task?"""

# ruff: noqa: RUF009 - setting() returns a dataclass field, as field() does

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from egnn_prune.configs.settings import setting
from egnn_prune.data import GraphDataset
from egnn_prune.data.centroid import load_centroid
from egnn_prune.errors import ConfigError
from egnn_prune.evaluation.predict import (
    BATCH,
    graph_means,
    point_predictions,
    predict_all,
    targets,
)
from egnn_prune.models import EGNNOptions
from egnn_prune.models.position_model import PositionModel
from egnn_prune.pruning import compact
from egnn_prune.report.common.csv_file import write_rows
from egnn_prune.report.common.files import write_atomic
from egnn_prune.report.common.style import png_bytes
from egnn_prune.report.studies.centroid import BASELINE, centroid_plot, centroid_table
from egnn_prune.runs.folder_lock import alone_in
from egnn_prune.runs.result_store import Row, Rows, different, over_seeds
from egnn_prune.selection import select
from egnn_prune.training import FitSettings, PruningCallback, RegressionTask, fit, graph_batches
from egnn_prune.training.loss import normalised_outputs, per_graph
from egnn_prune.uncertainty import MCDropout

CPU = torch.device("cpu")
#: Graphs of the second half by the name of the arm: the strategies of the selection.
ARMS = {"uncertain": "top", "random": "random"}
#: The network of the original: 2,330 weights in its layers and embedding; the original has a
#: read-out of 11 weights, ours one of 121 for the variance, and neither moves a node.
NETWORK = EGNNOptions(aggregation="mean", residual=False, dropout=0.3)
LR = 1e-3


@dataclass
class CentroidStudySettings:
    """Pruned and trained on uncertain graphs, against equally many ordinary steps."""

    out: str = setting("runs/centroid", "folder of the study")
    seeds: list[int] = setting(list(range(10)), "data and network, one of each per seed")
    steps: list[int] = setting([100, 2000], "optimiser steps of each half of a training")
    sparsities: list[float] = setting([0.0, 0.25, 0.5, 0.75], "share of the channels removed")
    fraction: float = setting(0.25, "share of the training graphs that the second half sees")
    criterion: str = setting("taylor", "which channels go")
    samples: int = setting(10, "thinned networks whose spread is the uncertainty")
    workers: int = setting(1, "processes that work at the same time, one seed each")
    threads: int | None = setting(1, "CPU threads of each; null: torch's default")


@alone_in("runs/centroid")
def run_centroid_study(settings: CentroidStudySettings) -> Path:
    """All arms over seeds, then ``centroid.csv``, ``.txt`` and ``.png``.

    Returns:
        The folder of the study.

    Raises:
        ConfigError: a setting is out of range.
    """
    different("steps", settings.steps)
    different("sparsities", settings.sparsities)
    if min(settings.steps) < 1 or not 0 <= min(settings.sparsities) <= max(settings.sparsities) < 1:
        raise ConfigError(
            f"steps must be at least 1 and sparsities lie in [0, 1), not {settings.steps} and "
            f"{settings.sparsities}"
        )
    rows = over_seeds(study_seed, settings, settings.seeds, settings.workers)
    arms = [BASELINE, *ARMS]
    rows.sort(key=lambda r: (r["steps"], arms.index(r["arm"]), r["sparsity"], r["seed"]))
    out = Path(settings.out).expanduser()
    text = centroid_table(rows)
    write_rows(rows, out / "centroid.csv")
    write_atomic(out / "centroid.txt", f"{text}\n".encode())
    write_atomic(out / "centroid.png", png_bytes(centroid_plot(rows)))
    print(f"{text}\nWritten: centroid.csv, centroid.txt and centroid.png in {out}")
    return out


def study_seed(settings: CentroidStudySettings, seed: int) -> list[Row]:
    """All cells of a seed; finished ones are read, not computed again.

    Every arm goes on from the same network, trained for the first half on ordinary graphs, and all
    have the same number of steps and the same learning rates.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    s = settings
    asked = {"fraction": s.fraction, "criterion": s.criterion, "samples": s.samples}
    saved = Rows(Path(s.out).expanduser() / f"seed{seed}.json", asked)
    cells = [(BASELINE, 0.0), *((arm, sparsity) for arm in ARMS for sparsity in s.sparsities)]
    dataset: GraphDataset | None = None
    for steps in s.steps:
        missing = [c for c in cells if not saved.find(steps=steps, arm=c[0], sparsity=c[1])]
        if not missing:
            continue
        dataset = dataset or load_centroid(seed)
        train = list(dataset.split("train"))
        torch.manual_seed(seed)
        dense = fresh_network(train)
        train_on(dense, train, steps, f"seed {seed}, first half")
        doubt = coordinate_deviation(dense, train, s.samples)
        for arm, sparsity in missing:
            chosen = train
            if arm != BASELINE:
                generator = torch.Generator().manual_seed(seed)
                picked = select(doubt, ARMS[arm], fraction=s.fraction, generator=generator)
                chosen = [train[i] for i in picked.tolist()]
            torch.manual_seed(seed)
            model = second_half(dense, chosen, steps, sparsity, s.criterion, f"seed {seed}, {arm}")
            saved.add(
                {
                    "seed": seed,
                    "steps": steps,
                    "arm": arm,
                    "sparsity": sparsity,
                    "parameters": sum(p.numel() for p in model.parameters()),
                    "trunk_parameters": sum(p.numel() for p in model.trunk.parameters()),
                    "mean_std": float(doubt.mean()),
                    **errors(model, dataset),
                }
            )
    return [r for r in saved.rows if r["steps"] in s.steps and (r["arm"], r["sparsity"]) in cells]


def fresh_network(train: Sequence[Data]) -> PositionModel:
    """The original's network with a read-out for the variance, which this study does not train."""
    moved = torch.cat([graph.y - graph.pos for graph in train])
    scale = float(moved.square().mean().sqrt())
    return PositionModel.build(1, hidden=10, layers=3, options=NETWORK, scale=scale)


def position_losses(model: nn.Module, batch: Any) -> Tensor:
    """Mean squared error of the displacements of each graph, in units of the scale, ``[B]``."""
    means, _, y = normalised_outputs(model, batch)
    return per_graph((means - y).square().mean(0), batch)


def train_on(
    model: nn.Module,
    graphs: Sequence[Data],
    steps: int,
    label: str,
    callbacks: list[PruningCallback] | None = None,
) -> None:
    """Train in place, one graph a step."""
    task = RegressionTask(model, FitSettings(steps, LR, 0.0, 0.0), position_losses)
    batches = graph_batches(graphs, 1)
    fit(task, batches, device=CPU, label=label, callbacks=callbacks or ())


def coordinate_deviation(model: nn.Module, graphs: Sequence[Data], samples: int) -> Tensor:
    """Mean standard deviation of a graph's predicted coordinates over thinned networks, ``[n]``."""
    prediction = predict_all(MCDropout(model, samples), graphs, CPU, "uncertainty")
    return graph_means(prediction.epistemic.sqrt(), graphs)


def second_half(
    dense: PositionModel,
    graphs: Sequence[Data],
    steps: int,
    sparsity: float,
    criterion: str,
    label: str,
) -> PositionModel:
    """A copy, pruned at the first step, its zeros frozen, trained on, and made smaller for real."""
    model = copy.deepcopy(dense)
    if sparsity == 0:
        train_on(model, graphs, steps, label)
        return model
    pruning = PruningCallback(
        criterion,
        sparsity,
        schedule="one_shot",
        rounds=1,
        until=0.0,
        batches=DataLoader(graphs, BATCH),
        loss=position_losses,
        freezing="pruned",
    )
    train_on(model, graphs, steps, label, [pruning])
    small = compact(model)
    assert isinstance(small, PositionModel)
    return small


def errors(model: nn.Module, dataset: GraphDataset) -> Row:
    """Mean squared errors of a coordinate; ``still``: of predicting that nothing moves."""
    found: Row = {}
    for split in ("test", "ood"):
        graphs = dataset.split(split)
        error = point_predictions(model, graphs, CPU) - targets(graphs)
        still = torch.cat([(graph.y - graph.pos).flatten() for graph in graphs])
        found[f"{split}_mse"] = float(error.square().mean())
        found[f"{split}_still"] = float(still.square().mean())
    return found
