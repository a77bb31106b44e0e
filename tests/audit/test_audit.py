"""The audit finds the fault of a calculator that was made with one, and no others."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from hand_made import HandMade, labelled
from trained_models import ethanol, trained

from egnn_prune.ase import PrunedCalculator
from egnn_prune.audit import AuditReport, audit
from egnn_prune.audit.speed import grown
from egnn_prune.errors import InputError


def audited(structures=None, a=None, sizes=(), md_steps=0, **faults: float) -> AuditReport:
    structures = labelled() if structures is None else structures
    return audit(a or HandMade(), HandMade(**faults), structures, sizes=sizes, md_steps=md_steps)


def verdicts(report: AuditReport) -> dict[str, str]:
    return {one.name: one.verdict for one in report.errors}


def broken(report: AuditReport) -> set[tuple[str, str]]:
    return {(row["who"], row["symmetry"]) for row in report.symmetry if not row["kept"]}


def sound(report: AuditReport, *parts: str) -> bool:
    """Whether symmetries, slopes and jumps of both are as they should be, but for some parts."""
    slopes = all(row["gradient"] and row["smooth"] for row in report.smoothness)
    return ("symmetry" in parts or not broken(report)) and ("slopes" in parts or slopes)


def test_nothing_is_found_of_equals():
    report = audited(md_steps=60, sizes=(9, 30))
    assert set(verdicts(report).values()) == {"equal"} and sound(report)
    assert not any(row["drifts"] or row["stopped"] for row in report.dynamics)
    assert [row["atoms"] for row in report.speed] == [9, 36]
    assert not any("worse" in said or "break" in said for said in report.findings)


def test_a_shift_of_the_energy():
    report = audited(shift=0.27)
    shift = report.differences[0]
    assert shift["value"] == pytest.approx(1000 * 0.27 / 9) and shift["low"] > 29
    assert verdicts(report) == {
        "energy MAE": "B is worse",
        "energy RMSE, zeros aligned": "equal",
        "force RMSE": "equal",
        "force MAE": "equal",
    }
    assert sound(report) and any("+30 meV/atom" in said for said in report.findings)


def test_a_symmetry_that_is_broken():
    report = audited(stretch=0.01)
    assert broken(report) == {("b", "rotation"), ("b", "reflection")} and sound(report, "symmetry")
    assert any("B breaks the symmetry of rotation and of reflec" in s for s in report.findings)


def test_forces_that_are_no_gradient():
    report = audited(scale=1.1)
    a, b = report.smoothness
    assert a["gradient"] and not b["gradient"] and b["smooth"] and sound(report, "slopes")
    assert any("B's forces are not the gradient" in said for said in report.findings)


def test_an_energy_that_jumps():
    report = audited(stairs=0.05)
    a, b = report.smoothness
    assert a["smooth"] and not b["smooth"]
    assert any(line["energy_jump"] == pytest.approx(50, rel=0.1) for line in b["lines"])
    assert any("B is not smooth: along a line its energy jumps" in s for s in report.findings)


def test_energy_that_is_not_conserved():
    a, b = audited(md_steps=80, swirl=0.3).dynamics
    assert not a["drifts"] and b["drifts"] and b["total"][-1] > 10


def test_worse_on_one_element():
    report = audited(wrong_on=8)
    assert {one.name: one.verdict for one in report.groups["element"]} == {
        "H": "equal",
        "C": "equal",
        "O": "B is worse",
    }
    worse = {one.name for one in report.groups["neighbours"] if one.verdict == "B is worse"}
    assert worse and all(name.startswith("O with") for name in worse)
    assert all(row["surroundings"].startswith("O with") for row in report.worst)
    assert report.worst[0]["b"] == max(report.structures["b"])
    assert verdicts(report)["force RMSE"] == "B is worse"
    assert any("By element, forces got worse on O" in said for said in report.findings)
    # along x, y and z, which the energy knows nothing of
    assert broken(report) == {("b", name) for name in ("rotation", "reflection", "translation")}


def test_what_cannot_be_told_is_not_decided():
    """Both err alike, by independent noise: no sign of the difference is certain."""
    report = audited(a=HandMade(noise=0.1, shift=1e-9), noise=0.1, structures=labelled(6))
    assert verdicts(report)["force RMSE"] in ("not decided", "equal")


def test_the_interval_is_of_the_structures():
    """One bad structure in few says nothing of others: the interval is wide where it is alone."""
    structures = labelled(12)
    for atoms in structures:
        atoms.calc.results["forces"] = atoms.calc.results["forces"].copy()
    structures[3].calc.results["forces"] += 0.5
    # the fault is in a label, so both are as wrong
    report = audited(structures, shift=0.0)
    assert verdicts(report)["force RMSE"] == "equal"
    assert report.errors[2].a == pytest.approx(500 / math.sqrt(12), rel=1e-6)


def test_error_bars_of_half_the_length():
    report = audited(structures=labelled(24), noise=0.1, stated=0.05)
    (row,) = report.calibration
    assert (row["who"], row["quantity"]) == ("b", "forces")
    assert row["rms_ratio"] == pytest.approx(2, rel=0.1) and row["coverage_90"] < 0.7


def test_strain_is_of_the_bonds_that_were_pulled():
    """One O-H bond is 40 % too long in the last structure: its atoms are the strained ones."""
    structures = labelled(8, labels=False)
    pulled = structures[-1]
    oxygen = int(np.flatnonzero(pulled.numbers == 8)[0])
    h = int(pulled.get_distances(oxygen, np.flatnonzero(pulled.numbers == 1)).argmin())
    h = int(np.flatnonzero(pulled.numbers == 1)[h])
    pulled.set_distance(oxygen, h, 1.2, fix=0)
    report = audited(structures, wrong_on=8)
    assert max(float(one.name.split()[2]) for one in report.groups["strain of bonds"]) > 20


def test_without_labels_it_is_a_distance():
    report = audited(structures=labelled(8, labels=False), wrong_on=8)
    assert not report.errors and not report.about["labels"] and not report.calibration
    oxygen = next(one for one in report.groups["element"] if one.name == "O")
    assert oxygen.a == 0 and oxygen.b > 50
    assert "no labels" in report.findings[0]
    assert not any("worse" in said for said in report.findings)


def test_it_is_the_same_again_and_json_holds_no_nan(tmp_path):
    first, second = (audited(wrong_on=8, structures=labelled(5)).to_json() for _ in range(2))
    text = json.dumps(first, allow_nan=False)
    assert text == json.dumps(second, allow_nan=False)


def test_a_limit_draws_structures():
    report = audit(
        HandMade(), HandMade(), labelled(9, labels=False), limit=4, md_steps=0, sizes=[], seed=1
    )
    rows = report.structures["rows"]
    assert len(rows) == 4 and rows == sorted(set(rows)) and rows != [0, 1, 2, 3]


@pytest.mark.parametrize("periodic", [False, True])
def test_grown_structures_hold_whole_copies(periodic):
    atoms = ethanol(0.0, 0)
    if periodic:
        atoms.set_cell([6.0, 7.0, 8.0])
        atoms.pbc = True
    large = grown(atoms, 60)
    assert len(large) >= 60 and len(large) % 9 == 0 and bool(large.pbc.all()) is periodic
    distances = large.get_all_distances(mic=periodic)
    assert distances[np.triu_indices(len(large), 1)].min() > 0.9
    # of a molecule exactly as many copies as are needed
    assert periodic or len(large) == 63


def test_a_single_structure_decides_nothing():
    report = audited(structures=labelled(1), scale=1.5)
    assert verdicts(report)["force RMSE"] == "not decided" and report.errors[-1].b > 0
    assert json.dumps(report.to_json(), allow_nan=False)


def test_crystals_of_one_atom(tmp_path):
    """Nothing in them can move against another, and no force is other than zero."""
    structures = [bulk("Cu", a=a) for a in (3.5, 3.6, 3.7)]
    report = audit(EMT(), LennardJones(), structures, md_steps=60, sizes=[4])
    assert not report.dynamics and not broken(report) and report.speed[0]["atoms"] == 4
    assert any(row["name"].startswith("stress") for row in report.differences)
    assert report.write(tmp_path).is_file()


# ------------------------------------------------------------------------------------ refusals


class Forceless(HandMade):
    implemented_properties = ["energy"]  # noqa: RUF012


class Broken(HandMade):
    def calculate(self, *arguments, **keywords) -> None:
        super().calculate(*arguments, **keywords)
        self.results["forces"] = self.results["forces"] * np.nan


class Failing(HandMade):
    def calculate(self, *arguments, **keywords) -> None:
        raise RuntimeError("SCF did\nnot converge")


@pytest.mark.parametrize(
    ("b", "said"),
    [
        (Forceless(), "new computes no forces"),
        (Broken(), r"new gives an energy, force or stress of structure 0 \(C2H6O\) that is NaN"),
        (Failing(), r"new cannot compute structure 0 \(C2H6O\): SCF did not converge"),
        ("emt", "new must be a calculator of ASE, not str"),
    ],
)
def test_calculators_that_are_refused(b, said):
    with pytest.raises(InputError, match=said):
        audit(HandMade(), b, labelled(3), names=("old", "new"))


def test_elements_that_a_network_never_saw_are_refused_before_anything_is_computed():
    structures = labelled(3, labels=False)
    structures[1].numbers[0] = 9
    with pytest.raises(InputError, match="new does not know the element F of structure 1"):
        audit(Failing(), PrunedCalculator(trained(), unit="eV"), structures, names=("old", "new"))


def test_structures_that_are_refused():
    partly = labelled(3)
    partly[1].calc = None
    infinite = labelled(3)
    infinite[2].calc.results["energy"] = math.inf
    misplaced = labelled(3)
    misplaced[1].positions[0, 0] = math.nan
    cases = {
        "no structures of more than one atom": [],
        "structure 1 has no number 'energy'": partly,
        "structure 2 has a label that is NaN": infinite,
        "structure 1 has a NaN or infinite position": misplaced,
    }
    for said, structures in cases.items():
        with pytest.raises(InputError, match=said):
            audited(structures)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"limit": 0}, "limit must be"),
        ({"md_steps": 3}, "md_steps must be"),
        ({"sizes": [0]}, "a size is a number of atoms"),
        ({"sizes": [10**9]}, "a size is a number of atoms"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_arguments_that_are_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        audit(HandMade(), HandMade(), labelled(3), **arguments)
