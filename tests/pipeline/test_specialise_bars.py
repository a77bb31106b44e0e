"""Error bars of `specialise`: what they say, where they are kept, what they were fitted to."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read
from tiny_specialise import in_seconds, metrics, predictions, tiny, undrawn
from tiny_teacher import structures, write_labelled

from egnn_prune.adapters import Committee
from egnn_prune.ase import PrunedCalculator
from egnn_prune.deployment import checkpoint
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.evaluation.predict import targets
from egnn_prune.pipeline import specialise_bars as bars
from egnn_prune.pipeline import specialise_data as stored
from egnn_prune.pipeline import specialise_measure as measuring
from egnn_prune.pipeline.specialise import SpecialiseJob, run

BARRED = ["finetuned", "specialised", "scratch"]
LATENCIES = measuring.latencies


@pytest.fixture(autouse=True, scope="module")
def a_tiny_teacher():
    with in_seconds(), pytest.MonkeyPatch.context() as patch:
        # tracing takes longer than all the rest; a run does without
        patch.setattr("egnn_prune.deployment.export.export_program", None)
        yield


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    return write_labelled(tmp_path_factory.mktemp("data") / "mine.xyz", structures(100))


def small(out: Path, path: Path, **changes: Any) -> Any:
    few = {"budgets": [0.6], "training__scratch_lrs": [1e-2], "data__limit": 20}
    return tiny(out, path, **few | {"uncertainty__method": "last_layer"} | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, labelled) -> Path:
    with undrawn():
        return run(small(tmp_path_factory.mktemp("run") / "run", labelled))


@pytest.fixture(scope="module")
def committee(tmp_path_factory, labelled, finished) -> tuple[Path, list[str]]:
    """The same with a committee: what was trained before is taken over."""
    out, fitted = tmp_path_factory.mktemp("committee") / "run", []
    settings = small(out, labelled, uncertainty__method="committee", uncertainty__members=3)
    settings.reuse = [str(finished)]
    whole = SpecialiseJob.fit

    def watched(self: Any, name: str, *args: Any, **keywords: Any) -> Any:
        if fitted == ["member 2"]:
            fitted.append("interrupted")
            raise KeyboardInterrupt
        fitted.append(name)
        return whole(self, name, *args, **keywords)

    with pytest.MonkeyPatch.context() as patch, undrawn():
        patch.setattr(SpecialiseJob, "fit", watched)
        with pytest.raises(KeyboardInterrupt):
            run(settings)
        return run(settings), fitted


def graphs(folder: Path, split: str) -> list[Any]:
    dataset = stored.read_dataset(folder / "stages" / "labelled.npz").with_cutoff(3.0)
    return list(dataset.split(split))


class Untested:
    """The structures of a run without its test split."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def split(self, name: str) -> list[Any]:
        assert name in ("train", "val")
        return graphs(self.folder, name)


# ---------------------------------------------------------------- what is written down


def test_metrics_say_how_true_the_error_bars_are(finished):
    content = metrics(finished)
    val = graphs(finished, "val")
    assert content["uncertainty"] == {
        "method": "last_layer",
        "members": 4,
        "source": "distance",
        "calibration": "variance",
        "fitted_on": "val",
        "points": 10,
        "atoms": sum(len(g.pos) for g in val),
    }
    assert not [key for key in content["models"]["teacher"] if "coverage" in key]
    for name in BARRED:
        found = content["models"][name]
        for suffix in ("", "_calibrated"):
            for of in ("energy", "force"):
                for key in ("ence", "nll", "crps", "coverage_50", "coverage_90"):
                    assert np.isfinite(found[f"{of}_{key}{suffix}"]), (name, of, key)
                assert 0 <= found[f"{of}_coverage_90{suffix}"] <= 1
            assert np.isfinite(found[f"force_spearman_atoms{suffix}"])
        assert 0.5 < found["force_coverage_90_calibrated"]
        assert found["latency_with_error_bars_ms"] == found["latency_ms"]  # their sizes


