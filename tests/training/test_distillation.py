"""Labels of a teacher, and structures made up for it to label."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from small_potentials import labelled, potential, water
from torch_geometric.data import Batch, Data

from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.models import energy_and_forces
from egnn_prune.models.forces import energy_forces_stress
from egnn_prune.training import FeatureLosses, PotentialLosses, augmented, label
from egnn_prune.training.distillation import distances, has_pairs_within, smallest_distance


def mixed() -> list[Data]:
    """Molecules and crystals by turns, one of them periodic in two directions only."""
    graphs = [water(seed=k, cell=4.0 if k % 2 else 0.0) for k in range(5)]
    graphs.append(water(seed=5, cell=6.0))
    graphs[5].pbc = torch.tensor([[True, True, False]])
    return graphs


def test_labels_are_the_teachers_own_numbers(dtype, tolerance):
    teacher, graphs = potential(dtype).train(), mixed()
    found = label(teacher, graphs, batch_size=2)
    assert teacher.training  # as it was
    teacher.eval()
    for number, (graph, out) in enumerate(zip(graphs, found, strict=True)):
        batch = Batch.from_data_list([graph])
        prediction, forces = energy_and_forces(teacher, batch)
        torch.testing.assert_close(out.y, prediction.mean, rtol=0, atol=50 * tolerance)
        torch.testing.assert_close(out.forces, forces.double(), rtol=0, atol=50 * tolerance)
        assert out.y.dtype == out.forces.dtype == torch.float64
        assert torch.equal(out.pos, graph.pos) and graph.get("y") is None
        if number in (1, 3):
            stress = energy_forces_stress(teacher, batch)[2].double()
            torch.testing.assert_close(out.stress, stress, rtol=0, atol=50 * tolerance)
        else:
            assert out.get("stress") is None


def test_labels_replace_those_that_were_there():
    graph = labelled(water(cell=4.0), energy=7.0)
    graph.pbc = torch.zeros(1, 3, dtype=torch.bool)
    (found,) = label(potential(), [graph])
    assert float(found.y) < -11000 and not torch.equal(found.forces, graph.forces)
    assert found.get("stress") is None and float(graph.y) == 7.0


def test_labels_that_are_not_finite_name_the_structure():
    class Broken(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = potential()

        def forward(self, batch):
            prediction = self.inner(batch)
            far = batch.pos[::3, 0] > 50
            mean = torch.where(far, math.nan, prediction.mean)
            return type(prediction).from_members(mean[None])

    graphs = [water(seed=k) for k in range(3)]
    graphs[1].pos += 100.0
    with pytest.raises(InputError, match="y of structure 1 is NaN"):
        label(Broken(), graphs)
    with pytest.raises(ConfigError, match="1 or more at a time"):
        label(potential(), graphs, 0)
    assert label(potential(), []) == []


def test_copies_are_the_same_for_the_same_seed():
    graphs = [water(seed=1), water(seed=2, cell=5.0)]
    first, second, other = (augmented(graphs, seed=s) for s in (3, 3, 4))
    assert len(first) == 2 + 3 + 4  # rattled three times each; one is periodic
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.pos, b.pos)
    assert all(torch.equal(a.pos, b.pos) for a, b in zip(first[:2], graphs, strict=True))
    assert not torch.equal(first[2].pos, other[2].pos)
    alone = augmented(graphs[:1], seed=3, closest=0.0)
    assert torch.equal(alone[1].pos, first[2].pos)  # whatever else is in the list


def test_rattles_have_their_sizes():
    graph = water()
    found = augmented([graph], rattles=(0.01, 0.04), copies=300, closest=0.0)
    for part, size in ((found[1:301], 0.01), (found[301:], 0.04)):
        moved = torch.stack([copied.pos - graph.pos for copied in part])
        assert float(moved.std()) == pytest.approx(size, rel=0.05)


def test_cells_are_strained_with_the_positions():
    graph = water(cell=5.0)
    graph.pos[2] += 4.0  # another image
    found = augmented([graph], rattles=(), strains=20, largest_strain=0.05, closest=0.0)[1:]
    assert len(found) == 20
    fractional = graph.pos @ torch.linalg.inv(graph.cell[0])
    for copied in found:
        back = copied.pos @ torch.linalg.inv(copied.cell[0])
        torch.testing.assert_close(back, fractional)
        strain = copied.cell[0] / 5.0 - torch.eye(3, dtype=torch.float64)
        torch.testing.assert_close(strain, strain.mT)
        assert 0 < float(strain.abs().max()) <= 0.05
    largest = max(float((c.cell[0] / 5.0 - torch.eye(3)).abs().max()) for c in found)
    assert largest > 0.04
    assert len(augmented([water()], rattles=(), strains=5)) == 1  # molecules are not strained


def test_no_copy_has_atoms_closer_than_allowed():
    graphs = [water(seed=k, cell=c) for k, c in ((0, 0.0), (1, 3.5))]
    limit = 0.6 * smallest_distance(graphs)
    found = augmented(graphs, rattles=(0.4,), copies=100, strains=0)
    everything = augmented(graphs, rattles=(0.4,), copies=100, strains=0, closest=0.0)
    assert 2 < len(found) < len(everything) == 202
    assert min(float(distances(g, 5.0).min()) for g in found) >= limit
    assert min(float(distances(g, 5.0).min()) for g in everything) < limit


def test_the_smallest_distance_sees_periodic_images():
    graph = Data(z=torch.tensor([1]), pos=torch.zeros(1, 3).double())
    assert smallest_distance([graph]) == 0.0 and not has_pairs_within(graph, 5.0)
    graph.cell = 2.0 * torch.eye(3, dtype=torch.float64)[None]
    graph.pbc = torch.ones(1, 3, dtype=torch.bool)
    assert smallest_distance([graph]) == pytest.approx(2.0)
    assert has_pairs_within(graph, 2.1) and not has_pairs_within(graph, 1.9)


def test_labels_and_edges_of_another_geometry_do_not_come_along():
    graph = labelled(water(cell=4.0))
    graph.edge_index = torch.tensor([[0], [1]])
    for copied in augmented([copy.copy(graph)]):
        assert sorted(copied.keys()) == ["cell", "pbc", "pos", "z"]


def test_bad_input_is_one_sentence():
    with pytest.raises(ConfigError, match="rattles must be positive"):
        augmented([water()], rattles=(-1.0,))
    with pytest.raises(ConfigError, match="largest strain"):
        augmented([water()], largest_strain=1.5)
    with pytest.raises(DataError, match="no structures to be augmented"):
        augmented([])


def test_features_are_drawn_to_the_teachers():
    teacher, student = potential(), potential(seed=1, copies=2)
    batch = Batch.from_data_list(label(teacher, [water(seed=k) for k in range(3)]))
    assert FeatureLosses(teacher, 2.0)(teacher, batch).abs().max() < 1e-20
    found = FeatureLosses(teacher, 2.0)(student, batch) - PotentialLosses()(student, batch)
    with torch.no_grad():
        wrong = student.last_layer(batch)[0] - teacher.last_layer(batch)[0]
    torch.testing.assert_close(found, 2 * wrong.square().mean(1) / 3)
    found.sum().backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in student.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    with pytest.raises(ConfigError, match="weight of the features must be positive"):
        FeatureLosses(teacher, 0.0)
    with pytest.raises(ConfigError, match="Linear has no last_layer"):
        FeatureLosses(torch.nn.Linear(1, 1), 1.0)
