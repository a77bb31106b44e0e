"""Structures that are unlike the training ones: what was changed, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from egnn_prune.ase.structures import graph_of
from egnn_prune.studies.out_of_distribution_structures import (
    bonds,
    broken,
    changed,
    cluster,
    of_a_new_species,
    other_molecules,
    pieces,
    stretched,
    vacancy,
)
from egnn_prune.studies.specialisation_systems import water_box

ETHANOL = graph_of(molecule("CH3CH2OH"))


def draws(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(5))
def test_one_bond_is_stretched_and_all_others_keep_their_length(seed):
    made = stretched(ETHANOL, draws(seed))
    pairs, before = bonds(ETHANOL)
    after = made.graph.pos[pairs[1]] - made.graph.pos[pairs[0]]
    ratio = after.norm(dim=1) / before.norm(dim=1)
    longer = ratio > 1.0001
    assert int(longer.sum()) == 2  # both ways
    assert 1.15 <= float(ratio.max()) <= 1.4
    assert torch.allclose(ratio[~longer], torch.ones(1, dtype=ratio.dtype))
    ends = pairs[0][longer]
    assert bool(made.atoms[ends].all()) and not bool(made.atoms.all())


def test_rings_have_no_bond_to_stretch_but_what_hangs_on_them_has():
    benzene = graph_of(molecule("C6H6"))
    for seed in range(5):
        moved = stretched(benzene, draws(seed)).graph.pos != benzene.pos
        assert int(moved.any(1).sum()) == 1 and int(benzene.z[moved.any(1)]) == 1
    assert stretched(graph_of(bulk("Si") * (2, 2, 2)), draws()) is None


def test_a_hydrogen_leaves_for_a_place_away_from_all_others():
    made = broken(ETHANOL, draws())
    (moved,) = (made.graph.pos - ETHANOL.pos).norm(dim=1).nonzero().flatten()
    assert int(ETHANOL.z[moved]) == 1 and bool(made.atoms[moved])
    assert float((made.graph.pos - ETHANOL.pos)[moved].norm()) == pytest.approx(2.0)
    others = torch.arange(len(ETHANOL.z)) != moved
    assert float((made.graph.pos[others] - made.graph.pos[moved]).norm(dim=1).min()) > 1.5


def test_a_crystal_loses_an_atom_and_a_liquid_a_molecule():
    crystal = graph_of(bulk("Si") * (3, 3, 3))
    made = vacancy(crystal, draws())
    assert len(made.graph.pos) == len(crystal.pos) - 1
    assert int(made.atoms.sum()) == 4  # an atom of diamond has four neighbours, through the cell
    box = graph_of(water_box(2))
    less = vacancy(box, draws())
    assert len(less.graph.pos) == len(box.pos) - 3
    gone = [int((box.z == z).sum() - (less.graph.z == z).sum()) for z in (1, 8)]
    assert gone == [2, 1] and 0 < int(less.atoms.sum()) < len(less.atoms)


@pytest.mark.parametrize("seed", range(4))
def test_molecules_of_a_cluster_are_whole_and_apart(seed):
    made = cluster(ETHANOL, draws(seed))
    assert len(made.graph.pos) == 18
    gap = torch.cdist(made.graph.pos[:9], made.graph.pos[9:]).min()
    assert 2.9 < float(gap) < 5.1
    first, second = (torch.cdist(part, part) for part in made.graph.pos.split(9))
    assert torch.allclose(first, second, atol=1e-9)
    assert int(pieces(18, bonds(made.graph)[0]).max()) == 1  # two of them


def test_isomers_have_the_same_atoms_and_other_bonds():
    found = other_molecules([1, 6, 8], ETHANOL, 6, 0)
    assert len(found["isomer"]) == len(found["other molecule"]) == 6
    for one in found["isomer"]:  # dimethyl ether
        assert sorted(one.graph.z.tolist()) == sorted(ETHANOL.z.tolist())
        pairs, _ = bonds(one.graph)
        oxygen = int((one.graph.z == 8).nonzero())
        assert one.graph.z[pairs[1][pairs[0] == oxygen]].tolist() == [6, 6]
    for one in found["other molecule"]:
        assert set(one.graph.z.tolist()) <= {1, 6, 8} and one.atoms is None
        assert sorted(one.graph.z.tolist()) != sorted(ETHANOL.z.tolist())
    assert "isomer" not in other_molecules([14], graph_of(bulk("Si") * (2, 2, 2)), 2, 0)


def test_changes_draw_each_structure_once_and_do_not_touch_it():
    graphs = [ETHANOL.clone() for _ in range(3)]
    made = changed(stretched, graphs, 2, 0)
    assert len(made) == 2
    assert all(torch.equal(graph.pos, ETHANOL.pos) for graph in graphs)
    again = changed(stretched, graphs, 2, 0)
    assert all(torch.equal(a.graph.pos, b.graph.pos) for a, b in zip(made, again, strict=True))


def test_a_new_species_is_new():
    assert int(of_a_new_species(ETHANOL, [1, 6, 8]).z[0]) == 9
    assert int(of_a_new_species(ETHANOL, [1, 6, 8, 9]).z[0]) == 17
