"""A program that ``export_program`` wrote, as an ASE calculator: the numbers of its model."""

from __future__ import annotations

import copy
import pickle
import zipfile

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from trained_models import calibrated, ethanol, network

from egnn_prune.ase import (
    ExportedCalculator,
    PrunedCalculator,
    UncertaintyExceeded,
    UncertaintyGuard,
    evaluate_many,
)
from egnn_prune.ase.structures import graph_of
from egnn_prune.deployment.export import DESCRIPTION, export_program
from egnn_prune.deployment.trained_model import TrainedModel
from egnn_prune.deployment.training_domain import TrainingDomain
from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.models import EGNNOptions, TargetScale
from egnn_prune.uncertainty import SinglePass

# torch says so of its own reader of .pt2 files
pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable")


def model() -> TrainedModel:
    """Calibrated, in kcal/mol, of training structures like ethanol."""
    domain = TrainingDomain.of([graph_of(ethanol(seed=k)) for k in range(4)])
    scale = TargetScale((-13.0, -1030.0, -2040.0), 0.3, 500.0)
    small = network(hidden=4, layers=1, members=2, scale=scale)
    return TrainedModel(calibrated(SinglePass(small)), "energy", "kcal/mol", domain=domain)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return export_program(model(), tmp_path_factory.mktemp("program") / "m.pt2", stress=True)


@pytest.fixture(scope="module")
def loaded(program):
    """Loading takes seconds."""
    return ExportedCalculator(program, "ignore")


def on(calculator, atoms: Atoms) -> Atoms:
    calculator.reset()
    atoms.calc = calculator
    return atoms


def crystal() -> Atoms:
    cell = np.diag([3.0, 3.4, 3.8]) + 0.1 * np.arange(9).reshape(3, 3)
    places = np.array([[0.1, 0.1, 0.1], [0.5, 0.6, 0.4], [0.2, 0.5, 0.9]])
    return Atoms("HCO", scaled_positions=places, cell=cell, pbc=True)


def close(found, right) -> bool:
    return np.allclose(found, right, rtol=1e-9, atol=1e-9 * np.abs(right).max())


@pytest.mark.parametrize("make", [ethanol, crystal])
def test_numbers_are_those_of_the_model(loaded, make):
    atoms, right = on(loaded, make()), make()
    right.calc = PrunedCalculator(model(), on_uncertain="ignore")
    for _ in range(2):  # and where the atoms have moved
        assert atoms.get_potential_energy() == pytest.approx(right.get_potential_energy(), abs=1e-9)
        assert np.abs(right.get_forces()).max() > 1e-3
        assert close(atoms.get_forces(), right.get_forces())
        if atoms.pbc.any():
            assert close(atoms.get_stress(), right.get_stress())
        bar = right.calc.results["energy_uncertainty"]
        assert atoms.calc.results["energy_uncertainty"] == pytest.approx(bar)
        judged = right.calc.results.get("in_distribution")
        assert atoms.calc.results.get("in_distribution") is judged
        for one in (atoms, right):
            one.rattle(0.02, seed=1)
    if not atoms.pbc.any():
        with pytest.raises(PropertyNotImplementedError):
            atoms.get_stress()


def test_one_pass_says_everything(loaded):
    atoms, calls = on(loaded, ethanol()), []
    hook = loaded.model.program.register_forward_hook(lambda *_: calls.append(1))
    atoms.get_potential_energy(), atoms.get_forces(), loaded.results["energy_uncertainty"]
    hook.remove()
    assert len(calls) == 1


def test_tools_of_ase(loaded):
    atoms = on(loaded, ethanol())
    assert np.allclose(calculate_numerical_forces(atoms, 1e-4), atoms.get_forces(), atol=1e-6)
    start = atoms.get_potential_energy()
    BFGS(atoms, logfile=None).run(fmax=1e-6, steps=3)
    assert atoms.get_potential_energy() < start
    box = on(loaded, crystal())
    start = box.get_potential_energy()
    BFGS(FrechetCellFilter(box), logfile=None, maxstep=0.02).run(fmax=1e-6, steps=2)
    assert box.get_potential_energy() < start


def test_a_pickle_takes_the_program_along(program, tmp_path):
    path = tmp_path / "gone.pt2"
    path.write_bytes(program.read_bytes())
    atoms = ethanol()
    atoms.calc = ExportedCalculator(path, "ignore")
    energy = atoms.get_potential_energy()
    path.unlink()
    for other in (pickle.loads(pickle.dumps(atoms.calc)), copy.deepcopy(atoms.calc)):
        fresh = ethanol()
        fresh.calc = other
        assert fresh.get_potential_energy() == energy
        fresh.rattle(0.1)
        assert fresh.get_potential_energy() != energy


def test_many_at_once_are_what_they_are_one_by_one(loaded):
    structures = [ethanol(), crystal(), molecule("H2O"), molecule("CO")]
    for atoms, done in zip(structures, evaluate_many(loaded, structures), strict=True):
        on(loaded, atoms)
        assert done.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        assert close(done.get_forces(), atoms.get_forces())
        assert done.info["energy_uncertainty"] > 0
        if atoms.pbc.any():
            assert close(done.get_stress(), atoms.get_stress())


