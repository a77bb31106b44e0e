"""Frames of a teacher's dynamics at several temperatures."""

from __future__ import annotations

import pytest
import torch
from small_potentials import potential, water
from torch import nn
from torch_geometric.data import Batch, Data

from egnn_prune.ase.sampling import atoms_of, dynamics_frames
from egnn_prune.ase.structures import graph_of
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.graphs import graph_of_node
from egnn_prune.models.property_model import PropertyModel
from egnn_prune.prediction import Prediction
from egnn_prune.training.distillation import distances


class Springs(PropertyModel):
    """Every pair of atoms on a spring of 1 Angstrom, in place of what the network says."""

    strength = 5.0

    def forward(self, batch: Batch, samples: int = 1) -> Prediction:
        batch = self.prepared(batch)
        source, target = batch.edge_index
        length = (batch.pos[source] - batch.pos[target]).norm(dim=1)
        energy = 0.25 * self.strength * (length - 1).square()
        graphs = int(graph_of_node(batch).max()) + 1
        total = energy.new_zeros(graphs).index_add(0, graph_of_node(batch)[target], energy)
        return Prediction.from_members(total[None])


def springs(strength: float = 5.0) -> nn.Module:
    model = potential()
    model.__class__ = Springs
    model.strength = strength
    return model


def test_frames_are_the_same_for_the_same_seed_and_hotter_ones_move_more():
    start = water(shake=0.0)
    start.pos = torch.tensor([[0, 0, 0], [1, 0, 0], [0.5, 0.75**0.5, 0]]).double()  # at rest
    options = {"kelvin": (50.0, 800.0), "steps": 40, "interval": 10}
    first, second, other = (
        dynamics_frames(springs(), [start], **options, seed=seed) for seed in (1, 1, 2)
    )
    assert len(first) == 8
    assert all(torch.equal(a.pos, b.pos) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0].pos, other[0].pos)
    away = [float((distances(g, 5.0) - 1).abs().mean()) for g in first]
    assert sum(away[:4]) < sum(away[4:])
    assert sorted(first[0].keys()) == ["pos", "z"]


def test_periodic_structures_keep_their_cell():
    start = water(shake=0.0, cell=6.0)
    found = dynamics_frames(potential(), [start], kelvin=(300.0,), steps=6, interval=3)
    assert len(found) == 2
    assert torch.equal(found[0].cell, start.cell) and bool(found[0].pbc.all())


def test_a_run_ends_where_atoms_come_too_close_or_it_explodes():
    start = water(shake=0.0)
    options = {"kelvin": (300.0,), "steps": 40, "interval": 10}
    assert dynamics_frames(springs(), [start], **options, closest=2.0) == []
    wild = dynamics_frames(springs(-1e4), [start], **options)  # pushes atoms away without end
    assert wild == []


def test_single_atoms_have_no_dynamics_and_graphs_become_structures_again():
    atom = Data(z=torch.tensor([8]), pos=torch.zeros(1, 3).double())
    assert dynamics_frames(potential(), [atom], steps=5) == []
    graph = water(cell=4.0)
    again = graph_of(atoms_of(graph))
    for name in ("z", "pos", "cell", "pbc"):
        assert torch.equal(again[name], graph[name])


def test_bad_input_is_one_sentence():
    with pytest.raises(ConfigError, match="positive temperatures"):
        dynamics_frames(potential(), [water()], kelvin=())
    with pytest.raises(ConfigError, match="positive temperatures"):
        dynamics_frames(potential(), [water()], steps=0)
    with pytest.raises(DataError, match="no structures to start"):
        dynamics_frames(potential(), [])
