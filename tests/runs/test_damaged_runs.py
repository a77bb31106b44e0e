"""What is damaged in a run is one sentence; what is damaged elsewhere matters to nobody."""

from __future__ import annotations

import json
import os
import random
from types import SimpleNamespace

import numpy as np
import pytest

from egnn_prune.configs.settings import Settings
from egnn_prune.errors import InputError
from egnn_prune.pipeline.main_job import CHOSEN, Job
from egnn_prune.pruning.stopwatch import Remembered
from egnn_prune.runs import default_folder as default_folder_module
from egnn_prune.runs.run_folder import RunFolder
from egnn_prune.runs.stage_marker import read_marker, write_marker
from egnn_prune.runs.status import status_of
from egnn_prune.system.files import write_arrays, write_json

BAD = (b"", b"{", b'{"config_hash": ', b"[]", b"null", b'"key"', bytes(range(256)), b"[" * 99_999)


def begun(out, **changes):
    return RunFolder(Settings(out=None if out is None else str(out), **changes))


def two_stages(out, **changes):
    """A run of two stages, the second one ``report``; both know a number."""
    run = begun(out, **changes)
    for name in ("dense", "report"):
        run.stage(name, ("model",), (f"{name}.txt",), lambda name=name: work(run, name))
    write_json(run.path / "metrics.json", {})
    return run.path


def work(run, name):
    (run.path / f"{name}.txt").write_text("1")
    return {"number": 1.5, "list": (1, 2), "by": {2: "a", 10: "b"}}


