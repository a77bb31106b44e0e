"""scripts/predict.py and its function: numbers, flags, files, and what is refused."""

from __future__ import annotations

import csv
import gzip
from functools import partial
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from torch_geometric.data import Batch
from trained_models import ethanol, trained

from egnn_prune import data, forces, save
from egnn_prune.ase.predict_file import predict_structures, write_predictions
from egnn_prune.ase.structures import graph_of, in_ase_units
from egnn_prune.deployment.trained_model import TrainedModel
from egnn_prune.deployment.training_domain import TrainingDomain
from egnn_prune.errors import ConfigError, DataError, InputError

ROOT = Path(__file__).parents[2]
KCAL = 0.04336410390059322  # eV in one kcal/mol


def structures() -> list[Atoms]:
    return [ethanol(), molecule("H2O"), molecule("CO2"), molecule("CH4"), ethanol(0.3, 1)]


def written(path: Path, frames: list[Atoms]) -> Path:
    ase.io.write(path, frames)
    return path


@pytest.fixture
def run(tmp_path):
    """``run(target=, unit=, kind=, **metadata)``: the folder of a run."""

    def make(target="energy", unit="eV", kind="shallow", **metadata: object) -> Path:
        path = tmp_path / "run" / "pruned.safetensors"
        path.parent.mkdir(exist_ok=True)
        save(trained(kind), path, target=target, unit=unit, **metadata)
        return path.parent

    return make


@pytest.mark.parametrize(
    ("kind", "batch_size"), [("shallow", 1), ("read-out dropout", 2), ("deep", 64)]
)
def test_rows_are_what_the_estimator_says_of_each(run, tmp_path, kind, batch_size):
    path = written(tmp_path / "s.xyz", structures())
    found = predict_structures(TrainedModel.load(run(kind=kind)), path, batch_size=batch_size)
    paths = write_predictions(found, tmp_path / "out")
    assert [p.name for p in paths] == ["predictions.csv", "predictions.extxyz"]
    with paths[0].open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("structure", "formula", "value", "std", "epistemic_std"),
        *("lower_90", "upper_90", "in_distribution", "unit"),
    ]
    estimator = trained(kind)
    for k, (row, atoms) in enumerate(zip(rows, structures(), strict=True)):
        graph = Batch.from_data_list([graph_of(ase.io.read(path, k))])
        expected = estimator.predict(graph)
        low, high = estimator.interval(graph, 0.9)
        assert (row["structure"], row["formula"]) == (str(k), atoms.get_chemical_formula())
        for name, value in (
            ("value", expected.mean),
            ("std", expected.variance.sqrt()),
            ("epistemic_std", expected.epistemic.sqrt()),
            ("lower_90", low),
            ("upper_90", high),
        ):
            assert float(row[name]) == pytest.approx(float(value), rel=1e-9)
        assert row["unit"] == "eV" and row["in_distribution"] == ""


def test_extxyz_has_energies_and_forces_in_the_units_of_ase(run, tmp_path):
    path = written(tmp_path / "s.xyz", structures())
    found = predict_structures(TrainedModel.load(run(unit="kcal/mol")), path)
    frames = ase.io.read(write_predictions(found, tmp_path)[1], ":")
    network = trained().network
    for k, (atoms, row) in enumerate(zip(frames, found.rows, strict=True)):
        expected = forces(network, graph_of(ase.io.read(path, k))).numpy()
        assert np.allclose(atoms.get_forces(), KCAL * expected, atol=2e-8)
        assert np.abs(atoms.get_forces()).max() > 1e-6
        assert atoms.get_potential_energy() == pytest.approx(KCAL * row["value"])
        assert atoms.info["energy_std"] == pytest.approx(KCAL * row["std"])
        assert atoms.info["structure"] == k and row["unit"] == "kcal/mol"


def test_a_target_that_is_no_energy_has_no_forces(run, tmp_path):
    path = written(tmp_path / "s.xyz", structures())
    found = predict_structures(TrainedModel.load(run("gap")), path)
    frames = ase.io.read(write_predictions(found, tmp_path)[1], ":")
    assert all(atoms.calc is None and "forces" not in atoms.arrays for atoms in frames)
    assert [a.info["gap"] for a in frames] == pytest.approx([r["value"] for r in found.rows])
    assert frames[0].info["unit"] == "eV" and frames[0].info["gap_std"] > 0


