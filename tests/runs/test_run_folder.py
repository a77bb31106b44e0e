"""Folders of runs: one process at a time, never two runs in one; changed data are noticed."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from PIL import Image

from egnn_prune.configs.settings import Settings
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.runs.folder_lock import NAME, alone_in, lock_folder
from egnn_prune.runs.run_folder import RunFolder
from egnn_prune.runs.stage_marker import read_marker, write_marker
from egnn_prune.system.files import UNFINISHED, atomic, read_json
from egnn_prune.vision.data.inputs import fingerprint, image_inputs
from egnn_prune.vision.settings import ImageDataSettings

HOLDER = """
import sys, time
from pathlib import Path
from egnn_prune.runs.folder_lock import lock_folder
held = lock_folder(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder until it is killed."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def settings(out: Path | None, **changes: Any) -> Settings:
    return Settings(out=None if out is None else str(out), **changes)


def in_threads(work: Callable[[int], Any], count: int) -> tuple[list[Any], list[str]]:
    """Results and complaints of calls at the same time; what they hold, they hold to the end."""
    start, found, complaints = threading.Barrier(count), [], []
    end = threading.Barrier(count)

    def call(k: int) -> None:
        start.wait()
        try:
            found.append(work(k))
        except InputError as error:
            complaints.append(str(error))
        end.wait()

    threads = [threading.Thread(target=call, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found, complaints


# ------------------------------------------------------------------ one at a time


def test_a_folder_in_use_is_refused_and_free_when_its_process_is_killed(tmp_path):
    folder = tmp_path / "run"
    with another_process(folder) as process:
        with pytest.raises(ConfigError) as caught:
            RunFolder(settings(folder))
        assert f"process {process.pid} is working in {folder}" in str(caught.value)
    assert RunFolder(settings(folder)).path == folder


def test_what_this_process_holds_others_may_not_have(tmp_path):
    held = RunFolder(settings(tmp_path / "run"))
    command = [sys.executable, "-c", HOLDER, str(held.path)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode and f"process {os.getpid()} is working in" in found.stderr
    del held
    gc.collect()
    with another_process(tmp_path / "run"):
        pass


def test_the_same_thread_may_ask_again(tmp_path):
    first = RunFolder(settings(tmp_path / "run"))
    again = RunFolder(settings(tmp_path / "run"))
    assert first.hash == again.hash
    del first  # the other one still holds it
    gc.collect()
    _, complaints = in_threads(lambda _: lock_folder(tmp_path / "run"), 1)
    assert len(complaints) == 1 and "(this one) is working in" in complaints[0]


def test_different_runs_at_once_never_share_a_folder(tmp_path):
    found, complaints = in_threads(lambda k: RunFolder(settings(tmp_path / "run", seed=k)), 4)
    assert len(found) == 1 and len(complaints) == 3
    assert all("is working in" in complaint for complaint in complaints)
    written = read_json(tmp_path / "run" / "stages" / "run.json")
    assert written["config_hash"] == found[0].hash


def test_runs_of_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, complaints = in_threads(lambda k: RunFolder(settings(None, seed=k)), 5)
    assert complaints == []
    assert len({folder.path for folder in found}) == 5
    for folder in found:
        assert read_json(folder.path / "stages" / "run.json") == {"config_hash": folder.hash}
        assert f"seed: {folder.settings.seed}\n" in (folder.path / "config.yaml").read_text()


def test_of_two_equal_commands_the_second_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, complaints = in_threads(lambda _: RunFolder(settings(None)), 2)
    assert len(found) == 1 and len(complaints) == 1
    assert f"is working in {found[0].path}" in complaints[0]


def test_a_finished_run_is_read_by_as_many_as_like(tmp_path):
    run = RunFolder(settings(tmp_path / "run"))
    run.stage("report", (), (), dict)
    del run
    gc.collect()
    with another_process(tmp_path / "run"):
        assert RunFolder(settings(tmp_path / "run")).finished


def test_what_a_finished_run_lacks_is_made_again_alone(tmp_path):
    def work() -> dict[str, Any]:
        (tmp_path / "run" / "x.txt").write_text("1")
        return {}

    run = RunFolder(settings(tmp_path / "run"))
    run.stage("dense", (), ("x.txt",), work)
    run.stage("report", (), (), dict)
    del run
    gc.collect()
    again = RunFolder(settings(tmp_path / "run"))
    (tmp_path / "run" / "x.txt").unlink()
    with another_process(tmp_path / "run"), pytest.raises(ConfigError, match="is working in"):
        again.stage("dense", (), ("x.txt",), work)
    again.stage("dense", (), ("x.txt",), work)
    assert len(in_threads(lambda _: lock_folder(tmp_path / "run"), 1)[1]) == 1


def test_a_run_whose_folder_became_another_stops(tmp_path):
    first = RunFolder(settings(tmp_path / "run", seed=0))
    second = RunFolder(settings(tmp_path / "run", seed=1))  # in this thread, and nothing is there
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        first.stage("dense", (), (), dict)
    assert second.stage("dense", (), (), dict)["seconds"] >= 0


def test_a_job_holds_its_folder_while_it_runs(tmp_path):
    folder = tmp_path / "study"

    def inner() -> None:
        with alone_in(folder):
            pass

    with alone_in(folder):
        inner()  # jobs run others within
        _, complaints = in_threads(lambda _: inner(), 1)
        assert "is working in" in complaints[0]
        (folder / "table.csv").write_text("1")
    assert in_threads(lambda _: lock_folder(folder), 1)[1] == []


def test_a_job_that_is_refused_leaves_no_folder(tmp_path):
    with pytest.raises(ConfigError, match=r"^no$"), alone_in(tmp_path / "study"):
        raise ConfigError("no")
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_cannot_be_a_folder(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError) as caught:
        RunFolder(settings(tmp_path / place))
    assert "\n" not in str(caught.value) and "file" in str(caught.value)


# ------------------------------------------------------------------ whose results these are


def test_a_stage_of_other_settings_is_refused(tmp_path):
    run = RunFolder(settings(tmp_path / "run"))
    run.stage("dense", ("model",), (), lambda: {"number": 1})
    marker = run.path / "stages" / "dense.json"
    write_marker(marker, {**read_marker(marker), "key": "another"})
    with pytest.raises(ConfigError, match=r"stage dense .* was run with other settings"):
        run.stage("dense", ("model",), (), lambda: {"number": 2})


#: What ``training`` had when runs were first kept by people.
TRAINING = (
    "max_epochs finetune_epochs batch_size lr finetune_lr weight_decay clip loss force_weight "
    "monitor recompute scratch"
)


def test_runs_of_before_a_setting_are_found_again(tmp_path):
    run = RunFolder(settings(tmp_path / "run"))
    assert set(run.content["training"]) == set(TRAINING.split())
    run.stage("dense", ("training",), (), dict)
    for name, value in (("schedule", "cosine"), ("average", "ema"), ("patience", 3)):
        changed = settings(tmp_path / "run")
        setattr(changed.training, name, value)
        with pytest.raises(ConfigError, match="holds a run with other settings"):
            RunFolder(changed)


@pytest.mark.parametrize("left", ["acquisition.json", "seeds/0.json", "first.safetensors"])
def test_results_without_a_stage_belong_to_their_settings_too(tmp_path, left):
    run = RunFolder(settings(tmp_path / "run"))
    with atomic(run.path / left) as temporary:
        temporary.write_text("{}")
    assert RunFolder(settings(tmp_path / "run")).path == run.path
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        RunFolder(settings(tmp_path / "run", seed=1))


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    run = RunFolder(settings(tmp_path / "run"))
    left = run.path / "stages" / f".trained.safetensors.abc{UNFINISHED}"
    left.write_text("half")
    RunFolder(settings(tmp_path / "run"))
    assert not left.exists()
    assert sorted(p.name for p in run.path.iterdir()) == ["config.yaml", NAME, "stages"]


# ------------------------------------------------------------------ the files that it reads


def structures(path: Path, energy: float) -> Path:
    atoms = Atoms("CO", [[0, 0, 0], [0, 0, 1.1]])
    atoms.info["REF_energy"] = energy
    write(path, [atoms] * 3, format="extxyz")
    return path


@pytest.mark.parametrize("changed", ["path", "test", "ood"])
def test_changed_data_are_noticed(tmp_path, changed):
    files = {k: str(structures(tmp_path / f"{k}.xyz", 1.0)) for k in ("path", "test", "ood")}

    def run(out: str, **more: Any) -> RunFolder:
        chosen = settings(tmp_path / out, **more)
        chosen.data.name = "extxyz"
        for name, file in files.items():
            setattr(chosen.data, name, file)
        return RunFolder(chosen)

    first = run("run")
    first.stage("dense", ("data",), (), lambda: {"number": 1})
    assert run("run").hash == first.hash
    structures(Path(files[changed]), 101.0)
    with pytest.raises(ConfigError, match="other settings or other data"):
        run("run")
    other = run("other", reuse=[str(first.path)])
    assert other.stage("dense", ("data",), (), lambda: {"number": 2})["number"] == 2


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("rmd17", "rmd17/rmd17_ethanol.npz"),
        ("rmd17", "rmd17/split_01_ethanol.npz"),
        ("md17", "md17/md17_ethanol.npz"),
        ("qm9", "molecules/qm9_12k.npz"),
        ("qm9", "molecules/qm9/qm9.zip"),
    ],
)
def test_files_of_the_data_folder_count_too(tmp_path, monkeypatch, source, place):
    monkeypatch.setenv("EGNN_PRUNE_DATA", str(tmp_path / "data"))
    file = tmp_path / "data" / place
    file.parent.mkdir(parents=True)
    (file.parent / "rmd17_ethanol.npz").write_bytes(b"the trajectory")

    def found() -> str:
        chosen = settings(tmp_path / "run")
        chosen.data.name = source
        return RunFolder(chosen).hash

    file.write_bytes(b"one")
    before = found()
    assert found() == before
    file.write_bytes(b"two")
    assert found() != before


def test_images_count_by_content_and_very_many_by_their_state(tmp_path):
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(tmp_path / name)
    chosen = ImageDataSettings(name="folder", path=str(tmp_path))
    before = image_inputs(chosen)
    os.utime(tmp_path / "cat/1.png", (1, 1))
    for clutter in (".DS_Store", "cat/Thumbs.db", "__MACOSX/cat/1.png"):
        (tmp_path / clutter).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / clutter).write_text("nobody's data")
    assert image_inputs(chosen) == before  # a copy is the same data
    Image.fromarray(np.ones((4, 4), dtype=np.uint8)).save(tmp_path / "cat/1.png")
    assert image_inputs(chosen) != before
    files = sorted(tmp_path.glob("*/*.png"))
    many = fingerprint(files, whole=10)
    os.utime(files[0], (2, 2))
    assert fingerprint(files, whole=10) != many
    assert image_inputs(ImageDataSettings(name="digits")) == {}


@pytest.mark.parametrize("ood", [None, "folder"])
def test_images_out_of_distribution_count_too(tmp_path, ood):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(tmp_path / "a" / "1.png")
    found = image_inputs(ImageDataSettings(name="digits", ood=ood, ood_path=str(tmp_path)))
    assert set(found) == ({"ood"} if ood else set())
