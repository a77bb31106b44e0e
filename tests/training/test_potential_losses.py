"""Energies, forces and stresses of a potential in one loss."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from small_potentials import labelled, potential, water
from torch_geometric.data import Batch, Data

from egnn_prune.errors import ConfigError, DataError
from egnn_prune.graphs import graph_of_node
from egnn_prune.models import energy_and_forces
from egnn_prune.models.forces import energy_forces_stress
from egnn_prune.prediction import Prediction
from egnn_prune.training import PotentialLosses
from egnn_prune.training.potential_loss import check_labels, check_one_kind


class Springs(torch.nn.Module):
    """E = k/2 sum of squared coordinates in a graph, so F = -k x and the virial is k sum x x^T."""

    def __init__(self, k: float) -> None:
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor(k, dtype=torch.float64))

    def forward(self, batch: Batch) -> Prediction:
        energy = 0.5 * self.k * batch.pos.square().sum(1)
        total = energy.new_zeros(batch.num_graphs).index_add(0, graph_of_node(batch), energy)
        return Prediction.from_members(total[None])


def on_springs() -> tuple[Batch, list[Data]]:
    """Labels of k = 2."""
    graphs = [water(seed=seed, cell=5.0) for seed in range(2)]
    for graph in graphs:
        graph.y = graph.pos.square().sum().view(1)
        graph.forces = -2 * graph.pos
        graph.stress = (2 * graph.pos.T @ graph.pos / 125.0)[None]
        graph.edge_index, graph.edge_shift = torch.tensor([[1], [0]]), torch.zeros(1, 3).double()
    return Batch.from_data_list(graphs), graphs


def test_a_loss_known_in_closed_form():
    batch, graphs = on_springs()
    found = PotentialLosses(0.3, 0.7, 0.2)(Springs(3.0), batch)
    for loss, graph in zip(found.tolist(), graphs, strict=True):
        squares = graph.pos.square()
        energy = (0.5 * float(squares.sum())) ** 2 / 3
        force = float(squares.mean())
        virial = float((graph.pos.T @ graph.pos).square().mean()) / 3
        assert loss == pytest.approx(0.3 * energy + 0.7 * force + 0.2 * virial, rel=1e-12)
    assert PotentialLosses(0.3, 0.7, 0.2)(Springs(2.0), batch).abs().max() < 1e-24


def test_hubers_function_is_the_square_for_small_errors_and_linear_beyond():
    batch, _ = on_springs()
    springs = Springs(3.0)
    square = PotentialLosses(0.3, 0.7)(springs, batch)
    assert torch.equal(PotentialLosses(0.3, 0.7, huber=1e3)(springs, batch), square)
    small, smaller = (PotentialLosses(0, 1, huber=d)(springs, batch) for d in (1e-6, 0.5e-6))
    torch.testing.assert_close(small, 2 * smaller, rtol=1e-3, atol=0)


def test_stress_counts_only_where_it_is_weighted_and_known():
    batch, _ = on_springs()
    without = copy.copy(batch)
    del without.stress
    plain = PotentialLosses(0.3, 0.7)(Springs(3.0), batch)
    assert torch.equal(PotentialLosses(0.3, 0.7, 5.0)(Springs(3.0), without), plain)
    assert bool((PotentialLosses(0.3, 0.7, 5.0)(Springs(3.0), batch) > plain).all())


def test_the_gradient_by_the_weights_is_that_of_finite_differences():
    model = potential()
    graphs = [labelled(water(seed=seed, cell=4.0), energy=-11012.0) for seed in range(2)]
    batch = Batch.from_data_list(graphs)
    losses = PotentialLosses(0.5, 1.0, 0.3)
    assert not model.training  # scores of channels need this gradient in evaluation mode
    loss = losses(model, batch).sum()
    weights = list(model.parameters())
    slopes = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    generator = torch.Generator().manual_seed(1)
    ways = [torch.randn(w.shape, generator=generator, dtype=torch.float64) for w in weights]
    values = []
    with torch.no_grad():
        for step in (1e-5, -2e-5):
            for weight, way in zip(weights, ways, strict=True):
                weight += step * way
            values.append(float(losses(model, batch).sum()))
    expected = (values[0] - values[1]) / 2e-5
    slope = sum(float((s * w).sum()) for s, w in zip(slopes, ways, strict=True))
    assert abs(expected) > 1e-3
    assert slope == pytest.approx(expected, rel=1e-6)


def test_the_stress_in_the_loss_is_that_of_finite_strains():
    model, graph = potential(), labelled(water(cell=4.0))
    batch = Batch.from_data_list([graph])
    numeric = torch.zeros(3, 3, dtype=torch.float64)
    for i in range(3):
        for j in range(3):
            energies = []
            for step in (1e-5, -1e-5):
                strain = torch.eye(3, dtype=torch.float64)
                strain[i, j] += step / 2
                strain[j, i] += step / 2
                moved = Data(z=graph.z, pos=graph.pos @ strain, cell=graph.cell @ strain)
                moved.pbc = graph.pbc
                with torch.no_grad():
                    energies.append(float(model(Batch.from_data_list([moved])).mean))
            numeric[i, j] = (energies[0] - energies[1]) / 2e-5 / 64.0
    assert numeric.abs().max() > 1e-4
    torch.testing.assert_close(
        energy_forces_stress(model, batch)[2][0], numeric, rtol=1e-4, atol=1e-8
    )
    difference = PotentialLosses(0, 1, 2.0)(model, batch) - PotentialLosses(0, 1)(model, batch)
    expected = 2.0 * (64.0 * (numeric - graph.stress[0])).square().mean() / 3
    torch.testing.assert_close(difference[0], expected, rtol=1e-4, atol=0)


def test_energies_near_seventeen_thousand_electronvolts_keep_their_digits(dtype):
    model, graph = potential(dtype), labelled(water())
    batch = Batch.from_data_list([graph])
    prediction, forces = energy_and_forces(model, batch)
    batch.y, batch.forces = prediction.mean - 1e-4, forces
    (loss,) = PotentialLosses(1.0, 0.0)(model, batch).tolist()
    assert math.sqrt(3 * loss) == pytest.approx(1e-4, rel=1e-4 if dtype == torch.float64 else 0.02)


def test_without_gradients_nothing_is_kept():
    batch = Batch.from_data_list([labelled(water())])
    with torch.no_grad():
        assert not PotentialLosses()(potential(), batch).requires_grad
    assert PotentialLosses()(potential(), batch).requires_grad
    assert not batch.pos.requires_grad


def test_bad_input_is_one_sentence():
    with pytest.raises(ConfigError, match="weights of energies, forces and stresses"):
        PotentialLosses(-1.0)
    with pytest.raises(ConfigError, match="one of the first two positive"):
        PotentialLosses(0.0, 0.0, 1.0)
    graph = labelled(water())
    model = potential()
    for name, message in (("forces", r"needs forces \[atoms, 3\]"), ("y", r"one energy y \[1\]")):
        lacking = copy.copy(graph)
        del lacking[name]
        with pytest.raises(DataError, match=message):
            PotentialLosses()(model, Batch.from_data_list([lacking]))
        with pytest.raises(DataError, match=f"training structure 1: .*{message}"):
            check_labels([graph, lacking])
    broken = copy.copy(graph)
    broken.forces = graph.forces * math.nan
    with pytest.raises(DataError, match="forces of validation structure 1 hold a NaN"):
        check_labels([graph, broken], "validation")
    with pytest.raises(DataError, match="training structure 1 has a cell and structure 0 has none"):
        check_one_kind([graph, labelled(water(cell=4.0))])
    with pytest.raises(DataError, match="there are no training structures"):
        check_labels([])