def test_the_flag_compares_epistemic_deviations_with_the_files_limit(run, tmp_path):
    path = written(tmp_path / "s.xyz", structures())
    plain = predict_structures(TrainedModel.load(run()), path)
    assert "unknown" in plain.summary()
    epistemic_stds = [row["epistemic_std"] for row in plain.rows]
    limit = sorted(epistemic_stds)[2]
    model = TrainedModel.load(run(validation_epistemic_std={"q99": limit, "max": 99.0}))
    found = predict_structures(model, path)
    expected = ["yes" if d <= limit else "no" for d in epistemic_stds]
    assert [row["in_distribution"] for row in found.rows] == expected
    assert expected.count("no") == 2 and "2 of them unlike" in found.summary()
    frames = ase.io.read(write_predictions(found, tmp_path)[1], ":")
    assert [a.info["in_distribution"] for a in frames] == [e == "yes" for e in expected]
    strict = predict_structures(model, path, threshold=1e-9)
    assert all(row["in_distribution"] == "no" for row in strict.rows)
    for wrong in (0.0, "1"):
        with pytest.raises(ConfigError, match="threshold must be positive"):
            predict_structures(model, path, threshold=wrong)


def test_what_is_unlike_the_training_structures_is_out_and_says_why(run, tmp_path, script):
    """The members agree on CO as on all else: what they were trained on tells."""
    domain = TrainingDomain.of([graph_of(ethanol(seed=seed)) for seed in range(20)])
    path = written(tmp_path / "s.xyz", [ethanol(seed=30), molecule("CO"), ethanol(seed=31)])
    old = predict_structures(TrainedModel.load(run(validation_epistemic_std={"q99": 1e9})), path)
    assert [row["in_distribution"] for row in old.rows] == ["yes"] * 3
    assert not any("reason" in row for row in old.rows)  # files written before hold no ranges
    known = {"validation_epistemic_std": {"q99": 1e9}, "training_domain": domain.to_json()}
    folder, out = run(**known), tmp_path / "out"
    found = predict_structures(TrainedModel.load(folder), path)
    assert [row["in_distribution"] for row in found.rows] == ["yes", "no", "yes"]
    assert found.rows[1]["reason"].startswith("it has 2 atoms, in training 9; 50 % of its atoms")
    assert [row["value"] for row in found.rows] == [row["value"] for row in old.rows]
    strict = predict_structures(TrainedModel.load(folder), path, threshold=1e-9)
    assert strict.rows[0]["reason"] == "its epistemic deviation is beyond 1e-09 eV"
    assert "beyond 1e-09 eV; it has 2 atoms" in strict.rows[1]["reason"]
    code, said, _ = script(folder, path, "--out", out)
    assert code == 0 and "1 of them unlike the training data" in said
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["in_distribution"] for row in rows] == ["yes", "no", "yes"]
    assert "in training 9" in rows[1]["reason"] and rows[0]["reason"] == ""
    frames = ase.io.read(out / "predictions.extxyz", ":")
    assert [a.info["in_distribution"] for a in frames] == [True, False, True]
    assert [a.arrays["atoms_in_distribution"].all() for a in frames] == [True, False, True]
    assert frames[1].info["reason"] == rows[1]["reason"]
    only = predict_structures(TrainedModel.load(run(training_domain=domain.to_json())), path)
    assert [row["in_distribution"] for row in only.rows] == ["", "no", ""]
    with pytest.raises(InputError, match="its training structures is damaged"):
        TrainedModel.load(run(training_domain={"size": 3}))


def test_gzipped_files_and_numbers_of_the_input(run, tmp_path):
    atoms = ethanol()
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.ones((9, 3)))
    atoms.info["name"] = "mine"
    plain = written(tmp_path / "s.extxyz", [atoms])
    packed = tmp_path / "s.extxyz.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    model = TrainedModel.load(run())
    found = predict_structures(model, packed)
    assert found.rows == predict_structures(model, plain).rows
    (frame,) = ase.io.read(write_predictions(found, tmp_path)[1], ":")
    assert frame.info["name"] == "mine"  # labels stay, energies of others do not
    assert frame.get_potential_energy() == pytest.approx(found.rows[0]["value"])
    assert not np.allclose(frame.get_forces(), 1.0)


