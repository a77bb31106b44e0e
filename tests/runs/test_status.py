"""Runs seen from outside: what they do, and what can be removed of them."""

from __future__ import annotations

import fcntl
import json
import math
import os
import subprocess
import sys
import threading
import time
from functools import partial
from types import SimpleNamespace

import pytest

from egnn_prune.cli.main import main
from egnn_prune.errors import InputError
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
    other = another_process(path)
    assert status_of(path).state == "working"
    other.kill()
    other.wait()
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


def test_clean_keeps_what_is_not_safe_to_remove(begin, tmp_path):
    held = another_process(begin("held").path)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data.txt").write_text("mine")
    failed = begin("failed")
    with pytest.raises(ValueError, match="no"):
        failed.stage("dense", ("seed",), (), partial(refuse, "no"))
    linked, named, finished = begin("linked"), begin("named"), begin("finished")
    (linked.path / "stages" / "data").symlink_to(precious)
    (named.path / "mine.unfinished").write_text("a result with a name of ours")
    (named.path / ".folder.unfinished").mkdir()
    finish(finished)
    (finished.path / UNFINISHED).symlink_to(precious)
    (tmp_path / "link").symlink_to(begin("empty").path)
    del failed, linked, named, finished
    try:
        assert [item.path for item in leftovers(tmp_path)] == [tmp_path / "empty"]
    finally:
        held.kill()
        held.wait()
    for item in leftovers(tmp_path):
        item.remove()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("failed", "finished", "link", "linked", "named", "precious")
    ]
    assert (precious / "data.txt").read_text() == "mine"


def refuse(text):
    raise ValueError(text)


def another_process(folder):
    """A process that holds a folder."""
    code = "import sys, time; from pathlib import Path; from egnn_prune.runs.folder_lock import *\n"
    code += "held = lock_folder(Path(sys.argv[1])); print(1, flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"1\n"
    other.stdout.close()
    return other


def test_clean_looks_again_while_nobody_else_can(begin, tmp_path, monkeypatch, call_command):
    path, begun_path = begin("a").path, begin("b").path
    first, second = leftovers(tmp_path)
    other = another_process(path)
    try:
        with pytest.raises(InputError, match=f"process {other.pid} is working in"):
            first.remove()
    finally:
        other.kill()
        other.wait()
    folder = begin("b")
    folder.stage("dense", ("seed",), (), dict)  # meanwhile it became something
    del folder
    with pytest.raises(InputError, match="has changed meanwhile; look again"):
        second.remove()
    assert path.exists() and begun_path.exists()

    def keep(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("egnn_prune.runs.leftovers._remove_held", keep)
    code, out, err = call_command("clean", tmp_path, "--yes")
    assert code == 2 and "kept: cannot delete" in out and "Removed 0 B." in out
    assert err == "error: 1 of 1 could not be removed; the reasons are above\n"


def test_whoever_looks_does_not_stop_whoever_begins(begin, tmp_path):
    place = begin("a").path / "run.lock"
    with place.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as is_held does for an instant
        threading.Timer(0.2, fcntl.flock, (file, fcntl.LOCK_UN)).start()
        assert begin("a").path == place.parent
    place.chmod(0o444)
    assert status_of(place.parent).state == "stopped"


def test_a_finished_run_that_is_repaired_is_at_work(begin, tmp_path):
    folder = begin("a")
    finish(folder)
    assert status_of(folder.path).state == "finished"  # held, but nothing is done
    seen = []
    folder.stage("dense", ("seed",), ("lost.txt",), lambda: seen.append(folder.path) or look(seen))
    assert seen[1:] == ["working"] and status_of(folder.path).state == "finished"


def look(seen):
    seen.append(status_of(seen[0]).state)
    return {}


def test_a_stage_within_a_stage_leaves_the_outer_one_at_work(begin):
    folder, seen = begin("a"), []

    def outer(folder):
        folder.stage("member", ("seed",), (), dict)
        seen.append(status_of(folder.path).stage)
        folder.stage("other", ("seed",), (), partial(refuse, "it rained"))

    with pytest.raises(ValueError, match="it rained"):
        folder.stage("outer", ("seed",), (), partial(outer, folder))
    path = folder.path
    del folder
    found = status_of(path)
    assert seen == ["outer"] and (found.stage, found.error) == ("other", "it rained")


def test_the_last_change_is_that_of_what_is_saved(begin):
    path = begin("a").path
    saved = path / UNFINISHED / "dense" / "x.ckpt"
    saved.parent.mkdir(parents=True)
    saved.write_text("state")
    (path / "stages" / "now.json").write_text("{}")
    os.utime(saved, (4e9, 4e9))
    assert status_of(path).changed == 4e9
    os.utime(path / "stages" / "now.json", (4.1e9, 4.1e9))
    assert status_of(path).changed == 4.1e9


@pytest.mark.parametrize("stage", ["../../x", "/etc", "..", 5, ["a"], "a\nb"])
def test_a_stage_of_a_strange_name_is_not_looked_for(begin, stage):
    path = begin("a").path
    (path / "stages" / "now.json").write_text(json.dumps({"stage": stage}))
    assert status_of(path).stage in ("", "5") and status_of(path).progress is None


@pytest.mark.parametrize(
    "numbers", ["1e999, 2, 3", "5, 2, 3", "-1, 2, 3", "1, 2, NaN", "1, 2, Infinity", "1, 2, -3"]
)
def test_progress_that_cannot_be(begin, numbers):
    path = begin("a").path
    place = path / UNFINISHED / "dense"
    place.mkdir(parents=True)
    (path / "stages" / "now.json").write_text('{"stage": "dense"}')
    step, steps, seconds = numbers.split(", ")
    (place / "x.json").write_text(f'{{"step": {step}, "steps": {steps}, "seconds": {seconds}}}')
    assert status_of(path).progress is None


def test_studies_and_other_jobs(begin, tmp_path, call_command):
    study = tmp_path / "sweep"
    begin("sweep/seed0")
    (study / "run.lock").touch()
    lines = call_command("status", tmp_path)[1].splitlines()
    assert any(line.split()[:3] == ["sweep", "stopped", "study"] for line in lines)
    (study / "sweep.csv").touch()
    (study / "sweep.txt").touch()
    lines = call_command("status", tmp_path)[1].splitlines()
    assert any(line.split()[:3] == ["sweep", "finished", "sweep"] for line in lines)
    assert any(line.startswith("sweep/seed0") and "stopped" in line for line in lines)
    about = {
        "images": {"experiment": "digits"},
        "special": {
            "kind": "specialise",
            "models": {"teacher": {"force_rmse_mev_per_angstrom": 3.14159}, "specialised": None},
        },
        "strange": {"models": {"dense": [], "pruned": {"test_mae": "x"}}, "dataset": 5},
        "list": {"models": [1]},
    }
    for name, content in about.items():
        folder = begin(name)
        finish(folder)
        (folder.path / "metrics.json").write_text(json.dumps(content))
    out = call_command("status", tmp_path)[1]
    assert "experiment digits" in out and "force RMSE teacher 3.142 meV/Angstrom" in out
    assert out.count("finished") == 5
