"""A small network with a teacher: who answers, what is collected, when it learns."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import Calculator
from small_specialist import ZERO, CountingTeacher, improvement, labelled, specialist
from trained_models import calibrated, ethanol, last_layer, network, trained

from egnn_prune import save
from egnn_prune.ase import PrunedCalculator, SpecialistCalculator, UncertaintyExceeded
from egnn_prune.ase.calculator import UncertaintyWarning
from egnn_prune.ase.collection import Collection
from egnn_prune.ase.sampling import atoms_of
from egnn_prune.ase.teacher import EnergyOffset, Teacher, TeacherFailed
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.uncertainty import SinglePass

FAR = 0.4


@pytest.fixture(scope="module")
def model():
    return specialist()


def calculator(model, teacher=None, action="ask", **options) -> SpecialistCalculator:
    return SpecialistCalculator(model, teacher, action, device="cpu", unit="eV", **options)


def own(model, atoms: Atoms) -> tuple[float, np.ndarray]:
    """What the network alone says."""
    copied = atoms.copy()
    copied.calc = PrunedCalculator(model, None, "ignore", "cpu", unit="eV")
    return copied.get_potential_energy(), copied.get_forces()


def unlike(seed: int = 0) -> Atoms:
    return ethanol(FAR, seed)


# ------------------------------------------------------------------------------ who answers


def test_the_network_answers_where_it_is_sure_and_the_teacher_elsewhere(model):
    teacher = CountingTeacher()
    calc = calculator(model, teacher)
    alike = ethanol(0.01, 3)
    alike.calc = calc
    energy, forces = own(model, alike)
    assert alike.get_potential_energy() == energy and np.array_equal(alike.get_forces(), forces)
    assert not calc.last.asked and calc.last.reason == "" and len(calc.collection) == 0
    met = teacher.calls  # once, at the first structure, for the offset of energies
    assert met == 1
    far = unlike()
    far.calc = calc
    truth = far.copy()
    truth.calc = CountingTeacher()
    assert np.array_equal(far.get_forces(), truth.get_forces())
    assert not np.allclose(far.get_forces(), own(model, far)[1], atol=1e-3)
    assert calc.last.asked and "deviation of the force on atom" in calc.last.reason
    assert calc.last.max_force_std > calc.last.threshold
    assert teacher.calls == met + 1 and len(calc.collection) == 1
    # the same structure is not decided on again, whatever is asked for
    calc.get_property("energy_uncertainty", far), calc.get_property("forces_uncertainty", far)
    assert np.array_equal(far.get_forces(), truth.get_forces())
    assert teacher.calls == met + 1 and len(calc.collection) == 1
    # not ours to decide: the network's own error bars stay beside the teacher's forces
    assert calc.results["forces_uncertainty"].max() == pytest.approx(calc.last.max_force_std)


def test_energies_do_not_jump_between_network_and_teacher(model):
    calc = calculator(model, CountingTeacher())
    start = ethanol(0.01, 3)
    start.calc = calc
    first = start.get_potential_energy()
    far = unlike()
    truth = far.copy()
    truth.calc = CountingTeacher()
    far.calc = calc
    start_of_teacher = ethanol(0.01, 3)
    start_of_teacher.calc = CountingTeacher()
    change = truth.get_potential_energy() - start_of_teacher.get_potential_energy()
    assert far.get_potential_energy() - first == pytest.approx(change, abs=1e-8)
    # with labels, the offset is that of labels less the teacher
    calc = calculator(model, CountingTeacher(), val=labelled(6, 300))
    far.calc = calc
    expected = truth.get_potential_energy() - ZERO * 9
    assert far.get_potential_energy() == pytest.approx(expected, abs=1e-6)


def test_offsets_of_compositions():
    offset = EnergyOffset()
    shifts = {1: -3.0, 8: 500.0}
    kinds = [[8, 1, 1], [8, 1]]
    offset.fit(kinds, [sum(shifts[z] for z in kind) for kind in kinds])
    assert offset.knows([8, 8, 1]) and offset([8, 8, 1]) == pytest.approx(997.0)
    assert not offset.knows([6, 1])
    offset.settle([6, 1], 7.0)
    assert offset.knows([1, 6]) and offset([1, 6]) == 7.0
    collinear = EnergyOffset()
    collinear.fit([[8, 1, 1], [8, 1, 1]], [494.0, 494.0])
    assert collinear([8, 1, 1, 8, 1, 1]) == pytest.approx(988.0)
    assert not collinear.knows([8, 1])  # oxygen and hydrogen cannot be told apart


def test_a_crystal_gets_the_stress_of_whoever_answers(model):
    box = Atoms("CO", positions=[[0, 0, 0], [1.2, 1.4, 1.3]], cell=[3, 3.2, 3.4], pbc=True)
    teacher = Teacher(SinglePass(network(seed=1)), "cpu")
    calc = calculator(model, teacher)
    box.calc = calc
    truth = box.copy()
    truth.calc = teacher.calculator
    assert calc.get_property("stress", box) == pytest.approx(truth.get_stress())
    assert calc.last.asked
    box.calc = calculator(model, CountingTeacher())  # which has no stress
    with pytest.raises(NotImplementedError):
        box.get_stress()


@pytest.mark.parametrize("action", ["warn", "ignore"])
def test_without_asking_the_network_answers_always(model, action):
    calc = calculator(model, None, action)
    far = unlike()
    far.calc = calc
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        forces = far.get_forces()
        other = unlike(1)
        other.calc = calc
        other.get_forces()
    assert np.array_equal(forces, own(model, far)[1]) and calc.last.reason
    said = [w for w in caught if w.category is UncertaintyWarning]
    assert len(said) == (action == "warn")


def test_stop(model):
    calc = calculator(model, None, "stop")
    alike = ethanol(0.01, 3)
    alike.calc = calc
    alike.get_forces()
    far = unlike()
    far.calc = calc
    with pytest.raises(UncertaintyExceeded, match="deviation of the force on atom"):
        far.get_forces()
    assert "forces" not in calc.results


def test_thresholds(model):
    strict = calculator(model, CountingTeacher(), forces_threshold=1e-9)
    alike = ethanol(0.01, 3)
    alike.calc = strict
    alike.get_forces()
    assert strict.last.asked
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(ConfigError, match="forces_threshold must be a positive deviation"):
            calculator(model, CountingTeacher(), forces_threshold=wrong)


# ------------------------------------------------------------------------------ random checks


def test_random_checks_compare_and_change_nothing(model):
    def run(seed: int, check: float = 0.4) -> list[tuple[float, float]]:
        calc, found = calculator(model, CountingTeacher(), "ignore", check=check, seed=seed), []
        for k in range(20):
            atoms = ethanol(0.03, k)
            atoms.calc = calc
            assert np.allclose(atoms.get_forces(), own(model, atoms)[1], atol=1e-6)
            found.append((calc.last.checked_error, calc.last.checked_inside))
            assert not calc.last.asked
        return found

    first = run(1)
    done = [k for k, (error, _) in enumerate(first) if error == error]
    assert 3 <= len(done) <= 13
    assert np.array_equal(first, run(1), equal_nan=True)
    assert not np.array_equal(first, run(2), equal_nan=True)
    atoms = ethanol(0.03, done[0])
    truth = atoms.copy()
    truth.calc = CountingTeacher()
    wrong = truth.get_forces() - own(model, atoms)[1]
    assert first[done[0]][0] == pytest.approx(np.sqrt(np.mean(wrong**2)))
    assert 0.7 < np.mean([first[k][1] for k in done]) <= 1
    assert not [error for error, _ in run(1, 0.0) if error == error]


def test_a_check_that_fails_is_said_once(model):
    calc = calculator(model, CountingTeacher(fails_at=1), "ignore", check=1.0)
    with pytest.warns(UserWarning, match="a random check failed: the teacher Count") as caught:
        for k in range(3):
            atoms = ethanol(0.03, k)
            atoms.calc = calc
            assert np.isfinite(atoms.get_forces()).all()
    assert len(caught) == 1


# ------------------------------------------------------------------------------ a teacher


def test_a_teacher_that_fails_is_a_sentence_and_what_it_was_asked_is_kept(model):
    calc = calculator(model, CountingTeacher(fails_at=2))
    far = unlike()
    far.calc = calc
    with pytest.raises(TeacherFailed, match=r"could not compute C2H6O .SCF did not conv") as caught:
        far.get_forces(), unlike(1)
        other = unlike(1)
        other.calc = calc
        other.get_forces()
    assert "\n" not in str(caught.value) and "forces" not in calc.results
    (kept,) = [item for item in calc.collection.waiting if item.labels is None]
    assert kept.uncertainty > calc.forces_threshold


def test_labels_that_are_not_finite(model):
    class Broken(Calculator):
        implemented_properties = ["energy", "forces"]  # noqa: RUF012

        def calculate(self, atoms, *arguments: object) -> None:
            self.results = {"energy": math.nan, "forces": np.zeros((len(atoms), 3))}

    with pytest.raises(TeacherFailed, match="NaN or infinite"):
        Teacher(Broken())(ethanol())


def test_a_teacher_without_an_element(model):
    teacher = Teacher(SinglePass(network(seed=1)), "cpu")
    teacher.calculator.model.estimator.network.elements = (1, 6)
    far = unlike()
    far.calc = calculator(model, teacher)
    with pytest.raises(ConfigError, match="does not know the element O; take another teacher"):
        far.get_forces()


def test_teachers_by_what_they_are(tmp_path, model):
    path = tmp_path / "finetuned.safetensors"
    save(SinglePass(network(seed=1)), path, target="energy", unit="eV")
    for given in (path, str(path), network(seed=1), SinglePass(network(seed=1))):
        labels = Teacher(given, "cpu")(ethanol())
        assert np.array_equal(labels.forces, Teacher(network(seed=1), "cpu")(ethanol()).forces)
    assert Teacher(path).name == str(path)
    with pytest.raises(InputError, match=r"there is no potential and no file 'no-such'"):
        Teacher("no-such")
    with pytest.raises(ConfigError, match=r"is a folder; name a file"):
        Teacher(tmp_path)


def test_another_level_of_theory_is_refused(model):
    graphs = labelled(10, 300)
    calc = calculator(model, CountingTeacher(), val=graphs)
    assert calc.agreement.teacher_rmse < 1e-6 < calc.agreement.network_rmse
    text = calc.agreement.text()
    assert "-250 eV/atom" in text and "teacher's forces are those of the labels" in text
    for graph in graphs:  # labels that the network is right about, to 1 meV/Angstrom
        graph.forces = torch.from_numpy(own(model, atoms_of(graph))[1] + 0.001)
    said = r"another level of theory .* 12\.\d meV/A.* the small network's 1; .*labels=teacher"
    for action in ("ask", "learn"):
        with pytest.raises(ConfigError, match=said):
            calculator(model, CountingTeacher(), action, train=graphs, val=graphs)
    with pytest.warns(UserWarning, match="another level of theory"):
        calculator(model, CountingTeacher(), "ignore", check=0.1, val=graphs)


# ------------------------------------------------------------------------------ learning


def learner(model, improve, folder: Path | None = None, **options) -> SpecialistCalculator:
    how = {"train": labelled(4, 100), "val": labelled(4, 200), "learn_every": 3} | options
    return calculator(model, CountingTeacher(), "learn", improve=improve, folder=folder, **how)


def meet(calc: SpecialistCalculator, *seeds: int) -> list[bool]:
    found = []
    for seed in seeds:
        atoms = unlike(seed)
        atoms.calc = calc
        atoms.get_forces()
        found.append(calc.last.learned)
    return found


def test_it_learns_after_every_few_and_swaps_only_for_a_better_one(model, tmp_path):
    better, calls = specialist(0.5), []

    def improve(estimator, new, train, val, settings, **how):
        calls.append((estimator, new, len(train), len(val)))
        return improvement(better if len(calls) > 1 else estimator, len(calls) > 1, len(new))

    calc = learner(model, improve, tmp_path)
    before, limit = calc.model.estimator, calc.forces_threshold
    assert meet(calc, 0, 1, 2) == [False] * 3 and len(calls) == 1
    assert calc.model.estimator is before and calc.forces_threshold == limit
    assert len(calc.collection.waiting) == 3 and not list(tmp_path.glob("model-*"))
    assert meet(calc, 3, 4, 5) == [False, False, True]
    assert len(calls) == 2 and [len(new) for _, new, _, _ in calls] == [3, 6]
    assert calc.model.estimator is better and calc.forces_threshold != limit
    assert not calc.collection.waiting and len(calc.collection.learned) == 6
    # labels are the teacher's, at the network's zero
    graph = calls[1][1][0]
    truth = unlike(0)
    truth.calc = CountingTeacher()
    assert np.array_equal(graph.forces, truth.get_forces())
    assert float(graph.y) == pytest.approx(truth.get_potential_energy() - 9 * ZERO)
    # now sure of what it was not sure of
    assert meet(calc, 0) == [False] and not calc.last.asked
    assert (tmp_path / "model-000.safetensors").is_file()
    assert [attempt["accepted"] for attempt in calc.attempts] == [False, True]
    # what was learned is trained on again
    calc.forces_threshold = 1e-9
    meet(calc, 11, 12, 13)
    assert calls[-1][2:] == (4 + 6, 4)


def test_another_run_in_the_folder_goes_on(model, tmp_path):
    path = tmp_path / "specialised.safetensors"
    save(model, path, target="energy", unit="eV")
    better = specialist(0.5)

    def improve(estimator, new, *rest, **how):
        return improvement(better, True, len(new))

    folder = tmp_path / "md"
    assert meet(learner(path, improve, folder), 0, 1, 2)[-1]
    calc = learner(path, improve, folder)
    assert calc.forces_threshold == pytest.approx(float(better.atoms.std_limit))
    assert len(calc.collection.learned) == 3 and len(calc.attempts) == 1
    meet(calc, 0)
    assert not calc.last.asked
    other = tmp_path / "other.safetensors"
    save(model, other, target="energy", unit="eV")
    with pytest.raises(ConfigError, match=r"goes on from .*specialised.*; choose another folder"):
        learner(other, improve, folder)
    with pytest.raises(ConfigError, match=r"labels in .* are of the teacher CountingTeacher, not"):
        calculator(path, Teacher(network(seed=1)), "ask", folder=folder)
    (folder / "model-000.safetensors").unlink()
    with pytest.raises(InputError, match=r"holds no model-000"):
        learner(path, improve, folder)
    (folder / "specialist.json").write_text("[]")
    with pytest.raises(InputError, match=r"specialist.json is missing or damaged"):
        learner(path, improve, folder)


def test_learning_labels_what_has_none_and_survives_a_fit_that_fails(model):
    def improve(*arguments, **how):
        raise ConfigError("the fit diverged")

    calc = learner(model, improve, learn_every=2)
    calc.collection.add(unlike(5), 1.0)
    with pytest.warns(UncertaintyWarning, match="learned nothing: the fit diverged"):
        assert meet(calc, 0) == [False]
    assert len(calc.collection.waiting) == 2
    assert all(item.labels is not None for item in calc.collection.waiting)


def test_what_the_teacher_cannot_label_stops_no_learning(model):
    new = []

    def improve(estimator, structures, *rest, **how):
        new.append(len(structures))
        return improvement(estimator, True, len(structures))

    calc = learner(model, improve, learn_every=2)
    calc.collection.add(unlike(5), 1.0)

    def fails(atoms):
        if np.allclose(atoms.positions, unlike(5).positions):
            raise TeacherFailed("no convergence")
        return answer(atoms)

    answer, calc.teacher.__class__ = (
        calc.teacher.__call__,
        type("Failing", (Teacher,), {"__call__": lambda self, atoms: fails(atoms)}),
    )
    with pytest.warns(UserWarning, match="without a structure: no convergence"):
        assert meet(calc, 0) == [True]
    assert new == [1]
    (waits,) = calc.collection.waiting
    assert waits.labels is None and len(calc.collection.learned) == 1


def test_a_full_collection_does_not_end_learning(model):
    tried = []

    def improve(estimator, new, *rest, **how):
        tried.append(len(new))
        return improvement(estimator, False, len(new))

    calc = learner(model, improve, most=3)
    calc.collection.alike = 0.0
    for k in range(6):  # each less sure than the one before, so that it takes another's place
        atoms = ethanol(FAR + 0.1 * k, 0)
        atoms.calc = calc
        atoms.get_forces()
    assert calc.collection.kept == 6 and tried == [3, 3]


def test_a_network_that_cannot_be_written_is_not_used(model, tmp_path, monkeypatch):
    calc = learner(model, lambda e, new, *_, **__: improvement(specialist(0.5), True, 3), tmp_path)
    before = calc.model.estimator

    def full(*arguments: object) -> None:
        raise InputError("cannot write model-000.safetensors: no space left on device")

    monkeypatch.setattr("egnn_prune.ase.specialist_folder._save", full)
    with pytest.warns(UncertaintyWarning, match="learned nothing: cannot write model-000"):
        assert meet(calc, 0, 1, 2) == [False] * 3
    # so another run in this folder finds the same network, and what waits for it
    assert calc.model.estimator is before and len(calc.collection.waiting) == 3
    assert len(Collection(tmp_path).waiting) == 3
    (attempt,) = json.loads((tmp_path / "specialist.json").read_text())["attempts"]
    assert attempt["accepted"] is False and "no space left" in attempt["reason"]


def test_the_limits_of_a_learned_network_are_its_own(model, tmp_path):
    better = specialist(0.5)
    calc = learner(model, lambda e, new, *_, **__: improvement(better, True, 3), tmp_path)
    calc.threshold = 1e9  # as if the first network's file had stated it
    meet(calc, 0, 1)
    atoms = unlike(2)
    atoms.calc = calc
    atoms.get_forces()
    assert calc.last.learned
    written = PrunedCalculator(tmp_path / "model-000.safetensors", device="cpu")
    scores = [written.model.predict([graph])[0].ood_score for graph in labelled(4, 200)]
    assert calc.threshold == written.threshold == pytest.approx(np.quantile(scores, 0.99))


def test_learning_by_hand_answers_anew(model):
    better = specialist(0.5)
    calc = learner(model, lambda e, new, *_, **__: improvement(better, True, len(new)))
    meet(calc, 0, 1)
    alike = ethanol(0.01, 3)
    alike.calc = calc
    old = alike.get_forces()
    better.network.scale = replace(better.network.scale, scale=2 * better.network.scale.scale)
    assert calc.learn() and np.allclose(alike.get_forces(), 2 * old)


def test_arguments_that_contradict_each_other(model):
    for options, what in (
        (dict(action="ask"), "on_uncertain=ask asks a teacher, and there is none"),
        (dict(action="warn", check=0.1), "check=0.1 asks a teacher"),
        (dict(teacher=CountingTeacher(), check=1.5), "probability in"),
        (dict(teacher=CountingTeacher(), action="raise"), "on_uncertain must be one of"),
        (dict(teacher=CountingTeacher(), action="learn"), "labelled structures that the network"),
        (dict(teacher=CountingTeacher(), action="learn", learn_every=1), "at least 2 structures"),
        (
            dict(teacher=CountingTeacher(), action="learn", learn_every=9, most=5),
            "as many as are collected",
        ),
    ):
        with pytest.raises(ConfigError, match=what):
            calculator(model, **options)
    with pytest.raises(ConfigError, match="give teacher=, train= and val="):
        calculator(model, CountingTeacher()).learn()
    bare = calibrated(last_layer(torch.float64))
    with pytest.raises(ConfigError, match=r"holds no error bars of forces.*fit_atom_error_bars"):
        calculator(bare, CountingTeacher())
    water = molecule("H2O")
    water.calc = calculator(model, CountingTeacher())
    water.get_forces()
    assert water.calc.last.asked


def test_a_run_of_specialise_is_opened_by_its_folder(tmp_path):
    save(trained(), tmp_path / "specialised.safetensors", target="energy", unit="eV")
    assert PrunedCalculator(tmp_path).model.source.endswith("specialised.safetensors")
    with pytest.raises(InputError, match=r"holds no dense.safetensors"):
        PrunedCalculator(tmp_path, which="dense")
