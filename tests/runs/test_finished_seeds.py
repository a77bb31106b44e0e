"""What a finished seed found is read again only where nothing that it depends on has changed."""

from __future__ import annotations

import copy
import json
import math
import os
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
from seed_work import WorkSettings, work

from egnn_prune.configs.over_seeds import ComparisonSettings
from egnn_prune.configs.settings import JobsSettings
from egnn_prune.errors import InputError
from egnn_prune.runs import finished_seeds, seed_jobs
from egnn_prune.runs.finished_seeds import FINISHED, FinishedSeeds
from egnn_prune.runs.run_folder import NOT_HASHED
from egnn_prune.runs.seed_jobs import over_seeds

ROWS = [
    {"z": 1 / 3, "a": -0.0, "nan": math.nan, "inf": -math.inf, "none": None, "list": [1, [True]]},
    {"text": "Å\ud800\n", "1": 1e300, "empty": {}},
]


@pytest.fixture(autouse=True)
def _one_commit(monkeypatch):
    monkeypatch.setattr(finished_seeds, "git_commit", lambda: None)  # somebody may work on it


def finished(out: Path, settings=None, name: str = "work") -> FinishedSeeds:
    return FinishedSeeds(out, settings or WorkSettings(str(out)), name)


@pytest.fixture
def out(tmp_path):
    """A study whose seed 3 is finished."""
    (tmp_path / "seed3").mkdir()
    (tmp_path / "seed3/metrics.json").write_text('{"mae": 1.5}')
    finished(tmp_path).keep(3, ROWS)
    return tmp_path


def test_rows_come_back_as_they_were(out):
    assert repr(finished(out).of([0, 3, 13])) == repr({3: ROWS})


def test_rows_of_one_seed_are_not_those_of_another(tmp_path):
    finished(tmp_path).keep(3, ROWS)  # which have no files, so that names alone differ
    place = tmp_path / FINISHED
    (place / "seed3.json").rename(place / "seed4.json")
    assert finished(tmp_path).of([3, 4]) == {}


@pytest.mark.parametrize(
    "row", [{"a": (1, 2)}, {1: 2}, {1: 2, "a": 3}, {"a": object()}, {"a": {"b": b""}}]
)
def test_what_json_would_change_is_not_kept(tmp_path, row):
    finished(tmp_path).keep(3, [row])
    assert finished(tmp_path).of([3]) == {}


def test_settings_that_change_results(tmp_path):
    data = tmp_path / "data.xyz"
    data.write_text("graphs")
    (tmp_path / "out").mkdir()
    settings = ComparisonSettings(out=str(tmp_path / "out"))
    settings.data.name, settings.data.path = "extxyz", str(data)

    def believed(settings=settings, name="work"):
        return finished(tmp_path / "out", settings, name).of([0]) == {0: [{"a": 1}]}

    finished(tmp_path / "out", settings).keep(0, [{"a": 1}])
    assert believed() and not believed(name="another")
    for field in fields(settings):
        other = copy.deepcopy(settings)
        old = getattr(settings, field.name)
        if isinstance(old, JobsSettings):
            other.jobs.retries += 1
        elif field.name == "trainer":
            other.trainer.save_minutes += 1
        elif hasattr(old, "__dataclass_fields__"):  # a section: its first setting
            first = fields(old)[0].name
            setattr(getattr(other, field.name), first, "another")
        else:
            setattr(other, field.name, [*old, 7] if isinstance(old, list) else 7)
        assert believed(other) == (field.name in NOT_HASHED), field.name
    data.write_text("Graphs")
    assert not believed()


@pytest.mark.parametrize("name", ["__version__", "git_commit"])
def test_another_version_of_the_package(out, monkeypatch, name):
    changed = {"__version__": "9.9", "git_commit": lambda: "0123456789ab"}
    monkeypatch.setattr(finished_seeds, name, changed[name])
    assert finished(out).of([3]) == {}


OWN = [
    "seed3/metrics.json",
    "seed3-random-0.5/stages/train.json",
    "3bpa-seed3.json",
    "single3/sparsity0.5.npz",
    "seeds/3_dense.safetensors",
    "seed3.json",
]


@pytest.mark.parametrize("whole", [1 << 30, 0])
@pytest.mark.parametrize("name", OWN)
def test_files_of_a_seed_are_what_they_were(tmp_path, monkeypatch, name, whole):
    monkeypatch.setattr(finished_seeds, "WHOLE", whole)
    file, seeds = tmp_path / name, finished(tmp_path)
    seeds.keep(3, ROWS)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("content")
    assert seeds.of([3]) == {}  # one more
    seeds.keep(3, ROWS)
    assert 3 in seeds.of([3])
    state = file.stat()
    file.write_text("Content")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + (0 if whole else 1)))
    assert seeds.of([3]) == {}
    file.write_text("content")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert 3 in seeds.of([3])
    file.unlink()
    assert seeds.of([3]) == {}