def test_molecules_and_crystals_in_one_file(run, tmp_path):
    frames = [molecule("H2O"), crystal(), ethanol(), crystal()]
    path = written(tmp_path / "s.extxyz", frames)
    model = TrainedModel.load(run())
    together = predict_structures(model, path)
    for k, atoms in enumerate(frames):
        alone = predict_structures(model, written(tmp_path / "one.extxyz", [atoms]))
        assert together.rows[k]["value"] == pytest.approx(alone.rows[0]["value"], abs=1e-8)
    molecular = predict_structures(
        model, written(tmp_path / "one.extxyz", [Atoms("CO", crystal().positions)])
    )
    assert abs(molecular.rows[0]["value"] - together.rows[1]["value"]) > 1e-6  # images count


# ------------------------------------------------------------------------------ declared units


def crystal() -> Atoms:
    return Atoms("CO", positions=[[0, 0, 0], [1.2, 1.4, 1.3]], cell=[3, 3.2, 3.4], pbc=True)


def in_bohr(atoms: Atoms) -> Atoms:
    """The same structure as a file has it that declares atomic units."""
    out = atoms.copy()
    out.positions /= units.Bohr
    out.cell[:] /= units.Bohr
    out.info |= {"length_unit": "Bohr", "energy_unit": "Hartree", "forces_unit": "Hartree/Bohr"}
    out.info |= {"REF_energy": -2.0, "charge": 3.0}
    out.arrays["REF_forces"] = np.ones((len(out), 3))
    return out


EV_OF_HARTREE, PER_VOLUME = units.Hartree, units.Hartree / units.Bohr**3


def strained(**declared: str) -> Atoms:
    """A structure as a file has it, with every kind of label that depends on strain."""
    atoms = crystal()
    atoms.info |= {"energy_unit": "Hartree", "length_unit": "Bohr", **declared}
    atoms.info |= {"REF_stress": np.eye(3), "virial": np.arange(6.0), "stress_weight": 2.0}
    atoms.arrays["atomic_virials"] = np.ones((2, 9))
    labels = {"energy": -1.0, "forces": np.ones((2, 3)), "stress": np.arange(6.0)}
    atoms.calc = SinglePointCalculator(atoms, **labels, dipole=np.ones(3))
    return atoms


def test_stresses_and_virials_are_converted_with_the_rest():
    found = in_ase_units(strained())
    assert np.allclose(found.info["REF_stress"], PER_VOLUME * np.eye(3))
    assert np.allclose(found.info["virial"], EV_OF_HARTREE * np.arange(6))
    assert np.allclose(found.arrays["atomic_virials"], EV_OF_HARTREE)
    assert found.info["stress_weight"] == 2.0
    assert found.get_potential_energy() == pytest.approx(-EV_OF_HARTREE)
    assert np.allclose(found.get_forces(), EV_OF_HARTREE / units.Bohr)
    assert np.allclose(found.get_stress(), PER_VOLUME * np.arange(6))
    assert "dipole" not in found.calc.results  # nobody declares its unit
    # energy over volume, by its own numbers
    assert found.info["REF_stress"][0, 0] * found.cell.volume == pytest.approx(
        EV_OF_HARTREE * crystal().cell.volume
    )


def test_a_stress_that_declares_its_own_unit_stays_as_it_is():
    found = in_ase_units(strained(stress_unit="GPa"))
    assert np.allclose(found.info["REF_stress"], np.eye(3))
    assert found.info["stress_unit"] == "GPa" and "stress" not in found.calc.results
    assert np.allclose(found.info["virial"], EV_OF_HARTREE * np.arange(6))
    plain = crystal()
    plain.info["stress"] = np.eye(3)
    assert in_ase_units(plain) is plain


