"""A structure whose atoms move: its numbers are those of structures that are read anew."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import small_adopted
import torch
from ase import Atoms
from trained_models import METHODS, ethanol, network, trained

from egnn_prune.ase.calculator import PrunedCalculator
from egnn_prune.ase.structures import graph_of
from egnn_prune.deployment import moving_structure
from egnn_prune.deployment.moving_structure import room_for
from egnn_prune.deployment.recorded_pass import RecordedPass
from egnn_prune.deployment.trained_model import TrainedModel
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.models import EGNNOptions
from egnn_prune.uncertainty import DeepEnsemble, SinglePass

PROPERTIES = ("energy", "forces", "energy_uncertainty")


@pytest.fixture(autouse=True)
def _early(monkeypatch):
    """Passes are recorded at the third step, not after a hundred."""
    monkeypatch.setattr(moving_structure, "RECORD_AFTER", 2)


def crystal() -> Atoms:
    """A skewed cell that the cutoff is longer than."""
    cell = np.diag([3.0, 3.4, 3.8]) + 0.3 * np.random.default_rng(0).normal(size=(3, 3))
    places = np.array([[0.1, 0.1, 0.1], [0.5, 0.6, 0.4], [0.2, 0.5, 0.9]])
    return Atoms("HCO", scaled_positions=places, cell=cell, pbc=True)


def checked_walk(calculator: PrunedCalculator, atoms: Atoms, steps: int = 6, **more) -> None:
    """A random walk; every structure is also predicted as one that nobody saw before."""
    atoms.calc, rng = calculator, np.random.default_rng(1)
    for step in range(steps):
        size = 0.6 if step == 4 else 0.02
        atoms.positions += size * rng.normal(size=atoms.positions.shape)
        if more.get("strain"):
            atoms.set_cell(atoms.cell.array * rng.normal(1, 0.01, size=(3, 3)), scale_atoms=True)
        forces = atoms.get_forces()
        (new,) = calculator.model.predict(
            [graph_of(atoms)], forces=True, stress=bool(atoms.pbc.all())
        )
        assert atoms.get_potential_energy() == pytest.approx(new.mean, abs=1e-9)
        assert np.allclose(forces, new.forces, rtol=1e-9, atol=1e-9 * np.abs(forces).max())
        if new.std is not None:
            assert calculator.extras["energy_uncertainty"] == pytest.approx(new.std, rel=1e-6)
        if new.stress is not None:
            xx, *_, xy = atoms.get_stress()
            assert xx == pytest.approx(new.stress[0, 0], rel=1e-7, abs=1e-9)
            assert xy == pytest.approx(new.stress[0, 1], rel=1e-7, abs=1e-9)


#: Methods of several networks or passes, a record for each of which takes seconds; and one that
#: another stands for.
SLOW = ("dropout", "shallow", "deep", "last layer")


def records(calculator: PrunedCalculator) -> list[RecordedPass]:
    assert calculator._moving is not None
    return list(calculator._moving[1]._records.values())


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        pytest.param(k, kind, marks=pytest.mark.slow if kind in SLOW else ())
        for k, kind in enumerate(METHODS)
    ],
)
def test_a_recorded_pass_says_what_the_model_says(number, kind):
    build = (ethanol, crystal)[number % 2]
    calculator = PrunedCalculator(trained(kind), unit="eV", on_uncertain="ignore")
    checked_walk(calculator, build())
    assert records(calculator)


def test_somebody_elses_potential():
    model = SinglePass(small_adopted.potential(self_connection="elements"))
    calculator = PrunedCalculator(model, on_uncertain="ignore")
    checked_walk(calculator, crystal())


def test_without_a_cutoff():
    options = EGNNOptions(attention=True, radial=12)
    calculator = PrunedCalculator(SinglePass(network(options=options)), unit="eV")
    checked_walk(calculator, ethanol())
    assert records(calculator)


@pytest.mark.slow
@pytest.mark.parametrize("cutoffs", [(2.0, 3.5), (None, 2.5)])
def test_networks_with_different_cutoffs(cutoffs):
    members = [network(options=EGNNOptions(radial=8, cutoff=cutoff)) for cutoff in cutoffs]
    calculator = PrunedCalculator(SinglePass(DeepEnsemble(members)), unit="eV")
    checked_walk(calculator, ethanol())
    assert records(calculator)


def test_copies_of_a_calculator_record_for_themselves():
    calculator = PrunedCalculator(trained(), unit="eV", on_uncertain="ignore")
    checked_walk(calculator, ethanol())
    twin = copy.deepcopy(calculator)
    checked_walk(twin, ethanol())
    assert records(twin)[0] is not records(calculator)[0]


def test_changing_cells():
    calculator = PrunedCalculator(trained(), unit="eV", on_uncertain="ignore")
    checked_walk(calculator, crystal(), strain=True)
    assert records(calculator)


def test_what_changes_in_place_is_noticed():
    calculator = PrunedCalculator(trained(), unit="eV", on_uncertain="ignore")
    atoms = ethanol()
    checked_walk(calculator, atoms)
    atoms.numbers[0] = 8
    checked_walk(calculator, atoms, 2)
    atoms.cell, atoms.pbc = [6.0, 6, 6], True
    checked_walk(calculator, atoms, 2)
    atoms.pbc[0] = False
    checked_walk(calculator, atoms, 2)
    atoms.pop()
    checked_walk(calculator, atoms, 4)
    assert len(records(calculator)) == 1
    with torch.no_grad():  # the weights, as learning on the way changes them
        for weight in calculator.model.estimator.parameters():
            weight.mul_(1.1)
    checked_walk(calculator, atoms, 2)
    calculator.model = TrainedModel.load(trained("deep"), unit="eV")
    checked_walk(calculator, atoms, 2)


@pytest.mark.parametrize("steps", [1, 5])
def test_refuses_in_one_sentence_what_moved_to_nowhere(steps):
    atoms = ethanol()
    atoms.calc = PrunedCalculator(trained(), unit="eV", on_uncertain="ignore")
    for _ in range(steps):
        atoms.positions += 0.01
        energy = atoms.get_potential_energy()
    good = atoms.positions.copy()
    for bad, words in ((np.nan, "NaN or infinite position .atom 3"), (1e9, "farther than")):
        atoms.positions[3, 1] = bad
        with pytest.raises(DataError, match=words):
            atoms.get_potential_energy()
        atoms.positions = good
        assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-9)
    atoms.numbers[2] = 79
    with pytest.raises(DataError, match="element Au"):
        atoms.get_potential_energy()


def test_a_structure_that_gets_denser_gets_more_room():
    calculator = PrunedCalculator(trained(), unit="eV", on_uncertain="ignore")
    atoms = ethanol()
    atoms.positions *= 3
    checked_walk(calculator, atoms)
    (before,) = records(calculator)
    atoms.positions /= 3
    checked_walk(calculator, atoms)
    (after,) = records(calculator)
    assert after.shapes[1][1] > before.shapes[1][1]
    sizes = sorted({room_for(n) for n in range(1, 5000)})
    assert len(sizes) < 30 and all(room_for(n) >= n for n in range(5000))


def test_what_was_handed_out_stays():
    atoms = ethanol()
    atoms.calc = PrunedCalculator(trained(), unit="eV", on_uncertain="ignore")
    forces, graphs = [], []
    for _ in range(5):
        atoms.positions += 0.02 * np.random.default_rng(0).normal(size=(9, 3))
        forces.append((atoms.calc.get_forces(atoms), atoms.get_forces().copy()))
        graphs.append((atoms.calc.results.prediction.graph.pos, atoms.positions.copy()))
    assert all(np.array_equal(*pair) for pair in forces)
    assert all(np.array_equal(*pair) for pair in graphs)


# ------------------------------------------------------------------------ recorded functions


def test_a_record_folds_what_depends_on_no_input():
    weight = torch.arange(6.0).view(2, 3)

    def function(x):
        scale = torch.zeros(3)
        scale += weight.sum(0)  # written in place
        return [x @ weight.exp().T + scale.sum(), weight.sum(), x.clone().mul_(2)]

    record = RecordedPass(function, [torch.ones(4, 3)], [weight])
    for seed in range(3):
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        for new, old in zip(record(x), function(x), strict=True):
            assert torch.equal(new, old)
    assert record.is_current()
    weight.add_(1)
    assert not record.is_current()


READS, DRAWS = (lambda x: [x * float(x.sum())]), (lambda x: [x + torch.rand(2)])


@pytest.mark.parametrize("function", [READS, DRAWS])
def test_what_cannot_be_recorded_is_refused(function):
    with pytest.raises(ConfigError, match="cannot be recorded"):
        RecordedPass(function, [torch.ones(2)])


def test_what_reads_values_runs_as_it_is(monkeypatch):
    """A pass with a number of a tensor in it, which a record would hold on to."""
    plain = moving_structure.atom_pass

    def sneaky(method, batch, **asked):
        found = plain(method, batch, **asked)
        factor = 1 + float(batch.pos.detach().numpy().sum())
        return replace(found, forces=found.forces * factor)

    monkeypatch.setattr(moving_structure, "atom_pass", sneaky)
    calculator = PrunedCalculator(trained(), unit="eV", on_uncertain="ignore")
    atoms = ethanol()
    atoms.calc = calculator
    for _ in range(5):
        atoms.positions += 0.1
        atoms.get_forces()
    assert not records(calculator) and calculator._moving[1]._recordable is False


def test_compiling_that_fails_says_so_once_and_goes_on(monkeypatch):
    def broken(*_):
        raise RuntimeError("no compiler here\nlong text")

    monkeypatch.setattr(RecordedPass, "_compiled", staticmethod(broken))
    atoms = ethanol()
    atoms.calc = PrunedCalculator(trained(), unit="eV", compiled=True, on_uncertain="ignore")
    with pytest.warns(UserWarning, match="no compiler here; it runs as it is") as caught:
        atoms.get_forces()
    assert len(caught) == 1
    checked_walk(atoms.calc, atoms)


@pytest.mark.slow
def test_compiled_says_what_the_model_says():
    calculator = PrunedCalculator(trained(), unit="eV", compiled=True, on_uncertain="ignore")
    checked_walk(calculator, ethanol())
    assert len(records(calculator)) == 1  # forces bring the energy along


def test_replaced_weights_are_noticed():
    calculator = PrunedCalculator(trained(), unit="eV", on_uncertain="ignore")
    checked_walk(calculator, ethanol())
    assert records(calculator)
    method = calculator.model.method
    larger = {k: 1.2 * v if v.is_floating_point() else v for k, v in method.state_dict().items()}
    method.load_state_dict(larger, assign=True)  # other tensors, of which no version tells
    checked_walk(calculator, ethanol())
