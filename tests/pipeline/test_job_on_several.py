"""A job that two processes share is the job of one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from test_killed import without_times
from tiny_jobs import metrics, tiny

from egnn_prune.configs.over_seeds import ComparisonSettings
from egnn_prune.configs.unused import refuse_unused
from egnn_prune.errors import ConfigError
from egnn_prune.pipeline.main_job import run
from egnn_prune.system.distributed import TOLD
from egnn_prune.training import graph_batches

ENTRY = "from egnn_prune.cli.main import main; main()"
SHORT = {
    "threads": 1,
    "precision": "float64",
    "data.limit": 60,
    "model.hidden": 8,
    "model.layers": 2,
    "model.radial": 4,
    "pruning.sparsity": 0.5,
    "pruning.latency": "null",
    "pruning.scope": "group",
    "pruning.round_to": 1,
    "selection.fraction": 0.3,
    "training.max_epochs": 2,
    "training.finetune_epochs": 2,
    "training.batch_size": 12,
    "trainer.logger": "csv",
}


def command(out, devices, **more):
    words = [f"{k}={v}" for k, v in (SHORT | more).items()]
    words += [f"out={out}", f"trainer.devices={devices}", "device=cpu"]
    return [sys.executable, "-W", "ignore", "-c", ENTRY, "train", *words]


@pytest.fixture
def untold(monkeypatch):
    for name in TOLD:
        monkeypatch.delenv(name, raising=False)


def test_more_processes_than_graphs_in_a_batch_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="leaves nothing to do for some of 13 processes"):
        run(tiny(tmp_path / "run", trainer__devices=13))


def test_more_processes_than_graphs_are_refused(monkeypatch):
    monkeypatch.setattr("egnn_prune.training.task.place", lambda: (2, 3))
    with pytest.raises(ConfigError, match="2 graphs in a batch leave nothing to do for some of 3"):
        graph_batches([0, 1], 32)


@pytest.mark.usefixtures("untold")
def test_python_is_told_how_to_start_several(tmp_path):
    with pytest.raises(ConfigError, match="need 2 processes, and there is 1; start them by"):
        run(tiny(tmp_path / "run", trainer__devices=2))
    assert not (tmp_path / "run").exists()


def test_a_study_has_workers_instead(tmp_path):
    settings = ComparisonSettings(out=str(tmp_path))
    settings.trainer.devices = 2
    with pytest.raises(ConfigError, match=r"trainer.devices=2 would change nothing.*workers=N"):
        refuse_unused(settings)


def test_the_command_starts_its_processes_and_says_one_sentence(tmp_path):
    """The refusal comes from both, and is said once."""
    (tmp_path / "run").write_text("")
    found = subprocess.run(command(tmp_path / "run", 2), capture_output=True, text=True)
    assert found.returncode == 2
    lines = [line for line in found.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and "is a file, not a folder" in lines[0], found.stderr


def whole(out, devices, **more):
    subprocess.run(command(out, devices, **more), check=True, capture_output=True)
    return out


def equal(one, two):
    """But for the order of sums; times and sizes are other ones."""
    with np.load(one / "stages/selection.npz") as a, np.load(two / "stages/selection.npz") as b:
        assert (a["selected"] == b["selected"]).all()
        np.testing.assert_allclose(a["uncertainty"], b["uncertainty"], rtol=1e-6)
    a, b = (without_times(metrics(out)) for out in (one, two))
    assert a["pruning"] == b["pruning"]
    compared(a["models"], b["models"])


def compared(a, b, where=""):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a.keys() - {"checkpoint_bytes", "equivariance_error"}:
            compared(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for k, (x, y) in enumerate(zip(a, b, strict=True)):
            compared(x, y, f"{where}[{k}]")
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6), where
    else:
        assert a == b, where


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [{}, {"selection.rounds": 2, "uncertainty.method": "deep", "uncertainty.members": 2}],
    ids=["default", "rounds"],
)
def test_two_processes_find_what_one_finds(tmp_path, more):
    equal(whole(tmp_path / "one", 1, **more), whole(tmp_path / "two", 2, **more))


@pytest.mark.slow
def test_both_killed_again_and_again(tmp_path):
    more = {
        "training.max_epochs": 20,
        "training.finetune_epochs": 20,
        "trainer.save_minutes": 1e-4,
    }
    expected = whole(tmp_path / "undisturbed", 2, **more)
    draw, kills = random.Random(1), 0
    for _ in range(60):
        start = time.time()
        with subprocess.Popen(
            command(tmp_path / "killed", 2, **more),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as job:
            while kills < 8 and job.poll() is None and not saved_since(tmp_path / "killed", start):
                time.sleep(0.05)
            try:
                _, said = job.communicate(timeout=draw.uniform(0, 3) if kills < 8 else None)
            except subprocess.TimeoutExpired:
                kill(job, draw.choice(["launcher", "both", "one"]))
                kills += 1
                _, said = job.communicate()
        assert "Traceback" not in said.decode(), said.decode()[-3000:]
        if job.returncode == 0:
            break
        time.sleep(2.5)  # orphans end within a second
    assert kills >= 4
    assert without_times(metrics(tmp_path / "killed")) == without_times(metrics(expected))
    for name in ("dense.safetensors", "pruned.safetensors"):
        mine, theirs = (p / name for p in (tmp_path / "killed", expected))
        assert mine.read_bytes() == theirs.read_bytes()


def kill(job, whom):
    """The launcher, both by its handing on, or one of the two processes that it started."""
    if whom == "one":
        with open(f"/proc/{job.pid}/task/{job.pid}/children") as children:
            os.kill(int(children.read().split()[-1]), signal.SIGKILL)
    else:
        job.send_signal(signal.SIGKILL if whom == "launcher" else signal.SIGTERM)


def saved_since(folder, start):
    """Whether a process that began then has saved a fit."""
    saved = [path.stat().st_mtime for path in folder.glob("unfinished/*/*.json")]
    return bool(saved) and max(saved) > start


@pytest.mark.slow
def test_a_budget_in_time_on_two(tmp_path):
    """Times are the first one's; the widths that they lead to are those of both."""
    out = whole(tmp_path / "run", 2, **{"pruning.latency": 0.9, "pruning.sparsity": "null"})
    assert metrics(out)["pruning"]["latency_budget"] == 0.9


@pytest.mark.slow
def test_torchrun_starts_it_too(tmp_path):
    words = command(tmp_path / "run", 2)[5:]
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = tmp_path / "start.py"
    script.write_text(ENTRY)
    subprocess.run(
        [*start, str(script), *words],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["models"]
