"""Runs seen from outside: what they do, and what can be removed of them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

import pytest

from egnn_prune.cli.main import main
from egnn_prune.runs.leftovers import leftovers
from egnn_prune.runs.run_folder import UNFINISHED, RunFolder
from egnn_prune.runs.status import Progress, runs_below, status_of


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """``begin(name)``: a folder of a run; nobody holds it once it is forgotten."""

    def make(name, **settings):
        folder = RunFolder.__new__(RunFolder)
        folder.path = tmp_path / name
        folder.content, folder.hash, folder.reuse = {"seed": 0, **settings}, "a", []
        folder._working = []
        folder.settings = SimpleNamespace(name=name, out=str(folder.path))
        monkeypatch.setattr("egnn_prune.runs.run_folder.OmegaConf.structured", vars)
        monkeypatch.setattr("egnn_prune.runs.run_folder.OmegaConf.to_yaml", str)
        folder._begin()
        return folder

    return make


@pytest.fixture
def call_command(monkeypatch, capsys):
    """``call_command(*words)``: exit code, stdout and stderr of the command ``egnn-prune``."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["egnn-prune", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def finish(folder):
    folder.stage("dense", ("seed",), (), dict)
    folder.stage("report", ("seed",), (), dict)
    metrics = {"models": {"dense": {"test_mae": 0.1}}, "dataset": {"unit": "eV"}}
    (folder.path / "metrics.json").write_text(json.dumps(metrics))


def test_each_state(begin, tmp_path):
    folder = begin("a")
    assert status_of(folder.path).state == "working" and status_of(folder.path).stage == ""
    seen = []

    def work(folder):
        saved = folder.unfinished("dense net")
        saved.parent.mkdir(parents=True)
        saved.with_suffix(".json").write_text('{"step": 30, "steps": 120, "seconds": 60.0}')
        assert saved.name == "dense-net-1.ckpt"
        assert folder.unfinished("dense net").name == "dense-net-2.ckpt"
        seen.append(status_of(folder.path))
        raise ValueError("it rained\nall day")

    with pytest.raises(ValueError, match="it rained"):
        folder.stage("dense", ("seed",), (), partial(work, folder))
    (status,) = seen
    assert (status.state, status.stage, status.done) == ("working", "dense", 0)
    assert status.progress.step == 30 and 170 < status.progress.left <= 180
    path = folder.path
    del folder
    status = status_of(path)
    assert (status.state, status.error, status.stage) == ("failed", "it rained", "dense")
    folder = begin("a")
    folder.stage("dense", ("seed",), (), dict)
    assert not (path / UNFINISHED).exists() and folder.unfinished("outside of stages") is None
    del folder
    assert (status_of(path).state, status_of(path).done) == ("stopped", 1)
    folder = begin("a")
    finish(folder)
    del folder
    assert status_of(path).state == "finished" and status_of(path).metrics["models"]
    (path / "metrics.json").write_text("{")
    assert status_of(path).state == "damaged" and "metrics.json" in status_of(path).error


@pytest.mark.parametrize("content", ["", "[]", '{"step": "x", "steps": 1, "seconds": 1}', "{}"])
def test_damaged_small_files_stop_nothing(begin, content):
    path = begin("a").path
    for name in ("now.json", "failed.json", "dense.json"):
        (path / "stages" / name).write_text(content)
    place = path / UNFINISHED / "dense"
    place.mkdir(parents=True)
    (place / "x.json").write_text(content)
    assert status_of(path).progress is None and status_of(path).done == 0


def test_time_left():
    assert math.isnan(Progress(0, 10, 0.0, 0.0).left)
    assert Progress(2, 10, 4.0, 1.0).left == 15.0
    assert Progress(9, 10, 9.0, 60.0).left == 0.0


def test_runs_are_found_in_folders_of_folders(begin, tmp_path):
    begin("study/seed0/a"), begin("b")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "other").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in runs_below(tmp_path)]
    assert found == ["b", "study/seed0/a"]
    assert list(runs_below(tmp_path / "b")) == [tmp_path / "b"]


def test_what_can_go(begin, tmp_path):
    working, finished, stopped = begin("working"), begin("finished"), begin("stopped")
    for folder in (working, finished, stopped):
        (folder.path / ".x.json.abc.unfinished").write_text("half")
        (folder.path / UNFINISHED / "dense").mkdir(parents=True)
        (folder.path / UNFINISHED / "dense" / "a.ckpt").write_text("state")
    finish(finished)
    (finished.path / UNFINISHED / "dense").mkdir(parents=True)
    (finished.path / UNFINISHED / "dense" / "a.ckpt").write_text("state")
    empty = begin("empty").path
    place, going_on = finished.path, stopped.path
    del finished, stopped, folder
    found = {item.path: item for item in leftovers(tmp_path)}
    assert set(found) == {
        empty,
        place / ".x.json.abc.unfinished",
        place / UNFINISHED,
        going_on / ".x.json.abc.unfinished",
    }
    assert found[place / UNFINISHED].bytes == 5
    for item in found.values():
        item.remove()
    assert not empty.exists() and (going_on / UNFINISHED / "dense" / "a.ckpt").exists()
    assert (working.path / ".x.json.abc.unfinished").exists()
    assert (place / "metrics.json").exists() and list(leftovers(tmp_path)) == []


def test_a_process_that_works_is_seen(begin, tmp_path):
    path = begin("a").path
    assert status_of(path).state == "stopped"
    code = "import sys, time; from pathlib import Path; from egnn_prune.runs.folder_lock import *\n"
    code += "held = lock_folder(Path(sys.argv[1])); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"1\n"
        assert status_of(path).state == "working"
        other.kill()
    for _ in range(50):
        if status_of(path).state == "stopped":
            break
        time.sleep(0.1)
    assert status_of(path).state == "stopped"


def test_the_commands(begin, tmp_path, call_command):
    finish(begin("a"))
    begin("b")
    code, out, _ = call_command("status", tmp_path)
    assert code == 0 and "finished" in out and "test MAE dense 0.1 eV" in out
    code, out, _ = call_command("clean", tmp_path)
    assert code == 0 and "b: a run that was stopped before it had anything" in out
    assert "--yes removes these" in out and (tmp_path / "b").exists()
    code, out, _ = call_command("clean", tmp_path, "--yes")
    assert code == 0 and not (tmp_path / "b").exists() and (tmp_path / "a").exists()
    assert call_command("clean", tmp_path)[1] == f"There is nothing to remove from {tmp_path}.\n"
    code, _, err = call_command("status", tmp_path / "nowhere")
    assert code == 2 and "there is no folder" in err and len(err.strip().splitlines()) == 1
