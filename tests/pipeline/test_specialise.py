"""The command `specialise`, from structures to metrics, on a teacher of some hundred weights."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.io import read, write
from tiny_specialise import STEPS, in_seconds, metrics, predictions, tiny, undrawn
from tiny_teacher import structures, tiny_teacher, write_labelled
from torch_geometric.data import Batch

from egnn_prune import adapters
from egnn_prune.ase import PrunedCalculator
from egnn_prune.ase.structures import graph_of
from egnn_prune.cli.jobs import SPECIALISE
from egnn_prune.configs.specialise_settings import SpecialiseSettings
from egnn_prune.deployment import checkpoint
from egnn_prune.deployment.export import export_program, tensors
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.pipeline import specialise_measure as measuring
from egnn_prune.pipeline.specialise import SpecialiseJob, run
from egnn_prune.pipeline.specialise_data import (
    read_dataset,
    read_unlabelled,
    replaced,
    write_dataset,
)
from egnn_prune.pipeline.specialise_demo import demo_structures, demonstration
from egnn_prune.report.specialise.training import load_curves

#: The one that reads checkpoints, before the fixture below puts a tiny teacher in its place.
LOAD = adapters.load
LATENCIES = measuring.latencies
MODELS = ["teacher", "finetuned", "specialised", "scratch"]


@pytest.fixture(autouse=True, scope="module")
def a_tiny_teacher():
    with in_seconds():
        yield


@pytest.fixture(autouse=True, scope="module")
def traced() -> Iterator[list[tuple[Path, bool]]]:
    """Programs that were asked for, and whether with stress: a trace takes longer than the rest."""
    asked: list[tuple[Path, bool]] = []

    def noted(network: Any, path: Path, *, stress: bool) -> Path:
        assert network.channel_groups()
        asked.append((path, stress))
        path.write_bytes(b"")
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("egnn_prune.deployment.export.export_program", noted)
        yield asked


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    made = structures()
    for atoms in made:
        atoms.info["config_type"] = f"molecule of {len(atoms)}"
    return write_labelled(tmp_path_factory.mktemp("data") / "mine.xyz", made)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, labelled) -> Path:
    with undrawn():
        return run(tiny(tmp_path_factory.mktemp("run") / "run", labelled))


@pytest.fixture(scope="module")
def boxes(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("boxes") / "boxes.xyz"
    made = structures(12, periodic=True)
    for atoms in made:
        atoms.info["config_type"] = "box"
    write(path, made, format="extxyz")
    return path


@pytest.fixture(scope="module")
def distilled(tmp_path_factory, boxes) -> Path:
    """From periodic structures without labels, in a cell smaller than the cutoff."""
    out = tmp_path_factory.mktemp("distilled") / "run"
    with undrawn():
        return run(tiny(out, boxes, labels="teacher", budgets=[0.6]))


# ---------------------------------------------------------------- what a run leaves


def test_metrics_hold_what_the_report_and_others_read(finished):
    content = metrics(finished)
    assert content["kind"] == "specialise" and content["schema_version"] == 1
    assert list(content["models"]) == MODELS
    keys = (
        "force_rmse_mev_per_angstrom force_mae_mev_per_angstrom energy_mae_mev_per_atom "
        "energy_rmse_mev_per_atom latency_ms latency_single_ms params equivariance_error "
        "reflection_error memory_mb train_seconds checkpoint_bytes md_steps_per_second"
    ).split()
    for name in MODELS:
        assert all(content["models"][name][key] >= 0 for key in keys), name
        assert content["models"][name]["stress_rmse_mev_per_angstrom3"] is None
    assert content["dataset"] == {
        "name": "mine.xyz",
        "train": 20,
        "val": 2,
        "test": 2,
        "elements": ["H", "C", "O"],
        "atoms": [3, 6],
        "periodic": False,
    }
    assert content["latency_atoms"] >= 100 and content["latency_single_atoms"] in (3, 6)
    assert set(content["cut"]["layers"][0]) == {"conv", "stream", "radial", "paths"}
    assert content["threads"] == 1 and content["seed"] == 0 and content["steps"] == STEPS


def test_errors_are_those_of_the_predictions(finished):
    arrays, content = predictions(finished), metrics(finished)["models"]
    for name in MODELS:
        force = 1000 * (arrays[f"{name}_forces"] - arrays["forces_reference"])
        energy = 1000 * (arrays[f"{name}_energy"] - arrays["energy_reference"]) / arrays["atoms"]
        rmse = np.sqrt(np.square(force).mean())
        assert content[name]["force_rmse_mev_per_angstrom"] == pytest.approx(rmse)
        hydrogen = content[name]["force_by_element"]["H"]
        assert hydrogen["atoms"] == (arrays["z"] == 1).sum()
        assert hydrogen["mae"] == pytest.approx(np.abs(force[arrays["z"] == 1]).mean())
        assert content[name]["energy_mae_mev_per_atom"] == pytest.approx(np.abs(energy).mean())
    assert len(arrays["z"]) == arrays["atoms"].sum() == len(arrays["forces_reference"])


def test_types_stay_with_their_structures(tmp_path):
    made = structures(30)
    for k, atoms in enumerate(made):
        atoms.info["config_type"] = f"number {k}" if k % 5 else ""
    write(tmp_path / "some.xyz", made)
    settings = tiny(tmp_path / "run", tmp_path / "some.xyz").data
    found = read_unlabelled(settings, 0)
    val = found.types_of("val")
    assert val == [made[row].info["config_type"] for row in found.splits["val"].tolist()]
    more = {"train": [*found.split("train"), *found.split("val")], "test": found.split("test")}
    write_dataset(tmp_path / "kept.npz", replaced(found, more | {"val": found.split("val")}))
    kept = read_dataset(tmp_path / "kept.npz")
    assert kept.types_of("train") == [*found.types_of("train"), *[""] * len(val)]
    for split in ("val", "test"):
        assert kept.types_of(split) == found.types_of(split) and any(kept.types_of(split))


def test_errors_by_type_are_those_of_its_structures(finished, distilled):
    arrays, found = predictions(finished), metrics(finished)["errors_by_type"]
    assert found["compared"] == ["specialised", "finetuned"]
    assert found["units"] == {"energy": "meV/atom", "force": "meV/Angstrom"}
    owner = np.repeat(arrays["atoms"], arrays["atoms"])
    assert sum(one["structures"] for one in found["types"].values()) == len(arrays["atoms"])
    for kind, one in found["types"].items():
        atoms = int(kind.removeprefix("molecule of "))
        own = owner == atoms
        assert one["structures"] == (arrays["atoms"] == atoms).sum() > 0
        for name in MODELS:
            wrong = 1000 * (arrays[f"{name}_forces"] - arrays["forces_reference"])[own]
            assert one["force_rmse"][name][0] == pytest.approx(np.sqrt((wrong**2).mean()))
    # a teacher has no errors against its own labels
    found = metrics(distilled)["errors_by_type"]
    assert found["compared"] == ["specialised", "scratch"]
    assert [*found["types"]] == ["box"] and [*found["types"]["box"]["energy_mae"]] == [
        *("specialised", "scratch", "difference")
    ]


def test_the_budget_is_met(finished):
    content = metrics(finished)
    models, curve = content["models"], content["curve"]
    share = models["specialised"]["latency_ms"] / models["teacher"]["latency_ms"]
    assert 0.3 < share <= 0.6
    assert models["specialised"]["params"] == models["scratch"]["params"]
    # a budget of 0.01 is left out
    assert [point["budget"] for point in curve] == [0.8, 0.6]
    assert all(point["latency_share"] <= point["budget"] for point in curve)
    assert curve[1]["params"] == models["specialised"]["params"] < curve[0]["params"]
    assert curve[0]["conv_sparsity"] < curve[1]["conv_sparsity"]


def test_what_was_cut(finished):
    cut = metrics(finished)["cut"]
    assert cut["species"] == [3, 4]
    assert cut["odd_paths"] == 1
    odd = {"source": "1e", "l": 1, "target": "1e", "kept": False}
    assert odd in cut["layers"][1]["paths"]
    kept, total = cut["layers"][1]["conv"]["1e"]
    assert 0 < kept < total == 8
    assert cut["layers"][0]["stream"]["0e"] == [8, 8]
    found = cut["compensation"]
    with_, without = (found[f"force_rmse_{k}_mev_per_angstrom"] for k in ("with", "without"))
    assert found["used"] == (with_ < without)


def test_mirror_images_are_told_apart_by_the_teacher_only(finished):
    models = metrics(finished)["models"]
    assert models["teacher"]["reflection_error"] > 1e-4
    assert models["specialised"]["reflection_error"] < 1e-5
    assert all(models[name]["equivariance_error"] < 1e-5 for name in MODELS)


def test_a_calculator_opens_the_small_network(finished, labelled):
    arrays = predictions(finished)
    frames = read(labelled, ":")
    test = [
        a for a in frames if any(np.isclose(arrays["energy_reference"], a.get_potential_energy()))
    ]
    energies, forces = [], []
    for atoms in test:
        atoms.calc = PrunedCalculator(finished / "specialised.safetensors", on_uncertain="ignore")
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
    order = np.argsort(energies)
    assert np.sort(arrays["specialised_energy"]) == pytest.approx(np.array(energies)[order])
    assert np.sort(arrays["specialised_forces"].ravel()) == pytest.approx(
        np.sort(np.concatenate(forces).ravel()), abs=1e-4
    )


def test_learning_curves_are_kept(finished):
    names = {path.stem for path in (finished / "curves").iterdir()}
    assert names == {"finetuned", "specialised", "scratch"}
    assert set(load_curves(finished)) == names


def test_stress_is_in_the_programs_of_crystals_alone(finished, distilled, traced):
    asked = dict(traced)
    assert asked[finished / "specialised.pt2"] is False
    assert asked[distilled / "specialised.pt2"] is True


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # torch's own reader
@pytest.mark.parametrize("crystals", [False, True], ids=["molecules", "crystals"])
def test_the_program_says_what_the_network_says(crystals, tmp_path, monkeypatch, request):
    monkeypatch.setattr("egnn_prune.deployment.export.export_program", export_program)
    source = request.getfixturevalue("distilled" if crystals else "finished")
    folder = tmp_path / "run"
    shutil.copytree(source, folder)
    for left in ("specialised.pt2", "stages/export.json", "stages/report.json"):
        (folder / left).unlink()
    path = request.getfixturevalue("boxes" if crystals else "labelled")
    changes = {"labels": "teacher", "budgets": [0.6]} if crystals else {}
    with undrawn():
        run(tiny(folder, path, **changes))
    model = checkpoint.load(folder / "specialised.safetensors")
    batch = Batch.from_data_list([graph_of(atoms) for atoms in structures(3, periodic=crystals)])
    program = torch.export.load(folder / "specialised.pt2").module()
    energy = program(*tensors(model, batch, crystals))[0]
    assert torch.allclose(energy, model(batch).mean, rtol=1e-6)


@pytest.mark.slow
def test_the_report_is_drawn(finished, labelled, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for left in ("report.html", "stages/report.json"):
        (folder / left).unlink()
    run(tiny(folder, labelled))
    assert "<svg" in (page := (folder / "report.html").read_text()) or "<img" in page


def test_times_are_taken_of_models_that_stay_as_they_are():
    graphs, model = [graph_of(atoms) for atoms in structures(4)], tiny_teacher()
    batch = measuring.timed_batch(graphs)
    assert len(batch.pos) >= 100
    before = model(batch).mean
    found = LATENCIES({"one": model, "two": tiny_teacher(1)}, batch, torch.device("cpu"), 20)
    assert all(0.01 < time < 10_000 for time in found.values())
    assert torch.equal(model(batch).mean, before) and not model._forward_hooks


# ---------------------------------------------------------------- labels from the teacher


def test_the_teacher_labels_what_has_no_labels(distilled):
    content = metrics(distilled)
    assert content["labels"] == "teacher" and content["dataset"]["periodic"]
    assert content["dataset"]["train"] > 10  # 10, and shaken copies
    models = content["models"]
    for name in ("teacher", "finetuned"):
        assert models[name]["force_rmse_mev_per_angstrom"] < 1e-2
        assert models[name]["train_seconds"] == 0
    assert models["specialised"]["force_rmse_mev_per_angstrom"] > 1e-2
    assert all(models[name]["stress_rmse_mev_per_angstrom3"] is not None for name in MODELS)
    assert models["teacher"]["stress_rmse_mev_per_angstrom3"] < 1e-2


# ---------------------------------------------------------------- going on


def test_a_finished_run_is_left_alone(finished, labelled, monkeypatch, capsys):
    monkeypatch.setattr(SpecialiseJob, "read_structures", None)
    run(tiny(finished, labelled))
    assert "nothing is run again" in capsys.readouterr().out


def test_an_interrupted_run_goes_on_with_the_stage_it_was_in(
    finished, labelled, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for name in ("scratch", "evaluation", "export", "report"):
        (folder / "stages" / f"{name}.json").unlink()
    fitted: list[str] = []
    whole = SpecialiseJob.fit

    def watched(self: Any, name: str, *args: Any, **keywords: Any) -> Any:
        fitted.append(name)
        return whole(self, name, *args, **keywords)

    monkeypatch.setattr(SpecialiseJob, "fit", watched)
    with undrawn():
        run(tiny(folder, labelled))
    assert fitted == ["scratch (rate 0.001)", "scratch (rate 0.01)"]
    for name in MODELS:
        before, after = (metrics(f)["models"][name] for f in (finished, folder))
        assert after["force_rmse_mev_per_angstrom"] == before["force_rmse_mev_per_angstrom"]


def test_a_folder_of_another_run_is_refused(finished, labelled):
    with pytest.raises(ConfigError, match="other settings or other data"):
        run(tiny(finished, labelled, training__steps=5))


def test_other_structures_under_the_same_name_are_refused(finished, tmp_path, labelled):
    folder, path = tmp_path / "run", tmp_path / "mine.xyz"
    shutil.copytree(finished, folder)
    write_labelled(path, structures(seed=5))
    with pytest.raises(ConfigError, match="other settings or other data"):
        run(tiny(folder, path))


# ---------------------------------------------------------------- bad input, one sentence each


def refused(settings: SpecialiseSettings) -> str:
    with pytest.raises(InputError) as caught:
        run(settings)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_a_budget_that_cannot_be_met(tmp_path, labelled):
    said = refused(tiny(tmp_path / "run", labelled, budget=0.05, budgets=[0.05]))
    least = float(said.rpartition("budget=")[2].split()[0])
    assert said.startswith("budget=0.05 cannot be met: the smallest network") and 0.1 < least < 0.6


def test_structures_without_labels_where_labels_were_asked_for(tmp_path, boxes):
    assert refused(tiny(tmp_path / "run", boxes)).endswith(
        "say labels=teacher to let the teacher label them"
    )


def test_energies_of_an_unusual_name(tmp_path):
    frames = structures(12)
    for k, atoms in enumerate(frames):
        atoms.info |= {"mp2": -1.0 * k, "source": "somewhere"}
    write(tmp_path / "mine.xyz", frames, format="extxyz")
    said = refused(tiny(tmp_path / "run", tmp_path / "mine.xyz"))
    assert "it has mp2; name the key" in said and "data.target=KEY" in said


def test_energies_without_forces(tmp_path):
    frames = structures(12)
    for k, atoms in enumerate(frames):
        atoms.info["energy"] = -1.0 * k
    write(tmp_path / "mine.xyz", frames, format="extxyz")
    said = refused(tiny(tmp_path / "run", tmp_path / "mine.xyz"))
    assert "without forces" in said and "labels=teacher" in said


@pytest.mark.parametrize("labels", ["data", "teacher"])
@pytest.mark.parametrize("count", [1, 9])
def test_too_few_structures(tmp_path, labels, count):
    path = write_labelled(tmp_path / "few.xyz", structures(count))
    said = refused(tiny(tmp_path / "run", path, labels=labels))
    assert f"few.xyz holds {count} structure" in said and "at least 10 are needed" in said


def test_an_element_that_the_teacher_does_not_know(tmp_path):
    frames = structures(12)
    frames[3].numbers[0] = 92
    path = write_labelled(tmp_path / "mine.xyz", frames)
    said = refused(tiny(tmp_path / "run", path))
    assert said.startswith("structure 3 of mine.xyz has the element U, which the teacher tiny")
    assert "it knows H, C, O, Si" in said


def test_a_teacher_that_nobody_knows(tmp_path, labelled, monkeypatch):
    monkeypatch.setattr(adapters, "load", LOAD)
    said = refused(tiny(tmp_path / "run", labelled, teacher="7net-O"))
    assert "'7net-O'; did you mean 7net-0?" in said


def test_a_teacher_whose_package_is_not_installed(tmp_path, labelled, monkeypatch):
    monkeypatch.setattr(adapters, "load", LOAD)
    monkeypatch.setitem(sys.modules, "sevenn", None)
    said = refused(tiny(tmp_path / "run", labelled, teacher="7net-0"))
    assert "pip install 'egnn_prune[sevennet]'" in said


def test_a_teacher_that_is_no_network(tmp_path, labelled, monkeypatch):
    pytest.importorskip("sevenn", reason="reads checkpoints of SevenNet")
    monkeypatch.setattr(adapters, "load", LOAD)
    (tmp_path / "mine.pth").write_bytes(b"nothing")
    said = refused(tiny(tmp_path / "run", labelled, teacher=str(tmp_path / "mine.pth")))
    assert "sevenn cannot read" in said and "mine.pth" in said


def test_nothing_to_read(tmp_path):
    assert "data.path=FILE" in refused(tiny(tmp_path / "run", None))
    assert "there is no file" in refused(tiny(tmp_path / "run", tmp_path / "no.xyz"))
    said = refused(tiny(tmp_path / "other", tmp_path / "no.xyz", labels="teacher"))
    assert "there is no file" in said


def test_settings_that_contradict_each_other(tmp_path, labelled):
    assert "leave data.path away" in refused(tiny(tmp_path / "run", labelled, demo=True))
    said = refused(tiny(tmp_path / "run", labelled, labels="teacher", data__target="energy"))
    assert "leave data.target away" in said
    assert "budget must be above 0 and below 1" in refused(tiny(tmp_path, labelled, budget=1.5))


# ---------------------------------------------------------------- the demonstration


def test_the_demonstration_makes_water_and_ethanol():
    frames = demo_structures(0, 4)
    assert {str(a.symbols) for a in frames[1::2]} == {"C2OH6"}
    assert len(frames) == 8
    for atoms in frames[:4:2]:
        assert atoms.pbc.all() and len(atoms) == 24
        density = atoms.get_masses().sum() / atoms.get_volume() * 1.66054
        assert density == pytest.approx(1.0, abs=0.02)
        apart = atoms.get_all_distances(mic=True)[np.triu_indices(24, 1)]
        assert apart.min() > 0.7
    again = demo_structures(0, 4)
    assert np.array_equal(frames[6].positions, again[6].positions)
    assert not np.array_equal(frames[6].positions, demo_structures(1, 4)[6].positions)


def test_the_demonstration_is_short_unless_told_otherwise():
    settings = SpecialiseSettings(demo=True)
    settings.training.steps = 77
    found = demonstration(settings)
    assert found.labels == "teacher" and found.training.steps == 77
    assert found.cut.steps < SpecialiseSettings().cut.steps


def test_demo_is_short_for_a_setting():
    SPECIALISE.check(["--demo", "threads=1"])
    assert "--demo" in SPECIALISE.words()
    with pytest.raises(ConfigError, match=r"training\.steps"):
        SPECIALISE.check(["training.stepz=3"])


def test_an_empty_file(tmp_path):
    (tmp_path / "empty.xyz").write_text("")
    assert "is empty" in refused(tiny(tmp_path / "run", tmp_path / "empty.xyz"))
