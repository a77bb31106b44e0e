"""S0: do training on uncertain graphs and pruning help on the centroid task?"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from egnn_prune.configs.over_seeds import CentroidStudySettings
from egnn_prune.data import GraphDataset
from egnn_prune.data.sources.centroid import load_centroid
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
from egnn_prune.report.studies.centroid import BASELINE, centroid_plot, centroid_table
from egnn_prune.runs.result_store import Row, Rows
from egnn_prune.selection import select
from egnn_prune.studies.frame import Results, Study, study_folder
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


def results(_: CentroidStudySettings, rows: list[Row]) -> Results:
    """One table and one figure of all arms."""
    arms = [BASELINE, *ARMS]
    rows = sorted(rows, key=lambda r: (r["steps"], arms.index(r["arm"]), r["sparsity"], r["seed"]))
    return Results(rows, centroid_table(rows), centroid_plot(rows))


def run_seed(settings: CentroidStudySettings, seed: int) -> list[Row]:
    """All cells of a seed; finished ones are read, not computed again.

    Every arm goes on from the same network, trained for the first half on ordinary graphs, and all
    have the same number of steps and the same learning rates.
    """
    s = settings
    asked = {"fraction": s.fraction, "criterion": s.criterion, "samples": s.samples}
    saved = Rows(study_folder(s) / f"seed{seed}.json", asked, seed=seed)
    arms = [(BASELINE, 0.0), *((arm, sparsity) for arm in ARMS for sparsity in s.sparsities)]
    cells = [
        {"steps": steps, "arm": arm, "sparsity": sparsity}
        for steps in s.steps
        for arm, sparsity in arms
    ]

    @cache
    def data() -> GraphDataset:
        return load_centroid(seed)

    @cache
    def first_half(steps: int) -> tuple[PositionModel, Tensor]:
        train = list(data().split("train"))
        torch.manual_seed(seed)
        dense = fresh_network(train)
        train_on(dense, train, steps, f"seed {seed}, first half")
        return dense, coordinate_deviation(dense, train, s.samples)

    def find_out(steps: int, arm: str, sparsity: float) -> Row:
        dense, deviation = first_half(steps)
        chosen = list(data().split("train"))
        if arm != BASELINE:
            generator = torch.Generator().manual_seed(seed)
            picked = select(deviation, ARMS[arm], fraction=s.fraction, generator=generator)
            chosen = [chosen[i] for i in picked.tolist()]
        torch.manual_seed(seed)
        model = second_half(dense, chosen, steps, sparsity, s.criterion, f"seed {seed}, {arm}")
        return {
            "parameters": sum(p.numel() for p in model.parameters()),
            "trunk_parameters": sum(p.numel() for p in model.trunk.parameters()),
            "mean_std": float(deviation.mean()),
            **errors(model, data()),
        }

    return saved.fill(cells, find_out)


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
    """Mean standard deviation of predicted coordinates over MC-dropout samples, ``[n]``."""
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


#: All arms over seeds.
run_centroid_study = Study("centroid", run_seed, results)
