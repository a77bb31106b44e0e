"""What simulations are compared by, on a cluster whose forces are known (ASE's EMT)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import units
from ase.calculators.emt import EMT
from ase.data import covalent_radii
from ase.optimize import FIRE
from torch_geometric.data import Data

from egnn_prune.studies.questions import observables, survival

SIDE = 2.4 / 2**0.5
COPPER = Data(
    z=torch.full((4,), 29),
    pos=SIDE * torch.tensor([[0.0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1]]),
)


class Scaled(EMT):
    """EMT with its energies and its forces multiplied."""

    def __init__(self, energies: float = 1.0, forces: float = 1.0) -> None:
        super().__init__()
        self.factors = {"energy": energies, "free_energy": energies, "forces": forces}

    def calculate(self, *args, **how) -> None:
        super().calculate(*args, **how)
        for key, factor in self.factors.items():
            self.results[key] = factor * self.results[key]


@pytest.fixture(autouse=True)
def calculators_instead_of_networks(monkeypatch):
    monkeypatch.setattr(observables, "calculator", lambda made: made)


def test_wavenumbers_go_with_the_root_of_the_force_constants():
    soft, hard = (
        observables.wavenumbers(observables.minimum(made, COPPER))
        for made in (EMT(), Scaled(1.21, 1.21))
    )
    assert len(soft) == 3 * 4 - 6 and 50 < soft.min()  # vibrations alone
    np.testing.assert_allclose(hard, 1.1 * soft, rtol=1e-3)


def test_what_is_left_out_of_the_wavenumbers_is_nearest_to_zero():
    """An imaginary mode of a saddle stays, as a negative number; the rigid motions go."""
    square = Data(
        z=COPPER.z, pos=2.3 * torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    )
    atoms = observables.atoms_of(EMT(), square)
    FIRE(atoms, logfile=None).run(fmax=0.001, steps=500)  # symmetry keeps it flat
    found = observables.wavenumbers(atoms)
    assert len(found) == 6 and found[0] < -20 and np.abs(found).min() > 20


def test_without_a_minimum_there_are_no_wavenumbers(monkeypatch):
    monkeypatch.setattr(observables, "RELAXING", 1)
    far = Data(z=COPPER.z, pos=1.2 * COPPER.pos)
    found = observables.observables(EMT(), EMT(), far, steps=40, seed=0)
    assert found.keys() == {"distances", "drift"}


def test_a_potential_agrees_with_itself_but_for_chance():
    found = observables.observables(EMT(), EMT(), COPPER, steps=400, seed=0)
    other = observables.observables(EMT(), Scaled(4, 4), COPPER, steps=400, seed=0)
    assert found["wavenumbers"] == 0 < 50 < other["wavenumbers"]
    assert found["minima"] == 0 < other["minima"] < 0.02  # the same minimum, found less exactly
    assert 0 < found["distances"] < other["distances"]


def test_what_drifts_is_the_energy_that_the_forces_do_not_conserve():
    _, true = observables.simulated(EMT(), COPPER, 400, 0)
    _, wrong = observables.simulated(Scaled(3, 1), COPPER, 400, 0)
    assert abs(true) < 1 < 10 < abs(wrong)


def test_distances_are_of_every_pair_and_frame():
    found, _ = observables.simulated(EMT(), COPPER, 400, 0)
    frames = 300 // observables.EVERY + 1
    assert found.keys() == {(29, 29)} and len(found[29, 29]) == 6 * frames
    assert 2.0 < found[29, 29].min() < found[29, 29].max() < 3.2


def test_a_molecule_is_whole_until_a_bond_is_broken(monkeypatch):
    """Without forces atoms fly on: it is the fastest pair that ends it."""
    monkeypatch.setattr(survival, "RUNS", 1)
    monkeypatch.setattr(survival, "KELVIN", (300, 90_000))
    monkeypatch.setattr(observables, "FRICTION", 1e-9)
    monkeypatch.setattr(survival, "COINCIDE", 0.0)
    row = survival.survival(EMT(), COPPER, 100, 0)
    assert row["ps"] == row["whole_ps"]["300"][0] == 0.05
    assert 0 < row["whole_ps"]["90000"][0] < 0.05
    free = survival.survival(Scaled(0, 0), COPPER, 100, 0)["whole_ps"]["90000"][0]
    atoms = observables.atoms_of(Scaled(0, 0), COPPER)
    survival.set_thermal_velocities(atoms, 90_000, 0)
    start, speed = atoms.positions.copy(), atoms.get_velocities()
    limit = survival.BROKEN * 2 * covalent_radii[29]

    def apart(ps: float) -> float:
        atoms.positions = start + 1000 * ps * units.fs * speed
        return atoms.get_all_distances().max()

    assert apart(free - 2 * observables.STEP / 1000) < limit < apart(free + observables.STEP / 1000)


def test_atoms_that_coincide_end_it():
    squeezed = Data(z=COPPER.z, pos=0.3 * COPPER.pos)
    assert survival.survival(EMT(), squeezed, 10, 0)["whole_ps"]["1000"] == [0.0, 0.0]
