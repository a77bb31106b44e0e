"""A disk that is full at any write costs one sentence, and afterwards the same command goes on."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from tiny_jobs import metrics, tiny

from egnn_prune.configs.settings import Settings
from egnn_prune.errors import InputError
from egnn_prune.pipeline.main_job import run
from egnn_prune.runs.result_store import Rows
from egnn_prune.runs.run_folder import RunFolder
from egnn_prune.runs.status import status_of
from egnn_prune.system import files
from egnn_prune.system.files import UNFINISHED, write_arrays, write_json


class Disk:
    """Has room for so many files, and is full from then on; ``None``: for all.

    Args:
        monkeypatch: takes the system's calls away.
        call: the one that says so: a file cannot be made, or not written.
    """

    def __init__(self, monkeypatch, call):
        self.room, self.refused = None, 0
        if call == "mkstemp":
            original = tempfile.mkstemp
            monkeypatch.setattr(
                files.tempfile, "mkstemp", lambda **named: self.take() or original(**named)
            )
        else:
            original = os.fsync

            def fsync(handle):
                if stat.S_ISREG(os.fstat(handle).st_mode):
                    self.take()
                original(handle)

            monkeypatch.setattr(files.os, "fsync", fsync)

    def take(self):
        if self.room is not None:
            self.room -= 1
            if self.room < 0:
                self.refused += 1
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def small(out):
    """A run of three stages with all kinds of files; what it found."""
    folder = RunFolder(Settings(out=str(out)))

    def train():
        rng = np.random.default_rng(0)
        write_arrays(out / "stages" / "dense.npz", values=rng.normal(size=50))
        return {"mean": rng.normal()}

    def measure():
        values = np.load(out / "stages" / "dense.npz")["values"]
        rows = Rows(out / "rows.json", {"seed": 0})
        rows.fill([{"k": k} for k in range(3)], lambda k: {"value": float(values[k])})
        return {"rows": rows.rows}

    folder.stage("dense", ("model",), ("stages/dense.npz",), train)
    folder.stage("measure", ("model",), ("rows.json",), measure)
    outputs = [folder.outputs(name) for name in ("dense", "measure")]
    content = [{k: v for k, v in found.items() if k != "seconds"} for found in outputs]
    write_json(out / "metrics.json", {"found": content})
    folder.stage("report", (), ("metrics.json",), dict)
    return content


def files_of(out):
    return {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def fails_everywhere(tmp_path, disk, job, found):
    """Let the job meet a full disk at its first, second, ... write; how many there were."""
    expected = found(job(tmp_path / "alone"))
    for room in count():
        out = tmp_path / f"{room}"
        disk.room, disk.refused = room, 0
        try:
            job(out)
        except InputError as error:
            text = str(error)
        else:
            assert disk.refused == 0  # nobody has kept quiet about it
            return room
        finally:
            disk.room = None
        assert "cannot write" in text and "No space left on device" in text and "\n" not in text
        left = [p for p in out.rglob("*") if p.name.endswith(UNFINISHED)]
        assert left == [], left
        for path in out.rglob("*.json"):
            assert json.loads(path.read_text()) is not None
        if (out / "stages" / "run.json").exists():
            assert status_of(out, held=False).state in ("stopped", "failed")
        assert found(job(out)) == expected, room
        assert status_of(out, held=False).state == "finished"
    raise AssertionError


@pytest.mark.parametrize("call", ["mkstemp", "fsync"])
def test_full_at_every_write(tmp_path, monkeypatch, call):
    assert fails_everywhere(tmp_path, Disk(monkeypatch, call), small, list) >= 12
    assert all((tmp_path / "3" / p).exists() for p in files_of(tmp_path / "alone"))


def without_times(out):
    """What a main job found, but for what a clock told."""
    times = ("latency_ms", "train_seconds")
    content = {k: v for k, v in metrics(out).items() if k not in ("git_commit", "intervals")}
    models = content["models"].items()
    content["models"] = {n: {k: v for k, v in m.items() if k not in times} for n, m in models}
    return content


@pytest.mark.slow
def test_full_at_every_write_of_a_main_job(tmp_path, monkeypatch):
    def job(out):
        return run(tiny(out, trainer__save_minutes=1e-4))

    assert fails_everywhere(tmp_path, Disk(monkeypatch, "fsync"), job, without_times) > 20


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The numbers of a job that found room for everything."""
    return without_times(run(tiny(tmp_path_factory.mktemp("undisturbed") / "run")))


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tiny_jobs import tiny
from egnn_prune.cli.script import run_script
from egnn_prune.pipeline.main_job import run
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
run_script(lambda: run(tiny(Path(sys.argv[2]))))
"""


@pytest.mark.slow
@pytest.mark.parametrize("most", [0, 30, 1000, 10_000])
def test_the_system_itself_refuses_to_write(tmp_path, undisturbed, most):
    tests, out = Path(__file__).parents[1], tmp_path / "run"
    env = {**os.environ, "EGNN_PRUNE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-W", "ignore", "-c", LIMITED, tests, out, str(most)]
    found = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    errors = [line for line in found.stderr.splitlines() if line.startswith("error: ")]
    assert found.returncode == 2 and len(errors) == 1, found.stderr[-3000:]
    assert "Traceback" not in found.stderr
    assert [p for p in out.rglob("*") if p.name.endswith(UNFINISHED)] == []
    assert without_times(run(tiny(out))) == undisturbed