def sentence(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 600, text
    return text


@pytest.mark.parametrize("content", BAD)
@pytest.mark.parametrize("name", ["run.json", "dense.json", "report.json"])
def test_damaged_files_of_the_run_itself(tmp_path, name, content):
    path = two_stages(tmp_path / "run")
    (path / "stages" / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is missing or damaged: .*; (delete|choose)") as e:
        two_stages(path)
    assert sentence(e)
    assert status_of(path, held=False).state == "damaged"
    if name != "run.json":  # what the sentence says helps
        (path / "stages" / name).unlink()
        assert two_stages(path) == path


@pytest.mark.parametrize("name", ["now.json", "failed.json"])
@pytest.mark.parametrize("content", BAD)
def test_what_only_helps_onlookers_may_be_damaged(tmp_path, name, content):
    run = begun(tmp_path / "run")
    run.stage("dense", ("model",), (), dict)
    (run.path / "stages" / name).write_bytes(content)
    del run
    assert two_stages(tmp_path / "run", name="other")
    assert status_of(tmp_path / "run", held=False).state == "finished"


@pytest.mark.parametrize("content", BAD)
def test_damage_elsewhere_blocks_no_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    stages = tmp_path / "runs" / "2000-01-01_00-00-00-main" / "stages"
    stages.mkdir(parents=True)
    (stages / "run.json").write_bytes(content)
    assert two_stages(None).parent.name == "runs"
    assert status_of(stages.parent).state == "damaged"


@pytest.mark.parametrize("content", BAD)
def test_a_damaged_folder_is_not_reused(tmp_path, content):
    other = two_stages(tmp_path / "other")
    (other / "stages" / "dense.json").write_bytes(content)
    with pytest.raises(InputError, match=r"damaged: .*leave that folder out of reuse"):
        two_stages(tmp_path / "run", reuse=[str(other)])


def test_facts_that_were_changed_are_noticed_and_old_markers_are_read(tmp_path):
    marker = tmp_path / "dense.json"
    write_marker(marker, {"key": "a", "number": 0.1, "by": {2: "a", 10: "b"}, "pair": (1, 2)})
    assert read_marker(marker)["number"] == 0.1 and "check" not in read_marker(marker)
    content = json.loads(marker.read_text())
    marker.write_text(json.dumps({**content, "number": 0.2}))
    with pytest.raises(InputError, match="it is not what was written"):
        read_marker(marker)
    del content["check"]
    marker.write_text(json.dumps({**content, "number": 0.2}))
    assert read_marker(marker)["number"] == 0.2


@pytest.mark.parametrize("name", ["run.json", "dense.json", "report.json"])
def test_no_truncation_and_no_flip_is_a_traceback_or_a_changed_number(tmp_path, name):
    path = two_stages(tmp_path / "run")
    place, draw = path / "stages" / name, random.Random(0)
    whole = place.read_bytes()
    bad = [whole[:n] for n in range(0, len(whole) - 2, 7)]
    for _ in range(60):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        bad.append(bytes(flipped))
    refused = 0
    for content in bad:
        place.write_bytes(content)
        try:
            run = begun(path)
            found = {n: run.outputs(n) for n in ("dense", "report")}
        except InputError as error:
            refused += "\n" not in str(error)
        else:
            assert all(f["number"] == 1.5 and f["list"] == [1, 2] for f in found.values())
        status_of(path)
    assert refused > 40


def test_a_clock_that_is_set_back_a_day_breaks_nothing(tmp_path, monkeypatch):
    class Yesterday(default_folder_module.datetime):
        @classmethod
        def now(cls, *_):
            return cls(2020, 1, 1)

    monkeypatch.chdir(tmp_path)
    first = begun(None, seed=1)
    monkeypatch.setattr(default_folder_module, "datetime", Yesterday)
    assert begun(None, seed=1).path == first.path  # it goes on, whatever the time
    second, third = begun(None, seed=2), begun(None, seed=3)
    assert second.path.name == "2020-01-01_00-00-00-main" != third.path.name
    saved = first.path / "unfinished" / "dense" / "a.json"
    write_json(saved, {"step": 5, "steps": 10, "seconds": 5.0})
    write_json(first.path / "stages" / "now.json", {"stage": "dense"})
    tomorrow = os.stat(saved).st_mtime + 86400
    for path in first.path.rglob("*"):
        os.utime(path, (tomorrow, tomorrow))
    found = status_of(first.path)
    assert found.progress.age == 0 and found.progress.left == 5.0


def test_a_lock_file_whose_process_died_is_no_lock(tmp_path):
    (tmp_path / "run").mkdir()
    for content in (b"999999999\n", b"", b"\xff\xfe", b"7" * 100_000):
        (tmp_path / "run" / "run.lock").write_bytes(content)
        run = begun(tmp_path / "run")
        assert (run.path / "run.lock").read_text() == f"{os.getpid()}\n"
        del run


def test_what_a_first_fit_had_begun_goes_with_its_settings(tmp_path):
    run = begun(tmp_path / "run")
    place = run.path / "unfinished" / "dense"
    place.mkdir(parents=True)
    (place / "a.ckpt").write_text("state")
    write_json(run.path / "stages" / "failed.json", {"stage": "dense", "error": "no"})
    again = begun(tmp_path / "run")
    assert (place / "a.ckpt").exists()  # the same settings go on
    del run, again
    begun(tmp_path / "run", seed=7)
    assert not place.parent.exists() and not (tmp_path / "run" / "stages" / "failed.json").exists()


def test_a_damaged_selection_is_one_sentence(tmp_path):
    job = SimpleNamespace(folder=SimpleNamespace(path=tmp_path), train=[0] * 5)
    path, rows, weights = tmp_path / CHOSEN, np.array([4, 0]), np.ones(5)
    write_arrays(path, selected=rows, weights=weights)
    assert Job.chosen(job)[0] == [4, 0]
    whole = path.read_bytes()
    for content in (b"", whole[:-9], whole[:200], whole[90:], bytes(range(256))):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"selection\.npz is not a readable"):
            Job.chosen(job)
    wrong = (
        {"selected": rows},
        {"weights": weights},
        {"selected": rows + 1, "weights": weights},
        {"selected": -rows, "weights": weights},
        {"selected": rows / 2, "weights": weights},
        {"selected": rows, "weights": weights[1:]},
    )
    for arrays in wrong:
        write_arrays(path, **arrays)
        with pytest.raises(InputError, match="the same command selects the graphs again"):
            Job.chosen(job)


@pytest.mark.parametrize("content", [*BAD, b"{}", b'{"times_ms": 1}', b'{"times_ms": {"a": [1]}}'])
def test_damaged_times_are_one_sentence(tmp_path, content):
    (tmp_path / "latency.json").write_bytes(content)
    with pytest.raises(InputError, match=r"latency\.json is .*damaged"):
        Remembered(dict, tmp_path / "latency.json")