def test_structures_that_it_does_not_know(loaded):
    def energy(atoms: Atoms) -> float:
        return on(loaded, atoms).get_potential_energy()

    with pytest.raises(DataError, match=r"element N .* not in the training data"):
        energy(molecule("NH3"))
    with pytest.raises(DataError, match="no atoms"):
        energy(Atoms())
    with pytest.raises(DataError, match="NaN"):
        energy(Atoms("H", [[np.nan, 0, 0]]))
    strict = copy.copy(loaded)
    strict.on_uncertain = "raise"
    with pytest.raises(UncertaintyExceeded, match="unlike the training data"):
        on(strict, molecule("CO")).get_potential_energy()


@pytest.mark.slow
def test_programs_without_cutoff_forces_or_unit(tmp_path):
    torch.manual_seed(0)
    free = network(options=EGNNOptions())
    path = export_program(SinglePass(free), tmp_path / "m.pt2", forces=False)
    with pytest.raises(ConfigError, match="does not say in which unit"):
        ExportedCalculator(path)
    atoms = ethanol()
    atoms.calc = ExportedCalculator(path, unit="eV")
    right = float(SinglePass(free).predict(graph_of(atoms)).mean)
    assert atoms.get_potential_energy() == pytest.approx(right, abs=1e-9)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_forces()
    box = crystal()
    box.calc = ExportedCalculator(path, unit="eV")
    with pytest.raises(DataError, match="no cutoff and is for molecules"):
        box.get_potential_energy()


def test_thresholds_and_guards_have_nothing_to_watch(program, loaded):
    atoms = on(loaded, ethanol())
    with pytest.raises(ConfigError, match="nothing to watch"):
        UncertaintyGuard(atoms, threshold=1.0)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_potential_energies()
    atoms.get_potential_energy()
    assert "energy_epistemic_std" not in loaded.extras  # not even as None
    with pytest.raises(ConfigError, match="contradicts"):
        ExportedCalculator(program, unit="eV")
    with pytest.raises(ConfigError, match="on_uncertain"):
        ExportedCalculator(program, "explode")
    with pytest.raises(ConfigError, match="ExportedCalculator runs it"):
        PrunedCalculator(program)


def rewritten(program, path, change):
    """A copy of the file whose description is another one."""
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith(DESCRIPTION):
                content = change(content)
            if content is not None:
                new.writestr(entry.filename, content)
    return path


def test_wrong_files_are_refused_in_one_sentence(program, tmp_path):
    (tmp_path / "text.pt2").write_text("no program")
    (tmp_path / "half.pt2").write_bytes(program.read_bytes()[:20_000])
    (tmp_path / "m.onnx").write_text("")
    rewritten(program, tmp_path / "others.pt2", lambda _: None)
    rewritten(program, tmp_path / "odd.pt2", lambda _: b"[1, 2]")
    rewritten(program, tmp_path / "names.pt2", lambda c: c.replace(b'"variance"', b'"variety"'))
    rewritten(program, tmp_path / "fewer.pt2", lambda c: c.replace(b', "stress"', b""))
    rewritten(
        program, tmp_path / "level.pt2", lambda c: c.replace(b'"energy", "unit', b'"gap", "unit')
    )
    for name, error, complaint in [
        ("gone.pt2", InputError, "there is no program"),
        ("text.pt2", InputError, "is no exported program"),
        ("half.pt2", InputError, "is no exported program"),
        ("others.pt2", InputError, "is no exported program"),
        ("odd.pt2", InputError, "description cannot be used"),
        ("names.pt2", InputError, "inputs or outputs are not known"),
        ("level.pt2", ConfigError, "is no potential energy"),
        ("m.onnx", ConfigError, "for ONNX Runtime"),
        (".", ConfigError, "is a model, which .*PrunedCalculator takes"),
    ]:
        with pytest.raises(error, match=complaint) as caught:
            ExportedCalculator(tmp_path / name)
        assert "\n" not in str(caught.value)
    atoms = ethanol()
    atoms.calc = ExportedCalculator(tmp_path / "fewer.pt2")
    with pytest.raises(InputError, match="cannot compute the structure"):
        atoms.get_potential_energy()


def test_a_program_that_torch_cannot_read(program, tmp_path):
    path = tmp_path / "newer.pt2"
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            if "models/" not in entry.filename:
                new.writestr(entry.filename, old.read(entry))
    with pytest.raises(InputError, match=r"torch .* cannot read the program") as caught:
        ExportedCalculator(path)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_potentials_without_error_bars_have_none(program, tmp_path):
    path = rewritten(
        program, tmp_path / "m.pt2", lambda c: c.replace(b'bars": true', b'bars": false')
    )
    atoms = ethanol()
    atoms.calc = ExportedCalculator(path)
    atoms.get_potential_energy()
    assert "energy_uncertainty" not in atoms.calc.extras
