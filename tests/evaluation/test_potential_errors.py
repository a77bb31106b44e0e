"""Errors, symmetry and cost of potentials on structures with labels."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from small_potentials import potential, water
from torch import nn
from torch_geometric.data import Batch, Data

from egnn_prune.errors import ConfigError, DataError
from egnn_prune.evaluation.potential_errors import (
    batch_of_atoms,
    force_symmetry,
    potential_errors,
    potential_latency,
    potential_memory,
    reference_arrays,
)
from egnn_prune.graphs import graph_of_node
from egnn_prune.models import energy_and_forces
from egnn_prune.prediction import Prediction
from egnn_prune.training import label


def test_errors_are_those_that_were_put_in():
    model = potential()
    graphs = label(model, [water(seed=k, cell=4.0 if k < 2 else 0.0) for k in range(4)])
    for k, graph in enumerate(graphs):
        graph.y = graph.y + 3e-3 * k  # 0 to 3 meV/atom
        graph.forces[0, 0] += 0.09
        if k == 0:
            graph.stress[0, 1, 1] -= 0.003
    errors, arrays = potential_errors(model, graphs, batch_size=2)
    assert errors == pytest.approx(
        {
            "force_rmse_mev_per_angstrom": 90 / 3,
            "force_mae_mev_per_angstrom": 90 / 9,
            "energy_mae_mev_per_atom": 1.5,
            "energy_rmse_mev_per_atom": (14 / 4) ** 0.5,
            "stress_rmse_mev_per_angstrom3": 3 / 18**0.5,
        },
        rel=1e-6,
    )
    reference = reference_arrays(graphs)
    assert reference["atoms"].tolist() == [3] * 4 and reference["z"].shape == (12,)
    assert np.array_equal(reference["pos"], np.concatenate([g.pos.numpy() for g in graphs]))
    assert reference["cell"].shape == (4, 3, 3) and "frame" not in reference
    assert np.array_equal(reference["cell"][1], 4 * np.eye(3)) and not reference["cell"][2].any()
    assert arrays["energy"].dtype == np.float64
    wrong = arrays["forces"] - reference["forces_reference"]
    assert 1000 * np.sqrt((wrong**2).mean()) == pytest.approx(30, rel=1e-6)
    assert np.abs(arrays["energy"] - reference["energy_reference"]).max() < 0.01


def test_without_a_reference_stress_there_is_no_error_of_it():
    model = potential()
    errors, _ = potential_errors(model, label(model, [water()]))
    assert errors["stress_rmse_mev_per_angstrom3"] is None
    assert errors["force_rmse_mev_per_angstrom"] == pytest.approx(0, abs=1e-9)


class Handed(nn.Module):
    """E is the triple product of the atoms' distances to the first: its mirror image is -E."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, batch: Batch) -> Prediction:
        heavy = (batch.z[:, None, None] == torch.tensor([8, 7, 6, 1])[:, None]).double()
        graph, graphs = graph_of_node(batch), int(graph_of_node(batch).max()) + 1
        placed = heavy * batch.pos[:, None]  # one atom of each element in every graph
        a, b, c, d = placed.new_zeros(graphs, 4, 3).index_add(0, graph, placed).unbind(1)
        energy = (torch.linalg.cross(b - a, c - a) * (d - a)).sum(1)
        return Prediction.from_members(self.weight * energy[None])


def test_turns_and_mirrors_are_measured_apart():
    graph = Data(z=torch.tensor([8, 7, 6, 1]), pos=torch.randn(4, 3, dtype=torch.float64))
    handed = force_symmetry(Handed(), [graph, graph])
    assert handed["equivariance_error"] < 1e-12
    assert handed["reflection_error"] > 0.5
    ours = force_symmetry(potential(), [water(seed=k, cell=4.0) for k in range(2)])
    assert max(ours.values()) < 1e-10
    # in units of a hundredth of the largest component
    largest = float(
        energy_and_forces(Handed().eval(), Batch.from_data_list([graph]))[1].abs().max()
    )
    scaled = force_symmetry(Handed(), [graph, graph], scale=0.01 * largest)
    assert scaled["reflection_error"] == pytest.approx(100 * handed["reflection_error"])


class Slow(nn.Module):
    """A network that takes some milliseconds more."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = potential(), 0

    def forward(self, batch: Batch) -> Prediction:
        self.calls += 1
        time.sleep(0.03)
        return self.inner(batch)


def test_latency_is_of_energies_and_forces_and_models_take_turns():
    fast, slow = potential().train(), Slow()
    batch = batch_of_atoms([water(seed=k) for k in range(2)], atoms=10)
    times = potential_latency({"fast": fast, "slow": slow}, batch, repeats=3, warmup=1)
    assert times["slow"] > 30 and 0 < times["fast"] < times["slow"]
    assert slow.calls == 4 and slow.training and fast.training
    potential_latency({"fast": fast}, batch, repeats=1, warmup=1, neighbours=True)
    with pytest.raises(ConfigError, match="1 or more passes"):
        potential_latency({"fast": fast}, batch, repeats=0)


def test_lists_of_neighbours_are_searched_in_the_time_only_if_asked(monkeypatch):
    searches = []
    import egnn_prune.graphs.edges as edges

    found = edges.neighbours
    monkeypatch.setattr(edges, "neighbours", lambda *a: searches.append(1) or found(*a))
    batch = batch_of_atoms([water(cell=4.0)])
    counts = []
    for asked in (False, True):
        searches.clear()
        potential_latency({"a": potential()}, batch, repeats=3, warmup=1, neighbours=asked)
        counts.append(len(searches))
    assert counts == [1, 4]


def test_batches_hold_enough_atoms_of_one_kind():
    graphs = [water(seed=1), water(seed=2, cell=4.0), water(seed=3)]
    batch = batch_of_atoms(graphs, atoms=13)
    assert batch.num_graphs == 5 and batch.get("cell") is None
    assert torch.equal(batch.pos[3:6], graphs[2].pos) and torch.equal(batch.pos[6:9], graphs[0].pos)
    assert batch_of_atoms(graphs).num_graphs == 1
    with pytest.raises(DataError, match="no structures to be measured"):
        batch_of_atoms([])


def test_memory_grows_with_the_structures_and_the_network():
    small, large = batch_of_atoms([water()], 12), batch_of_atoms([water()], 48)
    needed = [potential_memory(potential(copies=8), batch) for batch in (small, large)]
    assert needed[1] == pytest.approx(4 * needed[0], rel=0.1)
    assert potential_memory(potential(copies=2), large) < needed[1]


def test_bad_labels_are_one_sentence():
    with pytest.raises(DataError, match=r"test structure 0: .*needs one energy"):
        potential_errors(potential(), [water()])