def test_arrays_hold_the_error_bars_of_test_structures(finished):
    arrays = predictions(finished)
    for name in BARRED:
        for suffix in ("", "_calibrated"):
            energy, force = (arrays[f"{name}_{of}_std{suffix}"] for of in ("energy", "forces"))
            assert energy.shape == arrays["atoms"].shape and (energy > 0).all()
            assert force.shape == arrays["z"].shape and (force > 0).all()
        assert arrays[f"{name}_forces_distance"].shape == arrays["z"].shape
    assert not any(key.startswith("teacher_energy_std") for key in arrays)
    inside = np.abs(arrays["specialised_forces"] - arrays["forces_reference"])
    wide = 1.645 * arrays["specialised_forces_std"][:, None]
    stated = metrics(finished)["models"]["specialised"]["force_coverage_90"]
    assert (inside <= wide).mean() == pytest.approx(stated, abs=1e-3)


def test_energies_are_calibrated_on_validation_structures(finished):
    """The factor is that of the validation errors, which the tests' are not."""
    arrays = predictions(finished)
    ratio = arrays["specialised_energy_std_calibrated"] / arrays["specialised_energy_std"]
    estimator = checkpoint.load_estimator(finished / "specialised.safetensors").estimator
    factors = []
    for split in ("val", "test"):
        held = graphs(finished, split)
        found = bars.predicted(estimator, held, torch.device("cpu"), split)
        factors.append(float(((targets(held) - found.mean).square() / found.variance).mean()))
    assert ratio == pytest.approx(factors[0] ** 0.5, rel=1e-4)
    assert factors[0] != pytest.approx(factors[1], rel=1e-3)


def test_test_structures_are_not_looked_at(finished):
    network = checkpoint.load(finished / "stages" / "specialised_network.safetensors")
    settings: Any = small(finished, finished).uncertainty
    dataset: Any = Untested(finished)
    again = bars.with_error_bars(network, dataset, settings, torch.device("cpu"), 0)
    kept = checkpoint.load_estimator(finished / "specialised.safetensors")
    assert torch.equal(again.atoms.distance_limit, kept.atoms.distance_limit)
    assert torch.equal(again.atoms.quantiles, kept.atoms.quantiles)


# ---------------------------------------------------------------- what a user opens


def test_a_calculator_says_how_sure_it_is(finished):
    known = graphs(finished, "train")[0]
    atoms = Atoms(known.z.numpy(), known.pos.numpy())
    atoms.calc = PrunedCalculator(finished / "specialised.safetensors", on_uncertain="ignore")
    atoms.get_forces()
    found = atoms.calc.results
    assert (
        found["forces_uncertainty"].shape == (len(atoms), 3)
        and (found["forces_uncertainty"] > 0).all()
    )
    assert found["energy_uncertainty"] > 0 and not found["out_of_distribution_reason"]
    atoms.positions[-1] += 1.0
    atoms.get_forces()
    assert atoms.calc.results["out_of_distribution_reason"]
    assert atoms.calc.results["atoms_distance"].max() > 1


def test_files_hold_thresholds_and_the_same_networks(finished):
    for name in BARRED:
        path = finished / measuring_file(name)
        found = checkpoint.read_header(path)["metadata"]
        thresholds = found["validation_epistemic_std"]
        assert 0 < thresholds["median"] <= thresholds["q95"] <= thresholds["q99"]
        assert thresholds["q99"] <= thresholds["max"] and "training_domain" in found
        plain = checkpoint.load(finished / "stages" / f"{name}_network.safetensors").state_dict()
        opened = checkpoint.load(path).state_dict()
        assert all(torch.equal(opened[key], value) for key, value in plain.items())


def measuring_file(name: str) -> str:
    return f"stages/{name}.safetensors" if name == "scratch" else f"{name}.safetensors"


def test_times_with_error_bars_are_those_of_the_same_energies(finished):
    opened = checkpoint.load_estimator(finished / "specialised.safetensors")
    whole = bars.WithErrorBars(opened)
    batch = measuring.timed_batch(graphs(finished, "test"))
    assert torch.equal(whole(batch).mean, opened.network(batch).mean)
    found = LATENCIES({"plain": opened.network, "bars": whole}, batch, torch.device("cpu"), 2)
    assert set(found) == {"plain", "bars"} and min(found.values()) > 0


# ---------------------------------------------------------------- committee


def test_members_are_trained_once_and_differ(committee):
    folder, fitted = committee
    assert fitted == ["member 2", "interrupted", "member 3"]
    found = checkpoint.load(folder / "specialised.safetensors")
    assert isinstance(found, Committee) and len(found.members) == 3
    weights = [m.network.state_dict()["embedding.weight"] for m in found.members]
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
    plain = checkpoint.load(folder / "stages" / "specialised_network.safetensors")
    assert torch.equal(plain.network.state_dict()["embedding.weight"], weights[0])