def test_a_stress_in_gpa_is_no_label_in_ase_units_where_nothing_else_is_declared():
    atoms = crystal()
    atoms.info["stress_unit"] = "GPa"
    atoms.set_momenta(np.ones((2, 3)))
    assert in_ase_units(atoms) is atoms
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, stress=np.arange(6.0))
    found = in_ase_units(atoms)
    assert "stress" not in found.calc.results and found.get_potential_energy() == -1.0
    assert found.info["stress_unit"] == "GPa" and np.all(found.get_momenta() == 1)


def test_what_a_calculator_computed_is_not_converted_again():
    atoms = crystal()
    atoms.info["energy_unit"] = "Hartree"
    atoms.calc = EMT()
    atoms.get_potential_energy()
    assert in_ase_units(atoms).calc is None


@pytest.mark.filterwarnings("ignore:c.extxyz holds 10 structures, but only 1 different")
@pytest.mark.parametrize("make", [ethanol, crystal], ids=["molecule", "crystal"])
def test_declared_units_are_converted_as_in_training(run, tmp_path, make):
    model = TrainedModel.load(run())
    plain = predict_structures(model, written(tmp_path / "a.extxyz", [make()]))
    path = written(tmp_path / "b.extxyz", [in_bohr(make())])
    found = predict_structures(model, path)
    for name in ("value", "std", "epistemic_std"):
        assert found.rows[0][name] == pytest.approx(plain.rows[0][name], abs=1e-6)
    (atoms,) = found.structures
    assert np.allclose(atoms.positions, make().positions, atol=1e-7)
    assert np.allclose(atoms.get_forces(), plain.structures[0].get_forces(), atol=1e-6)
    # labels of the input are in the units of the file, too
    assert atoms.info["REF_energy"] == pytest.approx(-2.0 * units.Hartree)
    assert np.allclose(atoms.arrays["REF_forces"], units.Hartree / units.Bohr)
    assert atoms.info["charge"] == 3.0
    trained_on = data.load("extxyz", written(tmp_path / "c.extxyz", 10 * [in_bohr(make())]))
    for graph in (graph_of(in_bohr(make())), graph_of(atoms)):
        for key in ("pos", "cell"):
            assert (key in graph) == (key in trained_on.graphs[0])
            if key in graph:
                assert np.allclose(graph[key], trained_on.graphs[0][key], atol=1e-6)


def test_units_that_nobody_knows_are_refused_with_their_structure(run, tmp_path):
    frames = [molecule("H2O"), molecule("CH4")]
    frames[1].info["length_unit"] = "furlong"
    path = written(tmp_path / "s.extxyz", frames)
    with pytest.raises(
        DataError, match=r"structure 1 of .*s\.extxyz: the unit of length 'furlong'"
    ):
        predict_structures(TrainedModel.load(run()), path)


def test_predictions_can_be_trained_on(run, tmp_path):
    """A declaration of the input beside numbers in eV would rescale them without a word."""
    frames = [in_bohr(ethanol(0.1, k)) for k in range(10)]
    path = written(tmp_path / "s.extxyz", frames)
    found = predict_structures(TrainedModel.load(run(unit="kcal/mol")), path)
    geometry = write_predictions(found, tmp_path / "out")[1]
    again = data.load("extxyz", geometry, target="energy")
    for k, row in enumerate(found.rows):
        assert float(again.graphs[k].y) == pytest.approx(KCAL * row["value"], abs=1e-6)
        assert np.allclose(again.graphs[k].forces, found.structures[k].get_forces(), atol=1e-7)
        assert np.allclose(again.graphs[k].pos, ethanol(0.1, k).positions, atol=1e-6)


def bad_frames() -> list[Atoms]:
    broken = ethanol()
    broken.positions[2, 0] = np.nan
    return [molecule("H2O"), molecule("CH3Cl"), broken, molecule("CH4")]


def test_the_first_bad_structure_stops_and_is_named(run, tmp_path):
    path, model = written(tmp_path / "s.xyz", bad_frames()), TrainedModel.load(run())
    with pytest.raises(DataError, match=r"structure 1 of .*s\.xyz has the element Cl") as caught:
        predict_structures(model, path)
    assert "--skip-bad" in str(caught.value) and "\n" not in str(caught.value)


