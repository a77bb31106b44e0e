"""The weights best on validation come back, masks included, and never larger models."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from egnn_prune.errors import ConfigError
from egnn_prune.pruning import compact, keep_masks
from egnn_prune.training import (
    FitSettings,
    KeepBest,
    LearningCurve,
    PruningCallback,
    RegressionTask,
    fit,
    graph_batches,
)


def fitted(model, graphs, callbacks, steps=12, lr=0.3) -> LearningCurve:
    curve = LearningCurve()  # a rate so high that the last weights are not the best
    fit(
        RegressionTask(model, FitSettings(steps, lr, weight_decay=0.0)),
        graph_batches(graphs[0][:20], 10),
        DataLoader(graphs[1], 40),
        device=torch.device("cpu"),
        callbacks=[*callbacks, curve],
    )
    return curve


def error(model, graphs) -> float:
    batch = Batch.from_data_list(graphs)
    with torch.no_grad():
        return float((model.eval()(batch).mean - batch.y).abs().mean())


def test_fit_ends_with_the_best_weights(model, graphs):
    best = KeepBest("val_mae")
    errors = [row["val_mae"] for row in fitted(model, graphs, [best]).rows]
    assert min(errors) < errors[-1], "the last weights must not be the best, or this shows nothing"
    assert error(model, graphs[1]) == pytest.approx(min(errors), rel=1e-5)
    assert best.value == min(errors)


def test_models_before_the_last_round_do_not_count(model, graphs):
    """Damage by the last round is late and severe, so the best model of all came before it."""
    rounds = PruningCallback("magnitude", 0.6, rounds=2, until=0.6)
    best = KeepBest("val_mae", lambda: rounds.finished)
    fitted(model, graphs, [rounds, best], lr=1e-3)
    assert best.step > 0.5 * 12
    assert sum(int((~keep).sum()) for keep in keep_masks(model).values()) > 0
    batch = Batch.from_data_list(graphs[1])
    small = compact(model).eval()
    torch.testing.assert_close(small(batch).mean, model.eval()(batch).mean)
    assert error(model, graphs[1]) == pytest.approx(best.value, rel=1e-5)


def test_a_resumed_fit_remembers_the_best(model, graphs):
    best = KeepBest("val_mae")
    state: dict = {}

    class Halfway(Callback):
        def on_validation_end(self, trainer, *_) -> None:
            if trainer.global_step == 6:
                state.update(copy.deepcopy(best.state_dict()))

    fitted(model, graphs, [best, Halfway()])
    weights = {name: value.clone() for name, value in state["weights"].items()}
    resumed = KeepBest("val_mae")
    resumed.load_state_dict(state | {"value": -1.0})  # an error that nothing beats
    fitted(model, graphs, [resumed], steps=2)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, weights[f"model.{name}"], rtol=0, atol=0)


def test_an_unknown_metric_is_named(model, graphs):
    with pytest.raises(ConfigError, match=r"'val_force_mae' was asked for.*val_mae, val_mse"):
        fitted(model, graphs, [KeepBest("val_force_mae")])
