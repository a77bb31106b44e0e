"""Structures that count more or less than others: what a step learns, and what stays as it is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch_geometric.data import Batch

from egnn_prune.data.collation import held
from egnn_prune.training import (
    LOSSES,
    FitSettings,
    ForceLosses,
    LearningCurve,
    PotentialLosses,
    RegressionTask,
    fit,
    graph_batches,
)

FORCES = {"forces": ForceLosses(2.0), "potential": PotentialLosses()}


@pytest.mark.parametrize("name", [*LOSSES, *FORCES])
def test_a_loss_is_multiplied(name, make_property_model, make_batch, assert_close):
    batch = make_batch(5, 4, 3)
    batch.forces = torch.randn(12, 3, generator=torch.Generator().manual_seed(2)).to(batch.pos)
    model, losses = make_property_model(cutoff=4.0), {**LOSSES, **FORCES}[name]
    plain = losses(model, batch)
    weights = torch.tensor([0.0, 1.0, 2.5], dtype=torch.float64)
    batch.config_weight = torch.ones_like(weights)
    assert torch.equal(losses(model, batch), plain)
    batch.config_weight = weights
    found = losses(model, batch)
    assert found.dtype == plain.dtype
    assert_close(found, plain * weights.to(plain.dtype))


def learned(model, graphs, val, losses=LOSSES["faithful"]) -> tuple[list[torch.Tensor], list]:
    """The weights after some steps of all graphs, and the errors at each look."""
    model, curve = copy.deepcopy(model), LearningCurve()
    torch.manual_seed(0)
    fit(
        RegressionTask(model, FitSettings(4, 0.02, clip=0.0)),
        graph_batches(graphs, len(graphs)),
        held(val, 10),
        device=torch.device("cpu"),
        callbacks=[curve],
    )
    looks = [row["val_mae"] for row in curve.rows if row.get("val_mae") is not None]
    return [w.detach().double() for w in model.parameters()], looks


def weighing(graphs, *weights: float) -> list:
    found = []
    for graph, weight in zip(graphs, weights, strict=True):
        graph = copy.copy(graph)
        graph.config_weight = torch.tensor([weight], dtype=torch.float64)
        found.append(graph)
    return found


def test_a_weight_is_a_number_of_copies(model, graphs):
    """Two copies of one graph beside one of another: the same step as the weights 2 and 1."""
    a, b, other = graphs[0][:3]
    copies, _ = learned(model.double(), [a, a, b, other], graphs[1])
    some = weighing([a, b, other], 3 / 2, 3 / 4, 3 / 4)  # a third of these is 1/2, 1/4, 1/4
    weighted, _ = learned(model.double(), some, graphs[1])
    for found, wanted in zip(weighted, copies, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)
    plain, _ = learned(model.double(), [a, b, other], graphs[1])
    assert any((x - y).abs().max() > 1e-3 for x, y in zip(plain, copies, strict=True))


def test_what_weighs_nothing_teaches_nothing(model, graphs):
    a, b, c = graphs[0][:3]
    wrong = copy.copy(c)
    wrong.y = c.y + 1e3
    first, _ = learned(model, weighing([a, b, c], 1.0, 1.0, 0.0), graphs[1])
    again, _ = learned(model, weighing([a, b, wrong], 1.0, 1.0, 0.0), graphs[1])
    other, _ = learned(model, weighing([a, b, wrong], 1.0, 1.0, 0.1), graphs[1])
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


def test_errors_of_validation_count_all_alike(model, graphs):
    some, val = list(graphs[0][:4]), list(graphs[1])
    _, looks = learned(model, some, val)
    _, weighed = learned(model, some, weighing(val, *(0.1 * k for k in range(len(val)))))
    assert looks == weighed and len(looks) == 4


def test_weights_of_one_change_no_bit(model, graphs):
    some = list(graphs[0][:4])
    plain, looks = learned(model, some, graphs[1])
    ones, same = learned(model, weighing(some, 1.0, 1.0, 1.0, 1.0), graphs[1])
    assert all(map(torch.equal, plain, ones)) and looks == same


def test_batches_carry_weights_wherever_pyg_makes_them(graphs):
    some = weighing(graphs[0][:2], 0.5, 2.0)
    assert Batch.from_data_list(some).config_weight.tolist() == [0.5, 2.0]