@pytest.mark.parametrize(
    "name",
    [
        "seed13/a",
        "seed30.json",
        "seed0-random-0.3/a",
        "seed0-random-3.5/a",
        "3bpa-seed0.json",
        "single0/sparsity3.npz",
        "comparison.csv",
        "seed3/run.lock",
        "seed3/tensorboard/events.3",
        "seed3/curves/3.csv",
        "seed3/unfinished/train/dense-3.ckpt",
        "jobs/3/3_log.err",
        "finished/seed4.json",
        "seed3/.metrics.json.abc.unfinished",
    ],
)
def test_what_else_changes_does_not_matter(out, name):
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text("content")
    assert 3 in finished(out).of([3])


def test_no_flipped_bit_changes_rows(out):
    place, seeds = out / FINISHED / "seed3.json", finished(out)
    whole = place.read_bytes()
    seen = []
    for k in range(len(whole)):
        damaged = bytearray(whole)
        damaged[k] ^= 1 << k % 8
        place.write_bytes(damaged)
        seen.append(repr(seeds.of([3])))
    same = repr({3: ROWS})  # of 1E+300, say
    assert {*seen} <= {"{}", same} and seen.count(same) < 5
    for end in range(len(whole) - 1):  # but for the last line's end
        place.write_bytes(whole[:end])
        assert seeds.of([3]) == {}


def _fifo(place: Path) -> None:
    os.mkfifo(place)


def _writes(text: str):
    return lambda place: place.write_text(text)


STRANGE = {
    "folder": Path.mkdir,
    "fifo": _fifo,
    "loop": lambda place: place.symlink_to(place),
    "no object": _writes("[]"),
    "no rows": _writes('{"key": "a"}'),
    "no key": _writes('{"rows": []}'),
    "other rows": _writes('{"key": ["a"], "rows": 3}'),
    "nested": _writes('{"key": "a", "rows": ' + "[" * 990 + "]" * 990 + "}"),
    "nested too deeply": _writes("[" * 100_000),
}


@pytest.mark.parametrize("strange", STRANGE)
def test_what_cannot_be_read_is_as_good_as_missing(out, strange):
    place = out / FINISHED / "seed3.json"
    place.unlink()
    STRANGE[strange](place)
    assert finished(out).of([3]) == {}
    finished(out).keep(3, ROWS)  # replaced where that can be, and else left alone
    assert finished(out).of([3]).keys() == ({3} if place.is_file() else set())


class InThisProcess:
    """An executor whose jobs are over at once."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def submit(self, _, work, settings, seed, watched):
        self.seeds.append(seed)
        try:
            outcome = work(settings, seed)
        except InputError as error:
            outcome = str(error)
        paths = SimpleNamespace(result_pickle=Path(__file__))
        return SimpleNamespace(
            paths=paths, done=lambda force_check: True, result=lambda: outcome, cancel=None
        )

    def begun(self) -> list[int]:
        begun, self.seeds = sorted(self.seeds), []
        return begun


@pytest.fixture
def executor(monkeypatch):
    executor = InThisProcess()
    monkeypatch.setattr(seed_jobs._Jobs, "_executor", lambda _: executor)
    monkeypatch.setattr(seed_jobs, "LOOK_S", 0.0)
    return executor


def test_only_what_is_not_finished_is_begun(tmp_path, executor):
    (tmp_path / "alone").mkdir()
    seeds, folder = [2, 0, 1], tmp_path / "out"
    settings, one = WorkSettings(str(folder)), WorkSettings(str(tmp_path / "alone"), workers=1)
    folder.mkdir()
    alone = over_seeds(work, one, seeds, tmp_path / "alone")
    assert executor.begun() == [] and not (tmp_path / "alone" / FINISHED).exists()

    def begun() -> list[int]:
        assert over_seeds(work, settings, seeds, folder) == alone
        return executor.begun()

    assert begun() == [0, 1, 2] and begun() == []
    (folder / "seed0.json").unlink()
    assert begun() == [0] and begun() == []
    (folder / "seed1.json").write_text((folder / "seed1.json").read_text() + "\n")
    assert begun() == [1] and begun() == []
    (folder / FINISHED / "seed2.json").write_text("{")
    assert begun() == [2] and begun() == []
    settings.workers, settings.threads, settings.jobs.retries = 7, 2, 5
    assert begun() == []
    settings.dies = 99
    assert begun() == [0, 1, 2] and begun() == []
    seeds.remove(0)
    alone = [row for row in alone if row["seed"]]
    assert begun() == []


def test_what_failed_is_begun_again_and_nothing_else(tmp_path, executor):
    settings = WorkSettings(str(tmp_path), wrong=1)
    for expected in ([0, 1, 2], [1]):
        with pytest.raises(InputError, match=r"1 of 3 seeds failed \(seed 1: the file has no"):
            over_seeds(work, settings, [0, 1, 2], tmp_path)
        assert executor.begun() == expected


def test_where_nothing_can_be_kept_rows_are_found_all_the_same(tmp_path, executor):
    (tmp_path / FINISHED).write_text("a file")
    for _ in range(2):
        found = over_seeds(work, WorkSettings(str(tmp_path)), [0, 1], tmp_path)
        assert [row["seed"] for row in found] == [0, 0, 1, 1] and executor.begun() == [0, 1]
    assert json.loads((tmp_path / "seed0.json").read_text())["rows"] == found[:2]
