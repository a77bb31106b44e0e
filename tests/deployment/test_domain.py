"""What is unlike the training structures, whatever a model says of it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from torch_geometric.data import Data
from trained_models import ethanol

from egnn_prune import data
from egnn_prune.ase.structures import graph_of
from egnn_prune.deployment.training_domain import TrainingDomain
from egnn_prune.errors import InputError


@pytest.fixture(scope="module")
def of_ethanol() -> TrainingDomain:
    return TrainingDomain.of([graph_of(ethanol(seed=seed)) for seed in range(30)])


def reason(domain: TrainingDomain, atoms: Atoms) -> str:
    found = domain.unlike(graph_of(atoms))
    assert len(found.atoms) == len(atoms) and (found.reason or not found.atoms.any())
    return found.reason


def test_the_ranges_of_one_molecule(of_ethanol):
    assert of_ethanol.size == (9, 9)
    assert of_ethanol.shares["C"] == (2 / 9, 2 / 9)
    low, high = of_ethanol.bonds["C"]["H"]
    assert low == pytest.approx(2, abs=0.1) and high == pytest.approx(3, abs=0.1)
    assert of_ethanol.bonds["O"]["any"] == pytest.approx((2, 2), abs=0.1)
    assert 0.8 < of_ethanol.shortest["H-C"] < 1.1 and "H-H" not in of_ethanol.shortest
    for seed in range(30, 60):
        assert reason(of_ethanol, ethanol(seed=seed)) == ""
    assert all(reason(of_ethanol, ethanol(seed=seed)) == "" for seed in range(30))


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("CO", "it has 2 atoms, in training 9; 50 % of its atoms are C, in training 22"),
        ("H2O", "it has 3 atoms"),
        ("CH3OCH3", r"atom \d \([OC]\) has .* bonds"),  # the isomer: same size, same shares
        ("C6H6", "0 % of its atoms are O, in training 11"),
    ],
)
def test_other_molecules(of_ethanol, name, complaint):

    assert re.search(complaint, reason(of_ethanol, molecule(name)))
    assert "\n" not in reason(of_ethanol, molecule(name))


def test_atoms_that_are_unlike(of_ethanol):
    atoms = ethanol()
    atoms.positions[3] += 3 * (atoms.positions[3] - atoms.positions[2])
    found = of_ethanol.unlike(graph_of(atoms))
    assert found.atoms.nonzero().flatten().tolist() == [2, 3]
    assert "atom 2 (O) has 0.0 bonds to H, in training 1.0, and 1 more atoms" in found.reason
    atoms = ethanol()
    atoms.positions[4] = atoms.positions[1] + 0.7 * (atoms.positions[4] - atoms.positions[1])
    assert "Angstrom from an atom" in reason(of_ethanol, atoms)


def test_a_larger_cell_is_no_other_crystal():
    def shaken(seed: int, copies: int = 1) -> Atoms:
        atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat((copies, 1, 1))
        atoms.positions += 0.05 * np.random.default_rng(seed).normal(size=(len(atoms), 3))
        return atoms

    domain = TrainingDomain.of([graph_of(shaken(seed)) for seed in range(20)])
    assert domain.size is None
    assert reason(domain, shaken(50, 3)) == ""
    missing = shaken(51)
    del missing[1]
    assert "% of its atoms are Cl" in reason(domain, missing)
    slab = shaken(52)
    slab.center(8.0, axis=2)
    assert "bonds" in reason(domain, slab)
    other = TrainingDomain.of([graph_of(ethanol(seed=seed)) for seed in range(30)])
    boxed = ethanol(seed=40)
    boxed.center(6.0)
    boxed.pbc = True
    assert reason(other, boxed) == ""  # a molecule in a box is that molecule


def test_ordinary_structures_are_not_called_outside():
    """Fewer than one in a hundred, without a look at them; of the other kind about half are."""
    xtb = data.load("xtb")
    domain = TrainingDomain.of(xtb.split("train")[:1500])
    inside = [bool(domain.unlike(graph).reason) for graph in xtb.split("test")[:300]]
    outside = [bool(domain.unlike(graph).reason) for graph in xtb.split("ood")[::7]]
    assert np.mean(inside) < 0.01 and np.mean(outside) > 0.3


def test_a_file_brings_the_ranges_back(of_ethanol):
    again = TrainingDomain.from_json(json.loads(json.dumps(of_ethanol.to_json())))
    assert again.size == (9, 9) and set(again.bonds) == {"H", "C", "O"}
    for atoms in (ethanol(seed=80), molecule("CO")):
        assert reason(again, atoms) == reason(of_ethanol, atoms)
    spoiled = of_ethanol.to_json()
    for wrong in ({}, [], "x", {**spoiled, "size": 3}, {**spoiled, "shares": {"C": [1, 0]}}):
        with pytest.raises(InputError, match="says about its training structures is damaged"):
            TrainingDomain.from_json(wrong)


def test_graphs_that_are_no_structures():
    assert TrainingDomain.of([]) is None
    assert TrainingDomain.of([Data(pos=torch.zeros(2, 3))]) is None
    assert TrainingDomain.of([Data(z=torch.ones(2).long(), pos=torch.zeros(2, 2))]) is None