def test_a_committee_is_what_is_judged_and_its_first_network_what_is_timed(committee, finished):
    content, before = metrics(committee[0]), metrics(finished)
    assert content["uncertainty"]["source"] == "members"
    found, one = content["models"]["specialised"], before["models"]["specialised"]
    assert found["params"] == one["params"] and found["latency_ms"] == one["latency_ms"]
    assert found["latency_with_error_bars_ms"] == 3 * found["latency_ms"]
    rmse = "force_rmse_of_one_network_mev_per_angstrom"
    assert found[rmse] == pytest.approx(one["force_rmse_mev_per_angstrom"])
    assert found["force_rmse_mev_per_angstrom"] != pytest.approx(found[rmse])
    assert "force_coverage_90" not in content["models"]["scratch"]


def test_a_calculator_opens_a_committee(committee, labelled):
    atoms = read(labelled, 0)
    atoms.calc = PrunedCalculator(committee[0] / "specialised.safetensors", on_uncertain="ignore")
    atoms.get_forces()
    assert (atoms.calc.results["forces_uncertainty"] > 0).all()


# ---------------------------------------------------------------- going on, and refusals


def test_other_error_bars_leave_what_was_trained(finished, labelled, tmp_path, monkeypatch):
    settings = small(tmp_path / "run", labelled, uncertainty__calibration="robust")
    settings.reuse = [str(finished)]
    monkeypatch.setattr(SpecialiseJob, "fit", None)
    with undrawn():
        folder = run(settings)
    before, after = (metrics(f)["models"]["specialised"] for f in (finished, folder))
    assert before["force_nll_calibrated"] == after["force_nll_calibrated"]
    assert before["energy_nll"] == after["energy_nll"]
    assert before["energy_nll_calibrated"] != after["energy_nll_calibrated"]
    assert (folder / "curves" / "specialised.csv").is_file()


def test_an_interrupted_run_goes_on_with_the_error_bars(finished, labelled, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for name in ("error_bars", "evaluation", "report"):
        (folder / "stages" / f"{name}.json").unlink()
    monkeypatch.setattr(SpecialiseJob, "fit", None)
    with undrawn():
        run(small(folder, labelled))
    before, after = (metrics(f)["models"]["specialised"] for f in (finished, folder))
    assert before["force_coverage_90_calibrated"] == after["force_coverage_90_calibrated"]


def test_too_few_structures_to_calibrate_on(tmp_path, monkeypatch):
    path = write_labelled(tmp_path / "mine.xyz", structures(24))
    monkeypatch.setattr(SpecialiseJob, "ask_the_teacher", None)  # before anything is trained
    with pytest.raises(DataError, match=r"10 or more .* there are 2 .*uncertainty.method=none"):
        run(small(tmp_path / "run", path))


def test_a_teacher_that_made_the_labels_gets_no_error_bars():
    class Job:
        settings = small(Path("run"), Path("mine.xyz"), labels="teacher")

    job: Any = Job()
    assert SpecialiseJob.models_with_error_bars(job) == ["specialised", "scratch"]


def test_read_outs_that_share_the_network(finished, tmp_path):
    network = checkpoint.load(finished / "stages" / "specialised_network.safetensors")
    settings = small(finished, finished, uncertainty__method="shallow").uncertainty
    dataset: Any = Untested(finished)
    found = bars.with_error_bars(network, dataset, settings, torch.device("cpu"), 0)
    assert found.atoms.source == "distance"
    checkpoint.save(found, tmp_path / "shallow.safetensors")
    batch = measuring.timed_batch(graphs(finished, "val"))
    again = checkpoint.load_estimator(tmp_path / "shallow.safetensors").predict(batch)
    assert torch.allclose(again.variance, found.predict(batch).variance, rtol=1e-4)
    assert len(again.members) == 4 and (again.variance > 0).all()


def test_a_network_that_learned_more_is_not_reused(tmp_path, labelled):
    other = tmp_path / "other"
    (other / "stages").mkdir(parents=True)
    (other / "stages" / "learned_network.safetensors").write_text("")
    with pytest.raises(ConfigError, match="learned from a pool"):
        run(small(tmp_path / "run", labelled, reuse=[str(other)]))
