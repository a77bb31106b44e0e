"""The scripts as a user runs them: help, exit codes, one sentence on stderr and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from egnn_prune.cli.hydra_app import command
from egnn_prune.configs.over_seeds import ComparisonSettings
from egnn_prune.configs.settings import Settings, described

ROOT = Path(__file__).parents[2]
SMALL = ["data.limit=20", "training.max_epochs=1", "model.hidden=4", "model.layers=1", "threads=1"]


def called(script: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / script), *map(str, arguments)]
    # torch and torch-geometric of some versions warn on import: not ours to silence here
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.mark.parametrize(
    ("script", "schema"),
    [("train_pruned_egnn.py", Settings), ("compare_baseline.py", ComparisonSettings)],
)
def test_help_lists_every_setting(script, schema, tmp_path):
    done = called(script, "--help", cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr
    for name, _, meaning in described(schema()):
        lines = [line for line in done.stdout.splitlines() if line.startswith(f"  {name}=")]
        assert len(lines) == 1 and meaning and meaning in lines[0], name
    assert not list(tmp_path.iterdir())


def failed(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in done.stderr + done.stdout
    return lines[0]


def test_unknown_override_in_a_process(tmp_path):
    done = called("train_pruned_egnn.py", "model.hiden=64", cwd=tmp_path)
    assert "there is no setting 'model.hiden'; --help lists all settings" in failed(done)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow  # tests of the data say it without the seconds of a process
def test_nan_in_the_users_file_in_a_process(tmp_path):
    frame = "2\nProperties=species:S:1:pos:R:3 energy=1.0\nH 0 0 0\nH 0 0 {}\n"
    (tmp_path / "own.xyz").write_text(frame.format(1) * 3 + frame.format("nan"))
    done = called(
        "train_pruned_egnn.py", "data=extxyz", "data.path=own.xyz", "out=run", *SMALL, cwd=tmp_path
    )
    message = failed(done)
    assert "record 3 of own.xyz has a NaN or infinite value in its pos" in message


# ------------------------------------------- the same without the seconds that a process takes


@pytest.fixture
def script(monkeypatch, capsys, tmp_path):
    """``script(*overrides)``: the main job's command, in this process; its one line on stderr."""
    from egnn_prune.pipeline.main_job import run

    def call(*overrides: object) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["train_pruned_egnn.py", *map(str, overrides)])
        with pytest.raises(SystemExit) as caught:
            command(run, Settings, "train", "Purpose.")
        captured = capsys.readouterr()
        done = subprocess.CompletedProcess([], caught.value.code, captured.out, captured.err)
        return failed(done)

    return call


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["nonsense=1"], "there is no setting 'nonsense'"),
        (["pruning.sparsity=1"], "pruning.sparsity must be at least 0 and below 1, not 1.0"),
        (["pruning.sparsity=-0.1"], "pruning.sparsity must be at least 0 and below 1, not -0.1"),
        (["pruning.sparsity=nan"], "pruning.sparsity must be at least 0 and below 1, not nan"),
        (["pruning.sparsity=half"], "pruning.sparsity"),
        (["model.hidden=4.5"], "model.hidden"),
        (["model.hidden=0"], "model.hidden must be at least 1, not 0"),
        (["model.cutoff=-1"], "model.cutoff must be above 0, not -1"),
        (["model.cutoff=nan"], "model.cutoff must be above 0, not nan"),
        (["seed=-1"], "seed must lie between 0 and 4,000,000, not -1"),
        (["training.lr=nan"], "training.lr must be above 0, not nan"),
        (["training.max_epochs=0"], "training.max_epochs must be at least 1"),
        (["selection.strategy=best"], "selection.strategy must be one of top, threshold"),
        (["pruning.criterion=best"], "pruning.criterion must be one of"),
        (["pruning.freeze=all"], "pruning.freeze must be one of"),
        (["pruning.scope=atom"], "pruning.scope must be one of global, layer, kind, group"),
        (["pruning.schedule=quartic"], "pruning.schedule must be one of one_shot, iterative"),
        (["pruning.round_to=-1"], "pruning.round_to must be at least 0"),
        (["model.network=cnn"], "model.network must be one of egnn, irreps"),
        (["model.network=irreps", "model.cutoff=null"], "needs a model.cutoff"),
        (
            ["pruning.criterion=uncertainty", "pruning.rounds=0"],
            "pruning.rounds must be at least 1",
        ),
        (["uncertainty.method=laplace"], "uncertainty.method must be one of"),
        (
            ["uncertainty.method=dropout", "model.readout_dropout=0"],
            "uncertainty.method=dropout needs model.dropout",
        ),
        (["precision=float16"], "precision must be one of float32, float64"),
        (["device=tpu"], "device must be auto, cpu, cuda or cuda:N, not 'tpu'"),
        (["device=meta"], "device must be auto, cpu, cuda or cuda:N, not 'meta'"),
        (["data=extxyz"], "data=extxyz reads a file; say which with data.path=FILE"),
        (["data=npz", "data.path=nothing.npz"], "there is no file nothing.npz"),
        (["data=qm8"], "data"),
        (["data.target=homo"], "has no target 'homo'; it has energy"),
        (["data.limit=1"], "data.limit must leave at least 2 training graphs"),
        (["out=[1,2]"], "out"),
        (["pruning.sparsity="], "pruning.sparsity"),
        (["just words"], "words"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_settings(script, overrides, complaint):
    out = [] if overrides[0].startswith("out") else ["out=run"]
    assert complaint in script(*overrides, *out)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_cuda_without_a_gpu(script, device):
    assert f"device={device} was asked for, but this machine has 0 CUDA" in script(
        f"device={device}"
    )


def test_out_below_a_regular_file(script, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write file/run/" in script("out=file/run")


def test_out_is_a_regular_file(script, tmp_path):
    (tmp_path / "file").write_text("")
    assert "out=file is a file, not a folder" in script("out=file")


def test_a_corrected_typo_may_use_the_same_folder(script, tmp_path):
    assert "there is no file typo.npz" in script("data=npz", "data.path=typo.npz", "out=run")
    content = {"offset": np.array([0, 1]), "z": np.array([1]), "pos": np.full((1, 3), np.nan)}
    np.savez(tmp_path / "own.npz", **content, targets=np.ones((1, 1)), target_names=["energy"])
    message = script("data=npz", "data.path=own.npz", "out=run")
    assert "NaN" in message or "cannot be split" in message


def test_interrupt(monkeypatch, capsys):
    def interrupted(_: Settings) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["train_pruned_egnn.py"])
    with pytest.raises(SystemExit) as caught:
        command(interrupted, Settings, "train", "Purpose.")
    assert caught.value.code == 130
    assert "the same command continues" in capsys.readouterr().err


def test_overrides_arrive_typed(monkeypatch):
    seen: list[Settings] = []
    overrides = ["pruning.sparsity=0.75", "model.hidden=128", "seed=3", "device=cuda", "out=a b"]
    monkeypatch.setattr(sys, "argv", ["train_pruned_egnn.py", *overrides, "reuse=[x,y]"])
    with pytest.raises(SystemExit) as caught:
        command(seen.append, Settings, "train", "Purpose.")
    assert caught.value.code == 0
    (settings,) = seen
    assert isinstance(settings, Settings)
    assert (settings.pruning.sparsity, settings.model.hidden, settings.seed) == (0.75, 128, 3)
    assert (settings.device, settings.out, settings.reuse) == ("cuda", "a b", ["x", "y"])
    assert settings.data.name == "xtb"