def test_bad_structures_can_be_skipped_with_their_reasons(run, tmp_path):
    path, model = written(tmp_path / "s.xyz", bad_frames()), TrainedModel.load(run())
    found = predict_structures(model, path, skip_bad=True)
    table, geometry = write_predictions(found, tmp_path)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["value"]) for row in rows] == [True, False, False, True]
    assert "element Cl" in rows[1]["reason"] and "position (atom 2)" in rows[2]["reason"]
    assert rows[0]["reason"] == "" and "2 skipped" in found.summary()
    assert [a.info["structure"] for a in ase.io.read(geometry, ":")] == [0, 3]
    only_bad = written(tmp_path / "b.xyz", bad_frames()[1:3])
    with pytest.raises(DataError, match=r"no structure of .* can be predicted"):
        predict_structures(model, only_bad, skip_bad=True)


def test_files_that_cannot_be_read(run, tmp_path):
    model = TrainedModel.load(run())
    with pytest.raises(DataError, match="there is no file"):
        predict_structures(model, tmp_path / "nothing.xyz")
    (tmp_path / "empty.xyz").write_text("")
    (tmp_path / "words.xyz").write_text("what\nis\nthis\n")
    (tmp_path / "short.xyz").write_text("3\n\nH 0 0 0\nH 0 0 1\n")
    (tmp_path / "s.unknown").write_text("hello")
    for name in ("empty.xyz", "words.xyz", "short.xyz", "s.unknown"):
        with pytest.raises(DataError) as caught:
            predict_structures(model, tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="batch size must be at least 1"):
        predict_structures(model, tmp_path / "s.xyz", batch_size=0)


# ---------------------------------------------------------------------------------- the script


@pytest.fixture
def script(call_script):
    """``script(*arguments)``: exit code, stdout and stderr of scripts/predict.py."""
    return partial(call_script, "predict")


def test_the_script(run, tmp_path, script):
    path = written(tmp_path / "s.xyz", structures())
    code, out, _ = script(
        run(validation_epistemic_std={"q99": 1e9}), path, "--out", tmp_path / "out"
    )
    assert code == 0 and len(out.strip().splitlines()) == 1
    assert "5 structures predicted, 0 of them unlike the training data; 0 skipped" in out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "predictions.csv",
        "predictions.extxyz",
    ]


def test_the_script_fails_in_one_sentence_and_leaves_nothing(run, tmp_path, script):
    path = written(tmp_path / "s.xyz", bad_frames())
    code, out, err = script(run(), path, "--out", tmp_path / "out")
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and not out and len(errors) == 1 and "Traceback" not in err
    assert not (tmp_path / "out").exists()
    code, _, err = script(tmp_path, path, "--out", tmp_path / "out")
    assert code == 2 and "holds no pruned.safetensors" in err


def test_out_that_cannot_be_written_to_is_refused_before_the_work(tmp_path, script):
    path = written(tmp_path / "s.xyz", [molecule("H2O")])
    for out in (path, path / "below"):
        code, _, err = script(tmp_path / "no model", path, "--out", out)
        assert code == 2 and f"cannot write to {out}: {path} is a file" in err


def test_the_dense_model_of_one_file(run, tmp_path, script):
    path = written(tmp_path / "s.xyz", [molecule("H2O")])
    file = run() / "pruned.safetensors"
    code, _, err = script(file, path, "--dense", "--out", tmp_path / "out")
    assert code == 2 and "the dense model is chosen of a run's folder" in err
    dense = file.rename(file.with_name("dense.safetensors"))
    assert script(dense, path, "--dense", "--out", tmp_path / "out")[0] == 0


def test_help_says_what_comes_out(script):
    code, out, _ = script("--help")
    assert code == 0 and "predictions.csv" in out and "--skip-bad" in out


def test_a_network_without_error_bars_says_so(tmp_path):
    save(trained().network, tmp_path / "m.safetensors", target="energy", unit="eV")
    with pytest.raises(InputError, match="without an uncertainty method"):
        TrainedModel.load(tmp_path / "m.safetensors")
