"""Energies and forces learned together."""

import copy

import pytest
import torch
from torch.nn import functional as F
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from egnn_prune.errors import ConfigError, DataError
from egnn_prune.models import forces
from egnn_prune.training import FitSettings, ForceLosses, RegressionTask, fit, graph_batches
from egnn_prune.training.force_loss import HUBER_BETA
from egnn_prune.uncertainty import DeepEnsemble


@pytest.fixture
def batch(make_batch):
    batch = make_batch(5, 4, 3)
    batch.forces = torch.randn(12, 3, generator=torch.Generator().manual_seed(2)).to(batch.pos)
    return batch


def test_the_force_term_is_hubers_function_of_the_exact_gradient(
    make_property_model, batch, assert_close
):
    model = make_property_model(members=3, cutoff=4.0)
    difference = ForceLosses(3.0)(model, batch) - ForceLosses(1.0)(model, batch)
    wrong = forces(model, batch) - batch.forces
    huber = F.smooth_l1_loss(wrong, torch.zeros_like(wrong), beta=HUBER_BETA, reduction="none")
    first = huber[:5].mean()
    assert_close(difference[0], 2 * first.to(difference.dtype), 1e-4)


def test_scale_divides_forces_as_it_divides_energies(make_property_model, batch, assert_close):
    from dataclasses import replace

    model = make_property_model()
    larger = copy.deepcopy(model)
    larger.scale = replace(model.scale, scale=7.0)
    scaled = copy.copy(batch)
    scaled.y, scaled.forces = 7 * batch.y, 7 * batch.forces
    assert_close(ForceLosses(2.0)(larger, scaled), ForceLosses(2.0)(model, batch), 1e-4)


def test_gradients_reach_the_weights_through_the_forces_alone(make_property_model, batch):
    model = make_property_model(cutoff=4.0).train()
    difference = (ForceLosses(2.0)(model, batch) - ForceLosses(1.0)(model, batch)).sum()
    difference.backward()
    weight = model.trunk.layers[0].edge_in.weight.grad
    assert weight is not None and weight.abs().max() > 0


def test_without_gradients_the_numbers_are_the_same_and_carry_no_graph(make_property_model, batch):
    model = make_property_model()
    kept = ForceLosses(2.0)(model, batch)
    with torch.no_grad():
        bare = ForceLosses(2.0)(model, batch)
    assert kept.requires_grad and not bare.requires_grad
    assert torch.allclose(kept, bare)
    assert not batch.pos.requires_grad  # the caller's batch is left alone


def test_an_ensemble_is_trained_on_its_mean_force(make_property_model, batch):
    ensemble = DeepEnsemble([make_property_model(), make_property_model()])
    assert ForceLosses(1.0)(ensemble, batch).shape == (3,)


def harmonic(count: int) -> list[Data]:
    """Diatomics on a spring: E = (r - 1)^2, with its exact forces."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        r = 0.7 + 0.6 * torch.rand(1, generator=generator, dtype=torch.float64)
        pos = torch.tensor([[0.0, 0, 0], [1.0, 0, 0]], dtype=torch.float64) * r
        pull = -2 * (r - 1)
        slope = torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]], dtype=torch.float64) * pull
        found.append(Data(z=torch.tensor([1, 1]), pos=pos, y=(r - 1) ** 2, forces=slope))
    return found


def test_a_fit_learns_forces(make_property_model, dtype):
    if dtype == torch.float64:
        pytest.skip("one precision is enough to learn")
    graphs = harmonic(40)
    model = make_property_model(hidden=24, cutoff=3.0, radial=12)

    def error():
        return max(float((forces(model, g) - g.forces).abs().max()) for g in graphs[:8])

    before = error()
    task = RegressionTask(model, FitSettings(200, 5e-3, weight_decay=0.0), ForceLosses(10.0))
    fit(task, graph_batches(graphs, 10), DataLoader(graphs[:5], 40), device=torch.device("cpu"))
    assert error() < 0.25 * before


def test_bad_input_is_one_sentence(make_property_model, batch):
    with pytest.raises(ConfigError, match="force_weight must be positive"):
        ForceLosses(0.0)
    del batch.forces
    with pytest.raises(DataError, match="force_weight=0"):
        ForceLosses(1.0)(make_property_model(), batch)
