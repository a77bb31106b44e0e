"""ASE's own optimisers, filters, paths, vibrations and thermostats on our calculators."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import IsotropicMTKNPT, NoseHooverChainNVT
from ase.md.nptberendsen import NPTBerendsen
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS, FIRE
from ase.phonons import Phonons
from ase.vibrations import Vibrations
from small_adopted import masked, potential
from trained_models import ELEMENTS, METHODS, calibrated, ethanol, trained

from egnn_prune import compact, prune
from egnn_prune.adapters import Committee
from egnn_prune.ase import PrunedCalculator, UncertaintyExceeded, UncertaintyWarning, evaluate_many
from egnn_prune.ase.velocities import set_thermal_velocities
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.models import EGNNOptions, PropertyModel, TargetScale
from egnn_prune.uncertainty import SinglePass

SCALE = TargetScale((-13.0, -1030.0, -2040.0), 0.0, 2.0)


class Bound(PropertyModel):
    """An untrained network whose atoms repel each other when near and hold together when far.

    A random network has no minimum: its optimiser would run away. A sum of Morse potentials is one.
    """

    depth, width, length = 1.0, 1.6, 1.4

    def _pairs(self, batch) -> torch.Tensor:
        source, target = batch.edge_index
        shift = batch.get("edge_shift")
        vectors = batch.pos[source] - batch.pos[target]
        vectors = vectors if shift is None else vectors + shift
        r = vectors.norm(dim=-1)
        cutoff = self.trunk.options.cutoff
        fade = torch.where(r < cutoff, (1 - (r / cutoff) ** 2).clamp(min=0) ** 3, 0.0)
        bond = torch.exp(-self.width * (r - self.length))
        return 0.5 * self.depth * (bond**2 - 2 * bond) * fade

    def normalised(self, batch, samples=1):
        batch = self.prepared(batch)
        means, variances = super().normalised(batch, samples)
        graph = getattr(batch, "batch", None)
        target = batch.edge_index[1]
        graph = torch.zeros_like(target) if graph is None else graph[target]
        extra = means.new_zeros(means.shape[1]).index_add(0, graph, self._pairs(batch))
        return 0.1 * means + extra / self.scale.scale, variances


def bound() -> PrunedCalculator:
    torch.manual_seed(0)
    options = EGNNOptions(radial=4, cutoff=3.0)
    model = Bound.build(ELEMENTS, hidden=4, layers=1, options=options, scale=SCALE)
    return PrunedCalculator(SinglePass(model.double().eval()), unit="eV", on_uncertain="ignore")


def water() -> Atoms:
    atoms = molecule("H2O")
    atoms.positions += 0.03 * np.random.default_rng(0).normal(size=(3, 3))
    atoms.calc = bound()
    return atoms


def crystal() -> Atoms:
    atoms = Atoms("CO", scaled_positions=[[0, 0, 0], [0.52, 0.49, 0.5]], cell=[2.2] * 3, pbc=True)
    atoms.calc = bound()
    return atoms


def sizes(atoms: Atoms) -> float:
    return float(np.linalg.norm(atoms.get_forces(), axis=1).max())


# ------------------------------------------------------------------------- minima and paths


@pytest.mark.parametrize("optimiser", [BFGS, FIRE])
def test_optimisers_arrive_at_a_minimum(optimiser):
    atoms = water()
    assert sizes(atoms) > 0.1
    assert optimiser(atoms, logfile=None).run(fmax=1e-3, steps=300)
    energy = atoms.get_potential_energy()
    assert sizes(atoms) < 1e-3
    for seed in range(3):  # all around is uphill
        near = atoms.copy()
        near.calc = atoms.calc
        near.positions += 0.02 * np.random.default_rng(seed).normal(size=(3, 3))
        assert near.get_potential_energy() > energy


def test_a_cell_relaxes():
    atoms = crystal()
    start = np.abs(atoms.get_stress()).max()
    assert start > 1e-3
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-3, steps=200)
    assert np.abs(atoms.get_stress()).max() < 1e-2 * start and sizes(atoms) < 1e-3


def test_a_slab_relaxes_in_its_plane():
    atoms = crystal()
    atoms.pbc, atoms.cell[2, 2] = [True, True, False], 9.0
    filtered = FrechetCellFilter(atoms, mask=[1, 1, 0, 0, 0, 1])
    assert BFGS(filtered, logfile=None).run(fmax=1e-3, steps=200)
    assert np.abs(atoms.get_stress()[[0, 1, 5]]).max() < 1e-4
    assert np.allclose(atoms.cell[2], [0, 0, 9.0])


def test_a_band_of_images_finds_the_barrier():
    """A hydrogen hops from one oxygen to the other, which are held."""
    first = Atoms("OHO", positions=[[0, 0, 0], [1.0, 0.1, 0], [3.4, 0, 0]])
    last = first.copy()
    last.positions[1] = [2.4, 0.1, 0]
    images = [first, *(first.copy() for _ in range(3)), last]
    for image in images:
        image.set_constraint(FixAtoms([0, 2]))
        image.calc = bound()
    for end in (first, last):
        assert BFGS(end, logfile=None).run(fmax=0.01, steps=100)
    band = NEB(images, climb=True, method="improvedtangent")
    band.interpolate()
    assert BFGS(band, logfile=None).run(fmax=0.03, steps=200)
    energies = [image.get_potential_energy() for image in images]
    assert 0 < int(np.argmax(energies)) < 4
    assert max(energies) > max(energies[0], energies[-1]) + 0.05


# ------------------------------------------------------------------------------ vibrations


def test_vibrations_of_a_molecule(tmp_path):
    """Six motions of the whole cost nothing; those of the bonds are real."""
    atoms = water()
    BFGS(atoms, logfile=None).run(fmax=1e-6, steps=300)
    vibrations = Vibrations(atoms, name=str(tmp_path / "vib"), delta=0.005)
    vibrations.run()
    energies = np.sort_complex(vibrations.get_energies())
    whole = np.sort(np.abs(energies))[:6]
    assert whole.max() < 1e-3 and (np.sort(energies.real)[-3:] > 0.05).all()
    hessian = vibrations.get_vibrations().get_hessian_2d()
    assert np.abs(hessian - hessian.T).max() < 1e-8 * np.abs(hessian).max()
    rows = hessian.reshape(3, 3, 3, 3).sum(2)  # moving all atoms together moves nothing
    assert np.abs(rows).max() < 1e-5 * np.abs(hessian).max()


def test_phonons_obey_the_acoustic_sum_rule(tmp_path):
    atoms = crystal()
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-5, steps=300)
    phonons = Phonons(atoms, atoms.calc, (2, 1, 1), delta=0.01, name=str(tmp_path / "phonon"))
    phonons.run()
    phonons.read(acoustic=False)  # not imposed: it has to hold
    force_constants = phonons.get_force_constant()
    total = force_constants.sum(0).reshape(2, 3, 2, 3).sum(2)
    assert np.abs(total).max() < 1e-4 * np.abs(force_constants).max()
    gamma = phonons.band_structure([[0, 0, 0]])[0]
    assert np.abs(np.sort(np.abs(gamma))[:3]).max() < 1e-3


# ------------------------------------------------------------------------------- dynamics


@pytest.fixture(scope="module")
def relaxed() -> Atoms:
    """Eight atoms in their best cell. Runs stay short: after 100 steps a pass is recorded."""
    atoms = crystal()
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.01, steps=100)
    return atoms.repeat((2, 2, 1))


def moving(atoms: Atoms, kelvin: float) -> Atoms:
    atoms = atoms.copy()
    atoms.calc = bound()
    set_thermal_velocities(atoms, kelvin, seed=3)
    return atoms


def test_dynamics_conserve_energy(relaxed):
    atoms, energies = moving(relaxed, 300), []
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()))
    kinetic = atoms.get_kinetic_energy()
    dynamics.run(80)
    assert np.ptp(energies) < 0.01 * kinetic
    assert abs(atoms.get_kinetic_energy() - kinetic) > 0.05 * kinetic  # something happened


THERMOSTATS = {
    "langevin": lambda a, rng: Langevin(
        a, units.fs, temperature_K=600, friction=0.1 / units.fs, rng=rng, fixcm=False
    ),
    "bussi": lambda a, rng: Bussi(a, units.fs, 600, 5 * units.fs, rng=rng),
    "nose-hoover": lambda a, rng: NoseHooverChainNVT(a, units.fs, 600, 10 * units.fs),
}


@pytest.mark.parametrize("name", THERMOSTATS)
def test_thermostats_warm_up(name, relaxed):
    atoms, temperatures = moving(relaxed, 100), []
    dynamics = THERMOSTATS[name](atoms, np.random.default_rng(0))
    dynamics.attach(lambda: temperatures.append(atoms.get_temperature()))
    dynamics.run(70)
    assert 250 < np.mean(temperatures[40:]) < 1500 and np.isfinite(atoms.positions).all()


BAROSTATS = {
    "berendsen": lambda a: NPTBerendsen(
        a, units.fs, 300, pressure_au=0.0, taut=50 * units.fs, taup=50 * units.fs,
        compressibility_au=0.05,
    ),
    "mtk": lambda a: IsotropicMTKNPT(a, units.fs, 300, 0.0, 20 * units.fs, 100 * units.fs),
}  # fmt: skip


@pytest.mark.parametrize("name", BAROSTATS)
def test_barostats_let_a_compressed_crystal_grow(name, relaxed):
    small = relaxed.copy()
    small.set_cell(0.96 * relaxed.cell, scale_atoms=True)
    atoms = moving(small, 100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ASE's own, of its drivers
        BAROSTATS[name](atoms).run(40)
    assert atoms.get_volume() > 1.01 * small.get_volume()


# -------------------------------------------------------------------- energies of atoms


@pytest.mark.parametrize("kind", METHODS)
def test_energies_of_atoms_add_up_and_belong_to_them(kind):
    atoms = ethanol()
    atoms.calc = PrunedCalculator(trained(kind), unit="eV")
    energies = atoms.get_potential_energies()
    assert energies.shape == (9,)
    assert energies.sum() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    order = np.random.default_rng(0).permutation(9)
    turned = atoms[order]
    turned.rotate(70, (1, 2, 3))
    turned.calc = atoms.calc
    assert np.allclose(turned.get_potential_energies(), energies[order], atol=1e-9)
    far = ethanol()
    far.positions += 50.0
    both = ethanol() + far
    both.calc = atoms.calc
    expected = np.tile(energies - 0.3 / 9, 2) + 0.3 / 18  # the shift of one graph, shared
    assert np.allclose(both.get_potential_energies(), expected, atol=1e-9)


def test_energies_of_atoms_of_adopted_potentials():
    atoms = ethanol()
    for model in (potential(), masked(potential()), Committee([potential(), potential(seed=1)])):
        atoms.calc = PrunedCalculator(SinglePass(model))
        energies = atoms.get_potential_energies()
        assert energies.sum() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        assert np.ptp(energies[atoms.numbers == 1]) > 1e-6


def test_a_mean_over_atoms_has_no_energies_of_atoms():
    torch.manual_seed(0)
    options = EGNNOptions(cutoff=4.0)
    model = PropertyModel.build(ELEMENTS, hidden=4, layers=1, pool="mean", options=options)
    atoms = ethanol()
    atoms.calc = PrunedCalculator(SinglePass(model), unit="eV")
    atoms.get_potential_energy()
    with pytest.raises(PropertyNotImplementedError, match="a mean of atoms"):
        atoms.get_potential_energies()


def test_a_compact_network_runs_where_the_masked_one_did():
    torch.manual_seed(0)
    options = EGNNOptions(radial=8, cutoff=4.0)
    dense = PropertyModel.build(ELEMENTS, hidden=8, layers=2, options=options, scale=SCALE)
    pruned = prune(dense.double(), "magnitude", 0.5)
    found = []
    for model in (pruned, compact(pruned)):
        atoms = ethanol()
        atoms.calc = PrunedCalculator(SinglePass(model), unit="eV")
        BFGS(atoms, logfile=None).run(fmax=1e-9, steps=3)
        found.append(atoms.positions)
    assert np.allclose(*found, atol=1e-8)


# ------------------------------------------------------------------------ copies and lists


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("kind", ["dropout", "deep", "rigidity"])
def test_copies_of_calculators_go_their_own_way(kind, duplicate):
    atoms = ethanol()
    atoms.calc = PrunedCalculator(trained(kind), unit="eV")
    forces = atoms.get_forces()
    uncertainty = atoms.calc.results["energy_uncertainty"]
    again = duplicate(atoms)
    assert again.calc is not atoms.calc and again.calc.results._calculator is again.calc
    assert again.calc.results["energy_uncertainty"] == uncertainty
    assert np.array_equal(again.get_forces(), forces)
    again.positions[0, 0] += 0.1
    assert np.abs(again.get_forces() - forces).max() > 1e-4
    assert np.array_equal(atoms.get_forces(), forces)  # the first knows nothing of it
    weights = zip(
        atoms.calc.model.estimator.parameters(),
        again.calc.model.estimator.parameters(),
        strict=True,
    )
    assert all(torch.equal(a, b) and a is not b for a, b in weights)


def test_many_structures_are_what_each_of_them_is_alone():
    slab = crystal()
    slab.pbc = [True, True, False]
    structures = [ethanol(seed=1), crystal(), molecule("H2O"), slab, ethanol(seed=2), crystal()]
    structures[-1].positions[0] += 0.2
    structures[3].cell[2] = 0  # a layer of no height
    calculator = PrunedCalculator(trained("deep"), unit="eV")
    done = evaluate_many(calculator, structures, batch_size=2)
    assert calculator.results == {}
    for one, atoms in zip(done, structures, strict=True):
        alone = atoms.copy()
        alone.calc = PrunedCalculator(trained("deep"), unit="eV")
        assert isinstance(one.calc, SinglePointCalculator) and one is not atoms
        assert np.array_equal(one.positions, atoms.positions)
        assert one.get_potential_energy() == pytest.approx(alone.get_potential_energy(), abs=1e-9)
        assert np.allclose(one.get_forces(), alone.get_forces(), atol=1e-10)
        expected = alone.calc.results["energy_uncertainty"]
        assert one.info["energy_uncertainty"] == pytest.approx(expected, rel=1e-6)
        if atoms.pbc.all():
            assert np.allclose(one.get_stress(), alone.get_stress(), atol=1e-12)
        else:
            with pytest.raises(PropertyNotImplementedError):
                one.get_stress()


def test_many_structures_of_which_some_cannot_be_used_or_believed():
    calculator = PrunedCalculator(trained("deep"), 1e-9, unit="eV")
    with pytest.warns(UncertaintyWarning, match="2 of 2 structures, the first of them structure 0"):
        done = evaluate_many(calculator, [ethanol(), ethanol(seed=1)])
    assert done[1].info["in_distribution"] is False and done[1].info["out_of_distribution_reason"]
    strict = PrunedCalculator(trained("deep"), 1e-9, "raise", unit="eV")
    with pytest.raises(UncertaintyExceeded, match="structure 0: the model's epistemic"):
        evaluate_many(strict, [ethanol()])
    with pytest.raises(DataError, match="structure 1 has the element F"):
        evaluate_many(calculator, [ethanol(), Atoms("F")])
    odd = ethanol()
    odd.info["length_unit"] = "Bohr"
    with pytest.raises(DataError, match="structure 0 declares positions in another unit"):
        evaluate_many(calculator, [odd])
    with pytest.raises(ConfigError, match="at least 1"):
        evaluate_many(calculator, [], batch_size=0)
    with pytest.raises(ConfigError, match="not a SinglePointCalculator"):
        evaluate_many(SinglePointCalculator(ethanol()), [ethanol()])
    assert evaluate_many(calculator, []) == []


def test_forces_of_the_bound_network_are_its_slope():
    """What these tests rest on: the made-up potential is one."""
    atoms = water()
    numerical = calculate_numerical_forces(atoms, eps=1e-4)
    assert np.allclose(atoms.get_forces(), numerical, atol=1e-6)
    assert calibrated(SinglePass(atoms.calc.model.estimator.network)) is not None
