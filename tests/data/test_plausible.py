"""Energies and forces that cannot belong together are noticed, and right ones never are."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import ase
import ase.build
import ase.io
import numpy as np
import pytest
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.optimize import FIRE
from scipy.spatial.transform import Rotation

from egnn_prune import data
from egnn_prune.data.local import data_folder, local_data
from egnn_prune.data.plausible import agreement, sample
from egnn_prune.errors import SuspiciousDataWarning

Labelled = tuple[ase.Atoms, float, np.ndarray]


def labelled(atoms: ase.Atoms, calculator: Calculator) -> Labelled:
    atoms = atoms.copy()
    atoms.calc = calculator
    return atoms.copy(), atoms.get_potential_energy(), atoms.get_forces()


@cache
def frames(kind: str, n: int = 80) -> tuple[Labelled, ...]:
    """Structures around a minimum: an ethanol of EMT in all orientations, or a copper crystal."""
    random = np.random.default_rng(0)
    if kind == "crystal":
        start = ase.build.bulk("Cu", cubic=True).repeat((2, 1, 1))
    else:
        start = ase.build.molecule("CH3CH2OH")
        start.calc = EMT()
        FIRE(start, logfile=None).run(fmax=0.05, steps=200)
    made = []
    for k in range(n):
        atoms = start.copy()
        atoms.positions += random.normal(scale=0.04, size=atoms.positions.shape)
        if kind == "crystal":
            atoms.positions += [0, 0, 3.0]
            atoms.wrap()
        else:
            atoms.positions = Rotation.random(random_state=k).apply(atoms.positions)
        made.append(labelled(atoms, EMT()))
    return tuple(made)


@pytest.fixture
def load(tmp_path) -> Callable[..., data.GraphDataset]:
    def load(made: tuple[Labelled, ...], energy: float = 1, force: float = 1) -> data.GraphDataset:
        structures = []
        for atoms, e, f in made:
            atoms = atoms.copy()
            atoms.calc = SinglePointCalculator(atoms, energy=energy * e, forces=force * f)
            structures.append(atoms)
        ase.io.write(tmp_path / "own.xyz", structures, format="extxyz")
        return data.load("extxyz", tmp_path / "own.xyz")

    return load


@pytest.mark.parametrize("kind", ["molecule", "crystal"])
def test_right_ones(load, kind):
    dataset = load(frames(kind))  # warnings are errors
    for seed in range(3):
        found = agreement(sample(dataset, seed))
        assert found.pairs > 30
        assert found.ratio == pytest.approx(1, abs=0.2) and found.correlation > 0.9


@pytest.mark.parametrize("factor", [23.06, 27.2, 96.5, 1 / 23.06, 1 / 27.2])
@pytest.mark.parametrize("kind", ["molecule", "crystal"])
def test_energies_in_another_unit(load, kind, factor):
    with pytest.warns(
        SuspiciousDataWarning, match="own.xyz: energies differ .* in different units"
    ):
        load(frames(kind), energy=factor)


def test_gradients_in_the_place_of_forces(load):
    with pytest.warns(SuspiciousDataWarning, match="own.xyz: .* wrong sign"):
        load(frames("molecule"), force=-1)


def test_neighbours_in_a_long_file_are_compared(load, tmp_path):
    """Every frame of a trajectory from one conformation to others has a neighbour before it."""
    made, start = [], frames("molecule")[0][0]
    step = np.random.default_rng(1).normal(scale=0.0005, size=start.positions.shape)
    for k in range(300):
        atoms = start.copy()
        atoms.positions += k * step
        made.append(labelled(atoms, EMT()))
    found = agreement(sample(load(tuple(made)), 0))
    assert found.ratio == pytest.approx(1, abs=0.05) and found.correlation > 0.99


def test_nothing_is_said_of_what_cannot_be_compared(load):
    random = np.random.default_rng(0)
    one_each = [labelled(ase.build.molecule(name), EMT()) for name in ("H2O", "CH4", "NH3", "CO")]
    assert agreement(sample(load(tuple(one_each)), 0)) is None
    unrelated = tuple((a, float(random.normal()), f) for a, _, f in frames("molecule"))
    load(unrelated, energy=100)  # no relation, hence no unit that it could be
    few = frames("molecule")[:12]
    assert agreement(sample(load(few, energy=23), 0)) is None
    constant = tuple((a, 1.0, 0 * f) for a, _, f in frames("molecule"))
    assert agreement(sample(load(constant), 0)) is None


def real(name: str) -> Path:
    path = local_data(f"molecules/{name}")
    if path is None:
        pytest.skip(f"{name} is not in {data_folder()}; EGNN_PRUNE_DATA says where it is")
    return path


@pytest.mark.parametrize("name", ["3bpa/train_300K.xyz.gz", "3bpa/train_mixedT.xyz.gz"])
def test_3bpa_is_right(name):
    dataset = data.load("extxyz", real(name))
    for seed in range(3):
        found = agreement(sample(dataset, seed))
        assert 0.5 < found.ratio < 1.6 and found.correlation > 0.5


@pytest.mark.parametrize("molecule", ["ethanol", "aspirin"])
def test_rmd17_is_right_and_wrong_in_other_units(molecule, tmp_path):
    with np.load(real(f"rmd17/rmd17_{molecule}.npz")) as archive:
        some = {k: archive[k][:400] for k in ("coords", "energies", "forces")}
        z = archive["nuclear_charges"]
    for factor, wrong in ((1.0, False), (23.06, True), (1 / 27.2, True)):
        new = tmp_path / f"rmd17_{molecule}.npz"
        np.savez(new, nuclear_charges=z, **{**some, "energies": some["energies"] * factor})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            data.load("rmd17", new)
        said = [w for w in caught if w.category is SuspiciousDataWarning]
        assert len(said) == wrong
