"""The ASE calculator: its numbers, what it refuses, and the guard of dynamics."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError, all_properties
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_stress
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from trained_models import METHODS, calibrated, ethanol, network, trained

from egnn_prune import save
from egnn_prune.ase.calculator import (
    PrunedCalculator,
    UncertaintyExceeded,
    UncertaintyWarning,
)
from egnn_prune.ase.guard import UncertaintyGuard
from egnn_prune.ase.structures import graph_of
from egnn_prune.deployment.trained_model import TrainedModel
from egnn_prune.deployment.training_domain import TrainingDomain
from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.models import PropertyModel
from egnn_prune.uncertainty import SinglePass


def said(caught) -> int:
    """How often it was warned of uncertainty (newer NumPy warns of what ASE does, too)."""
    return sum(warning.category is UncertaintyWarning for warning in caught)


def with_calculator(kind: str = "shallow", dtype=torch.float64, **keywords) -> Atoms:
    atoms = ethanol()
    atoms.calc = PrunedCalculator(trained(kind, dtype), unit="eV", **keywords)
    return atoms


def crystal(seed: int = 0) -> Atoms:
    """A small skewed cell: the cutoff of 3.5 Angstrom is longer than it."""
    rng = np.random.default_rng(seed)
    cell = np.diag([3.0, 3.4, 3.8]) + 0.3 * rng.normal(size=(3, 3))
    places = np.array([[0.1, 0.1, 0.1], [0.5, 0.6, 0.4], [0.2, 0.5, 0.9]])
    return Atoms("HCO", scaled_positions=places, cell=cell, pbc=True)


# ------------------------------------------------------------------------------- the numbers


def slope(atoms: Atoms, direction: np.ndarray, step: float = 1e-4) -> float:
    """Central difference of the energy along a direction ``[N, 3]``, in eV/Angstrom."""
    energies, start = [], atoms.positions.copy()
    for sign in (1, -1):
        atoms.positions = start + sign * step * direction
        energies.append(atoms.get_potential_energy())
    atoms.positions = start
    return (energies[0] - energies[1]) / (2 * step)


@pytest.mark.parametrize("kind", METHODS)
def test_forces_are_the_slope_of_the_energy(kind):
    atoms = with_calculator(kind, force_uncertainty=False)
    forces, rng = atoms.get_forces(), np.random.default_rng(1)
    assert np.abs(forces).max() > 1e-3
    for direction in rng.normal(size=(3, 9, 3)):  # all coordinates at once: 54 passes are slow
        assert slope(atoms, direction) == pytest.approx(
            -(forces * direction).sum(), abs=3e-6 * np.abs(forces).max()
        )


@pytest.mark.parametrize("kind", ["read-out dropout", "deep"])
def test_float32_forces_agree_with_float64(kind):
    single, double = (with_calculator(kind, d).get_forces() for d in (torch.float32, torch.float64))
    assert 0 < np.abs(single - double).max() < 2e-5 * np.abs(double).max()


@pytest.mark.parametrize("kind", METHODS)
def test_energy_and_uncertainty_are_those_of_the_estimator(kind, dtype):
    atoms, estimator = with_calculator(kind, dtype), trained(kind, dtype)
    expected = estimator.predict(graph_of(atoms))
    rounding = 1e-9 if dtype == torch.float64 else 1e-6
    assert atoms.get_potential_energy() == pytest.approx(float(expected.mean), abs=rounding)
    results = atoms.calc.results
    assert results["free_energy"] == results["energy"]
    assert results["energy_uncertainty"] == pytest.approx(float(expected.variance.sqrt()))
    assert results["energy_epistemic_std"] == pytest.approx(float(expected.epistemic.sqrt()))
    # the calibration doubled what the method states
    raw = estimator.estimator.predict(graph_of(atoms))
    assert results["energy_uncertainty"] == pytest.approx(2 * float(raw.variance.sqrt()))
    assert "stress" not in results and "in_distribution" not in results


@pytest.mark.parametrize("kind", ["read-out dropout", "dropout", "shallow", "deep"])
def test_force_uncertainty_is_the_spread_of_the_members_own_forces(kind):
    atoms = with_calculator(kind)
    forces, spread = atoms.get_forces(), atoms.calc.results["forces_uncertainty"]
    graph, method = graph_of(atoms), trained(kind).estimator
    graph.pos.requires_grad_(True)
    members = method(graph).members[:, 0]
    slopes = [torch.autograd.grad(m, graph.pos, retain_graph=True)[0].numpy() for m in members]
    assert np.allclose(forces, -np.mean(slopes, 0), atol=1e-10)
    assert np.allclose(spread, np.std(slopes, 0, ddof=1), atol=1e-10)
    assert spread.shape == (9, 3) and spread.max() > 1e-3


def test_force_uncertainty_needs_members_and_can_be_left_out():
    assert "forces_uncertainty" not in with_calculator(force_uncertainty=False).calc.results
    for kind, keywords in (("last layer", {}), ("shallow", {"force_uncertainty": False})):
        atoms = with_calculator(kind, **keywords)
        atoms.get_forces()
        with pytest.raises(PropertyNotImplementedError):
            atoms.calc.get_property("forces_uncertainty", atoms)


@pytest.mark.parametrize("kind", ["read-out dropout", "dropout", "irreps"])
def test_stress_is_the_slope_by_strain(kind):
    atoms = crystal()
    atoms.calc = PrunedCalculator(trained(kind), unit="eV")
    stress = atoms.get_stress()
    assert np.abs(stress).max() > 1e-4
    assert np.abs(stress - calculate_numerical_stress(atoms, eps=1e-5)).max() < 1e-7
    direction = np.random.default_rng(1).normal(size=(3, 3))
    expected = -(atoms.get_forces() * direction).sum()
    assert slope(atoms, direction) == pytest.approx(expected, abs=1e-7)


def test_a_repeated_cell_has_twice_the_energy_and_the_same_stress():
    atoms = crystal()
    atoms.calc = PrunedCalculator(trained(), unit="eV")
    twice = atoms.repeat((2, 1, 1))
    twice.calc = atoms.calc
    energy, stress = atoms.get_potential_energy(), atoms.get_stress()
    assert twice.get_potential_energy() - 0.3 == pytest.approx(2 * (energy - 0.3))
    assert np.allclose(twice.get_stress(), stress, atol=1e-12)


def test_a_slab_has_a_stress_where_its_cell_has_a_volume():
    atoms = crystal()
    atoms.pbc = [True, True, False]
    atoms.calc = PrunedCalculator(trained(), unit="eV")
    forces = atoms.get_forces()
    direction = np.random.default_rng(1).normal(size=(3, 3))
    assert slope(atoms, direction) == pytest.approx(
        -(forces * direction).sum(), abs=3e-6 * np.abs(forces).max()
    )
    stress = atoms.get_stress()
    assert np.abs(stress).max() > 1e-4
    assert np.abs(stress - calculate_numerical_stress(atoms, eps=1e-5)).max() < 1e-7
    for flat in ([*atoms.cell[:2], [0, 0, 0]], [*atoms.cell[:2], atoms.cell[0]]):
        atoms.cell = flat  # nothing says where it ends
        assert np.allclose(atoms.get_forces(), forces, atol=1e-10)
        with pytest.raises(PropertyNotImplementedError):
            atoms.get_stress()


def test_a_cell_without_periodic_boundaries_is_ignored():
    atoms = with_calculator()
    energy = atoms.get_potential_energy()
    atoms.set_cell(np.zeros((3, 3)) + 1.0)
    assert atoms.get_potential_energy() == energy


# ----------------------------------------------------------------------------- ASE's semantics


def test_computes_only_when_the_atoms_change(monkeypatch):
    calls, predict = [], TrainedModel.predict_moved

    def counted(self, *arguments, **keywords):
        calls.append(1)
        return predict(self, *arguments, **keywords)

    monkeypatch.setattr(TrainedModel, "predict_moved", counted)
    atoms = with_calculator()
    atoms.get_forces(), atoms.get_potential_energy(), atoms.get_potential_energy(True)
    atoms.set_initial_charges(np.ones(9))
    atoms.get_forces()
    assert len(calls) == 1
    first = atoms.get_forces()
    first[:] = 0  # the caller's copy
    assert np.abs(atoms.get_forces()).max() > 0
    atoms.positions[0, 0] += 1e-3
    atoms.get_forces()
    assert len(calls) == 2


@pytest.mark.parametrize("kind", ["read-out dropout", "dropout"])
def test_the_same_thinned_networks_in_every_call(kind):
    atoms = with_calculator(kind)
    before = atoms.get_potential_energy()
    torch.manual_seed(99)
    atoms.positions[0, 0] += 0.1
    assert atoms.get_potential_energy() != before
    atoms.positions[0, 0] -= 0.1
    assert atoms.get_potential_energy() == pytest.approx(before, abs=1e-11)


def test_an_optimiser_of_ase_goes_downhill():
    atoms = with_calculator(force_uncertainty=False)
    start = atoms.get_potential_energy()
    largest = np.abs(atoms.get_forces()).max()
    BFGS(atoms, logfile=None).run(fmax=0.1 * largest, steps=20)
    assert atoms.get_potential_energy() < start


class Watched:
    """A trained model that writes down what it is asked for."""

    def __init__(self, model: TrainedModel) -> None:
        self.model, self.asked = model, []

    def __getattr__(self, name: str):
        return getattr(self.model, name)

    def predict_moved(self, structure, forces=False, stress=False, **more):
        self.asked.append("stress" if stress else "forces" if forces else "energy")
        return self.model.predict_moved(structure, forces=forces, stress=stress, **more)

    def member_forces(self, graph):
        self.asked.append("members")
        return self.model.member_forces(graph)


@pytest.mark.parametrize("kind", ["shallow", "dropout"])
def test_only_what_is_asked_for_is_computed(kind, dtype):
    atoms, whole = with_calculator(kind, dtype), with_calculator(kind, dtype)
    atoms.calc.model = watched = Watched(atoms.calc.model)
    energy = atoms.get_potential_energy()
    assert watched.asked == ["energy"] and set(atoms.calc.results) == {"energy", "free_energy"}
    assert atoms.calc.results["energy_uncertainty"] > 0 and watched.asked == ["energy"]
    forces = atoms.get_forces()
    assert watched.asked == ["energy", "forces"]
    atoms.get_potential_energy(), atoms.get_forces(), atoms.get_potential_energy(True)
    assert watched.asked == ["energy", "forces"]
    spread = atoms.calc.results["forces_uncertainty"]
    assert watched.asked == ["energy", "forces", "members"]
    assert np.array_equal(atoms.calc.get_property("forces_uncertainty", atoms), spread)
    assert watched.asked == ["energy", "forces", "members"]
    # forces first say the same, and bring the energy along
    assert np.array_equal(whole.get_forces(), forces)
    assert whole.get_potential_energy() == energy
    atoms.positions[0, 0] += 0.1
    assert atoms.get_potential_energy() != energy
    assert np.abs(atoms.get_forces() - forces).max() > 1e-4
    assert not np.array_equal(atoms.calc.results["forces_uncertainty"], spread)


@pytest.mark.parametrize("make", [ethanol, crystal])
def test_forces_after_an_energy_take_two_passes_only_once(make):
    atoms = make()
    atoms.calc = PrunedCalculator(trained(), unit="eV")
    atoms.calc.model = watched = Watched(atoms.calc.model)
    last = "stress" if atoms.pbc.any() else "forces"
    for _ in range(3):  # an energy alone never brings forces
        atoms.rattle(0.01)
        atoms.get_potential_energy()
    assert watched.asked == ["energy"] * 3
    atoms.get_forces()
    assert watched.asked == ["energy"] * 3 + [last]
    for _ in range(2):
        atoms.rattle(0.01)
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        other = atoms.copy()
        other.calc = PrunedCalculator(trained(), unit="eV")
        assert np.array_equal(forces, other.get_forces())
        assert energy == other.get_potential_energy()
    assert watched.asked == ["energy"] * 3 + [last] * 3


def test_forces_before_energies_never_bring_forces_to_energies():
    atoms = with_calculator()
    atoms.calc.model = watched = Watched(atoms.calc.model)
    for ask in (atoms.get_forces, atoms.get_potential_energy) * 2:
        ask()
    atoms.rattle(0.01)
    atoms.get_potential_energy()
    assert watched.asked == ["forces", "energy"]


def test_stress_brings_forces_and_energy_along():
    atoms = crystal()
    atoms.calc = PrunedCalculator(trained(), unit="eV")
    atoms.calc.model = watched = Watched(atoms.calc.model)
    atoms.get_potential_energy()
    assert watched.asked == ["energy"]
    for ask in (atoms.get_stress, atoms.get_forces, atoms.get_potential_energy):
        ask()
    assert watched.asked == ["energy", "stress"]


@pytest.mark.parametrize("kind", METHODS)
def test_results_are_those_of_ase_and_ours_are_found_by_name(kind):
    atoms = with_calculator(kind, threshold=1e9)
    forces = atoms.get_forces()
    results = atoms.calc.results
    assert set(results) == {"energy", "free_energy", "forces"}
    frozen = atoms.copy()
    frozen.calc = SinglePointCalculator(frozen, **results)
    assert np.array_equal(frozen.get_forces(), forces)
    assert frozen.get_potential_energy() == atoms.get_potential_energy()
    assert set(atoms.calc.export_properties()) >= {"energy", "forces"}
    assert {**results} == dict(results) and set(results) <= set(all_properties)
    for name in ("energy_uncertainty", "energy_epistemic_std"):
        assert results[name] == results.get(name) == atoms.calc.extras[name] > 0
        assert atoms.calc.get_property(name, atoms) == results[name]
    assert results["in_distribution"] is True and results["out_of_distribution_reason"] == ""
    assert results.get("stress") is None and results.get("nonsense", 3) == 3
    for name in ("stress", "nonsense"):
        with pytest.raises(KeyError):
            results[name]
    atoms.positions[0, 0] += 0.1
    atoms.get_potential_energy()
    with pytest.raises(KeyError):  # numbers of a structure that is gone are not made up
        results["forces_uncertainty"]
    again = copy.deepcopy(atoms.calc)
    assert again.results["energy_epistemic_std"] == atoms.calc.results["energy_epistemic_std"]


# -------------------------------------------------------------------------- files and units


def test_a_run_folder_has_a_pruned_and_a_dense_model(tmp_path):
    models = {"pruned": trained("shallow"), "dense": trained("deep")}
    for name, model in models.items():
        save(model, tmp_path / f"{name}.safetensors", target="energy", unit="eV")
    energies = {}
    for name, model in models.items():
        atoms = ethanol()
        atoms.calc = PrunedCalculator(tmp_path, which=name)
        energies[name] = atoms.get_potential_energy()
        assert energies[name] == pytest.approx(float(model.predict(graph_of(atoms)).mean))
    assert energies["pruned"] != energies["dense"]
    atoms.calc = PrunedCalculator(str(tmp_path / "pruned.safetensors"))
    assert atoms.get_potential_energy() == energies["pruned"]


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("kcal/mol", units.kcal / units.mol), ("Hartree", units.Hartree), ("meV", 1e-3)],
)
def test_units_become_those_of_ase(tmp_path, unit, factor):
    save(
        trained(),
        tmp_path / "pruned.safetensors",
        target="energy",
        unit=unit,
        validation_epistemic_std={"q99": 50.0},
    )
    atoms, plain = ethanol(), with_calculator()
    atoms.calc = PrunedCalculator(tmp_path)
    plain.get_forces()
    atoms.get_forces()
    for name in (
        "energy",
        "forces",
        "energy_uncertainty",
        "energy_epistemic_std",
        "forces_uncertainty",
    ):
        assert np.allclose(atoms.calc.results[name], factor * plain.calc.results[name], rtol=1e-12)
    assert atoms.calc.threshold == pytest.approx(50.0 * factor)


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda a: a.set_atomic_numbers([9] * 9), r"element F \(atomic number 9\).*H, C, O"),
        (lambda a: a.set_atomic_numbers([0] * 9), r"atomic number 0\)"),
        (lambda a: a.positions.__setitem__((4, 1), np.nan), r"NaN or infinite position \(atom 4\)"),
        (lambda a: a.__delitem__(slice(None)), "has no atoms"),
        (lambda a: a.set_pbc(True), "its cell has no volume"),
        (lambda a: (a.set_cell(np.ones((3, 3))), a.set_pbc(True)), "its cell has no volume"),
        (lambda a: (a.set_cell([3, 3, np.nan]), a.set_pbc(True)), "infinite entry in its cell"),
        (lambda a: a.info.update(length_unit="Bohr"), "declares positions in Bohr, but ASE's are"),
    ],
    ids=["element", "dummy", "NaN", "empty", "no cell", "flat cell", "NaN cell", "Bohr"],
)
def test_structures_that_cannot_be_used(change, complaint):
    atoms = with_calculator()
    change(atoms)
    for _ in range(2):  # and nothing stale is handed out afterwards
        with pytest.raises(DataError, match=complaint) as caught:
            atoms.get_forces()
        assert "\n" not in str(caught.value) and str(caught.value).startswith("the structure")


def test_targets_that_are_no_energy(tmp_path):
    path = tmp_path / "pruned.safetensors"
    for target in ("gap", "energy_per_atom", "u0"):
        save(trained(), path, target=target, unit="eV")
        with pytest.raises(ConfigError, match=f"predicts '{target}', which is no potential energy"):
            PrunedCalculator(path)
    save(trained(), path, target="energy", unit="data unit")
    with pytest.raises(ConfigError, match=r"not known \(data unit\); give unit= as one of eV"):
        PrunedCalculator(path)
    with pytest.raises(ConfigError, match="does not say in which unit"):
        PrunedCalculator(trained())


def test_models_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="there is no model file"):
        PrunedCalculator(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"holds no pruned\.safetensors; give the folder"):
        PrunedCalculator(tmp_path)
    features = PropertyModel.build((), hidden=4, layers=1, in_features=2)
    with pytest.raises(InputError, match="does not predict from elements and positions"):
        PrunedCalculator(SinglePass(features), unit="eV")
    save(trained(), tmp_path / "m.safetensors", target="energy", unit="eV", units={"pos": "Bohr"})
    with pytest.raises(InputError, match="positions in Bohr"):
        PrunedCalculator(tmp_path / "m.safetensors")
    with pytest.raises(ConfigError, match="on_uncertain must be one of warn"):
        PrunedCalculator(trained(), unit="eV", on_uncertain="panic")
    for wrong in (network(), None, 3):  # egnn_prune.load gives a network
        with pytest.raises(ConfigError, match=f"an estimator .*, not as {type(wrong).__name__}$"):
            PrunedCalculator(wrong, unit="eV")
    for threshold in (0.0, -1.0, float("nan"), "1"):
        with pytest.raises(ConfigError, match="threshold must be a positive energy"):
            PrunedCalculator(trained(), threshold, unit="eV")


def test_arguments_that_contradict_the_model(tmp_path):
    path = tmp_path / "pruned.safetensors"
    save(trained(), path, target="energy", unit="kcal/mol")
    for model in (path, trained()):
        with pytest.raises(ConfigError, match="the dense model is chosen of a run's folder"):
            PrunedCalculator(model, which="dense", unit="kcal/mol")
    with pytest.raises(ConfigError, match="which must be 'pruned' or 'dense', not 'sparse'"):
        PrunedCalculator(tmp_path, which="sparse")
    for unit in ("eV", "parsec"):
        with pytest.raises(ConfigError, match=rf"is in kcal/mol, which unit='{unit}' contradicts"):
            PrunedCalculator(path, unit=unit)
    factor = PrunedCalculator(path).electronvolts
    assert PrunedCalculator(path, unit="KCAL/MOL").electronvolts == factor
    save(trained(), path, target="energy", unit="data unit")  # of data that declared none
    assert PrunedCalculator(path, unit="kcal/mol").electronvolts == factor


def test_broken_weights_are_no_silent_nan():
    model = network()
    with torch.no_grad():
        model.head.mean_out.weight.fill_(torch.nan)
    atoms = ethanol()
    atoms.calc = PrunedCalculator(calibrated(SinglePass(model)), unit="eV")
    with pytest.raises(InputError, match="NaN or infinity"):
        atoms.get_potential_energy()


# ------------------------------------------------------------------------------ thresholds


def test_the_threshold_of_the_file_flags_and_warns_once(tmp_path):
    epistemic_std = with_calculator()
    epistemic_std.get_potential_energy()
    epistemic_std = epistemic_std.calc.results["energy_epistemic_std"]
    for limit, known in ((1.01 * epistemic_std, True), (0.99 * epistemic_std, False)):
        path = tmp_path / "pruned.safetensors"
        save(trained(), path, target="energy", unit="eV", validation_epistemic_std={"q99": limit})
        atoms = ethanol()
        atoms.calc = PrunedCalculator(path)
        if known:
            atoms.get_potential_energy()
        else:
            with pytest.warns(UncertaintyWarning, match="unlike the training data") as caught:
                atoms.get_potential_energy()
                atoms.positions[0, 0] += 1e-4
                atoms.get_potential_energy()
            assert said(caught) == 1
        assert atoms.calc.results["in_distribution"] is known


def test_beyond_the_threshold_it_may_raise_or_be_silent():
    atoms = with_calculator(threshold=1e-6, on_uncertain="raise")
    for _ in range(2):
        with pytest.raises(UncertaintyExceeded, match="beyond the threshold of 1e-06 eV"):
            atoms.get_forces()
    atoms = with_calculator(threshold=1e-6, on_uncertain="ignore")
    atoms.get_forces()
    assert atoms.calc.results["in_distribution"] is False


def dissociating(action: str) -> tuple[VelocityVerlet, UncertaintyGuard]:
    """Ethanol whose hydroxyl hydrogen leaves: the doubt changes while it does."""
    atoms = with_calculator(force_uncertainty=False)
    atoms.get_potential_energy()
    threshold = 1.0001 * atoms.calc.results["energy_epistemic_std"]
    velocities = np.zeros((9, 3))
    velocities[3] = 0.5
    atoms.set_velocities(velocities)
    dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
    guard = UncertaintyGuard(atoms, threshold, action)
    dynamics.attach(guard, interval=2)
    return dynamics, guard


def test_the_guard_stops_dynamics():
    dynamics, guard = dissociating("stop")
    with pytest.raises(UncertaintyExceeded, match="unlike the training data"):
        dynamics.run(80)
    assert 0 < dynamics.nsteps < 80 and dynamics.nsteps % 2 == 0
    assert dynamics.atoms.calc.results["energy_epistemic_std"] > guard.threshold


def test_the_guard_warns_once():
    dynamics, guard = dissociating("warn")
    with pytest.warns(UncertaintyWarning, match="said once") as caught:
        dynamics.run(30)
    assert dynamics.nsteps == 30 and guard.exceeded > 1 and said(caught) == 1


def test_the_guard_needs_a_threshold_and_our_calculator():
    with pytest.raises(ConfigError, match="holds no validation_epistemic_std"):
        UncertaintyGuard(with_calculator())
    assert UncertaintyGuard(with_calculator(threshold=0.5)).threshold == 0.5
    with pytest.raises(ConfigError, match="whose calculator is a PrunedCalculator"):
        UncertaintyGuard(molecule("H2O"), 0.1)
    atoms = with_calculator()
    guard = UncertaintyGuard(atoms, 0.5)
    atoms.calc = EMT()
    with pytest.raises(ConfigError, match="whose calculator is a PrunedCalculator"):
        guard()
    with pytest.raises(ConfigError, match="action must be 'stop' or 'warn'"):
        UncertaintyGuard(with_calculator(), 0.1, "explode")


# --------------------------------------------------------- unlike the training structures


@pytest.fixture
def of_ethanol(tmp_path):
    """A file of a model whose doubt is never large, trained on ethanol alone."""
    domain = TrainingDomain.of([graph_of(ethanol(seed=seed)) for seed in range(30)])
    path = tmp_path / "pruned.safetensors"
    known = {"validation_epistemic_std": {"q99": 1e9}, "training_domain": domain.to_json()}
    save(trained(), path, target="energy", unit="eV", **known)
    return path


def test_carbon_monoxide_is_no_ethanol(of_ethanol):
    atoms = ethanol(seed=99)
    atoms.calc = PrunedCalculator(of_ethanol)
    atoms.get_forces()
    assert atoms.calc.results["in_distribution"] is True
    assert atoms.calc.results["atoms_in_distribution"].tolist() == [True] * 9
    atoms = molecule("CO")
    atoms.calc = PrunedCalculator(of_ethanol)
    with pytest.warns(UncertaintyWarning, match="it has 2 atoms, in training 9") as caught:
        atoms.get_potential_energy()
    assert "\n" not in str(caught[0].message)
    assert atoms.calc.results["in_distribution"] is False
    assert atoms.calc.results["atoms_in_distribution"].tolist() == [False, False]
    assert "O has" not in (reason := atoms.calc.results["out_of_distribution_reason"])
    assert "atom 0 (O)" in reason
    atoms.calc = PrunedCalculator(of_ethanol, on_uncertain="raise")
    with pytest.raises(UncertaintyExceeded, match="unlike the training data: it has 2 atoms"):
        atoms.get_forces()


def test_the_guard_stops_at_a_broken_bond(of_ethanol):
    atoms = ethanol(seed=99)
    atoms.calc = PrunedCalculator(of_ethanol, on_uncertain="ignore")
    guard = UncertaintyGuard(atoms)
    guard()
    atoms.positions[3] += 2.0 * (atoms.positions[3] - atoms.positions[2])  # of the hydroxyl
    with pytest.raises(UncertaintyExceeded, match=r"atom 2 \(O\) has 0.0 bonds to H.*1 more"):
        guard()
    assert guard.exceeded == 1
