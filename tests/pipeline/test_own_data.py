"""Bring your own data: extended XYZ in, a smaller model out, through the script's main function."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.lj import LennardJones
from tiny_jobs import tiny
from torch_geometric.data import Data

from egnn_prune import load
from egnn_prune.errors import DataError
from egnn_prune.pipeline.main_job import run

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_pruned_egnn.py"


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("train_pruned_egnn")


@pytest.fixture
def clusters(tmp_path) -> Path:
    """Argon and neon clusters with Lennard-Jones energies."""
    random = np.random.default_rng(0)
    grid = 1.2 * np.array([[i, j, k] for i in range(2) for j in range(2) for k in range(2)])
    frames = []
    for _ in range(80):
        n = int(random.integers(3, 8))
        symbols = random.choice(["Ar", "Ne"], n)
        places = grid[random.permutation(8)[:n]] + random.normal(scale=0.05, size=(n, 3))
        frame = ase.Atoms(symbols, positions=places)
        frame.calc = LennardJones(rc=8.0)
        frame.get_forces()
        frames.append(frame)
    ase.io.write(tmp_path / "clusters.xyz", frames, format="extxyz")
    return tmp_path / "clusters.xyz"


def test_extxyz_in_pruned_model_out(clusters, tmp_path):
    asked = {"data__name": "extxyz", "data__path": str(clusters)}
    with pytest.raises(DataError, match="8 validation graphs, and error bars are calibrated on 10"):
        run(tiny(tmp_path / "first", **asked))
    run(tiny(tmp_path / "run", **asked, uncertainty__calibration="none"))
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    dataset, models = metrics["dataset"], metrics["models"]
    assert dataset["name"] == "clusters.xyz"
    assert (dataset["train"], dataset["val"], dataset["test"], dataset["ood"]) == (60, 8, 8, 0)
    assert models["pruned"]["ood_mae"] is None
    assert models["pruned"]["unit"] == "eV"
    assert models["pruned"]["params"] < models["dense"]["params"]
    assert (tmp_path / "run" / "report.html").is_file()

    model = load(tmp_path / "run" / "pruned.safetensors")
    frame = ase.io.read(clusters, 0)
    graph = Data(z=torch.tensor(frame.numbers), pos=torch.tensor(frame.positions).float())
    assert model(graph).mean.isfinite().all()
    graph.z[0] = 36
    with pytest.raises(DataError, match=r"element Kr .* which held Ne, Ar"):
        model(graph)


@pytest.mark.parametrize("further", [None, "test", "ood"])
def test_too_few_structures_to_judge_on_are_refused_before_the_training(
    clusters, tmp_path, further
):
    """Five have one in the test split; so has a further file of one."""
    few = ase.io.read(clusters, ":5")
    if further:  # one that is not among the others
        few = few[:1]
        few[0].positions *= 1.01
        few[0].calc = LennardJones(rc=8.0)
        few[0].get_forces()
    ase.io.write(tmp_path / "few.xyz", few)
    asked = {"data__name": "extxyz", "data__path": str(clusters)}
    asked[f"data__{further or 'path'}"] = str(tmp_path / "few.xyz")
    with pytest.raises(
        DataError, match=rf"has 1 graph in its {further or 'test'} split, and error"
    ):
        run(tiny(tmp_path / "run", **asked, uncertainty__calibration="none"))
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_the_data_are_described_before_the_training(clusters, tmp_path, capsys):
    asked = {"data__name": "extxyz", "data__path": str(clusters)}
    with pytest.raises(DataError, match="8 validation graphs"):
        run(tiny(tmp_path / "run", **asked))
    said = capsys.readouterr().out
    assert "Data: extxyz\n  76 structures of 3 to 7 atoms; elements Ne Ar\n" in said
    assert "\n  splits: 60 train, 8 val, 8 test, 0 ood\n" in said


@pytest.fixture
def example(monkeypatch, load_script):
    """The example's main function, and the commands that it would run."""
    module = load_script("bring_your_own_data")
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(module, "call", lambda *words: commands.append(tuple(map(str, words))))

    def main(*arguments: object) -> list[tuple[str, ...]]:
        monkeypatch.setattr("sys.argv", ["bring_your_own_data.py", *map(str, arguments)])
        module.main()
        return commands

    return main


def test_example_learns_forces_where_there_are_some(clusters, tmp_path, example):
    train, predict, dynamics = example(clusters, "--out", tmp_path / "it's", "seed=3")
    assert train[:2] == ("train_pruned_egnn.py", "data=extxyz_forces") and train[-1] == "seed=3"
    assert train[3] == "out='" + str(tmp_path / "it\\'s" / "run") + "'"
    assert predict[1] == dynamics[1] == str(tmp_path / "it's" / "run")


def test_example_does_without_forces(clusters, tmp_path, example):
    frames = ase.io.read(clusters, ":")
    for frame in frames:
        frame.calc.results.pop("forces")
    ase.io.write(tmp_path / "energies.xyz", frames, format="extxyz")
    assert example(tmp_path / "energies.xyz", "--out", tmp_path / "mine")[0][1] == "data=extxyz"


@pytest.mark.slow
def test_example_runs(tmp_path):
    words = ["--out", tmp_path / "demo", "--steps", 100, "training.max_epochs=1"]
    words += ["training.finetune_epochs=1", "threads=1", "model.lmax=1", "model.copies=4"]
    script = SCRIPT.with_name("bring_your_own_data.py")
    done = subprocess.run([sys.executable, script, *map(str, words)], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert "Test force MAE" in done.stdout.decode()
    for made in ("run/report.html", "predictions/predictions.csv", "md/dynamics.png"):
        assert (tmp_path / "demo" / made).is_file(), made
