"""Files are parsed once, kept whole or not at all, and never written to by readers."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from egnn_prune.data import cache
from egnn_prune.data.array_files import ColumnWriter, npz_pieces
from egnn_prune.data.cache import cache_folder, cached
from egnn_prune.errors import DataError

CALLS: list[Path] = []


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EGNN_PRUNE_CACHE", str(tmp_path / "cache"))
    CALLS.clear()
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path) -> Path:
    (tmp_path / "numbers.txt").write_text("1 2 3")
    return tmp_path / "numbers.txt"


def whole(path: Path) -> dict[str, np.ndarray]:
    CALLS.append(path)
    return {"values": np.array(path.read_text().split(), dtype=float), "one": np.array(7)}


def in_pieces(path: Path):
    CALLS.append(path)
    for word in path.read_text().split():
        yield {"values": np.full((1, 2), float(word)), "text": np.array([word], dtype="U3")}
        yield {"text": np.array(["and"])}


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_parsed_once_and_mapped(file, folder):
    first, again = cached(file, whole), cached(file, whole)
    assert CALLS == [file]
    for arrays in (first, again):
        assert arrays["values"].tolist() == [1, 2, 3] and int(arrays["one"]) == 7
        assert isinstance(arrays["values"], np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            arrays["values"][0] = 5


def test_pieces_follow_each_other(file):
    for _ in range(2):
        arrays = cached(file, in_pieces)
        assert arrays["values"].tolist() == [[1, 1], [2, 2], [3, 3]]
        assert arrays["text"].tolist() == ["1", "and", "2", "and", "3", "and"]
    assert CALLS == [file]


def test_the_key_is_content_parser_version_and_variant(file, tmp_path):
    cached(file, whole)
    copy = tmp_path / "copy.txt"
    copy.write_text("1 2 3")
    cached(copy, whole)
    assert len(CALLS) == 1
    cached(file, whole, version=2)
    cached(file, whole, variant="forces")
    cached(file, in_pieces)
    file.write_text("1 2 4")
    assert cached(file, whole)["values"].tolist() == [1, 2, 4]
    assert len(CALLS) == 5


@pytest.mark.parametrize("where", ["start", "middle", "check"])
def test_what_fails_leaves_nothing(file, folder, where):
    def parse(path):
        if where == "start":
            raise DataError("no")
        yield {"values": np.zeros(3)}
        if where == "middle":
            raise DataError("no")

    def check(arrays):
        assert arrays["values"].tolist() == [0, 0, 0]
        raise DataError("no")

    with pytest.raises(DataError, match="no"):
        cached(file, parse, check=check)
    assert files(folder) == []
    assert list(folder.rglob(".making*")) == []


def test_objects_are_never_pickled(file, folder):
    with pytest.raises(TypeError, match="Python objects"):
        cached(file, lambda path: {"values": np.array([None])})
    assert files(folder) == []


def test_pieces_must_continue_each_other(tmp_path):
    writer = ColumnWriter(tmp_path / "x.npy", np.zeros((2, 3)))
    for wrong in (np.zeros((2, 4)), np.zeros((2, 3), dtype=np.float32)):
        with pytest.raises(TypeError, match="does not continue"):
            writer.append(wrong)
    writer.abandon()


def test_a_file_that_grows_meanwhile(file, folder):
    def parse(path):
        path.write_text("1 2 3 4")
        return {"values": np.zeros(3)}

    with pytest.raises(DataError, match=r"numbers\.txt changed while it was read"):
        cached(file, parse)
    assert files(folder) == []


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*none\.npz"):
        cached(tmp_path / "none.npz", whole)


@pytest.mark.parametrize("parse", [whole, in_pieces])
def test_a_full_disk_is_no_obstacle(file, folder, monkeypatch, parse):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ColumnWriter, "append", full)
    assert cached(file, parse)["values"].shape[0] == 3
    assert files(folder) == []


def test_a_folder_that_cannot_be_made(file, tmp_path, monkeypatch):
    monkeypatch.setenv("EGNN_PRUNE_CACHE", str(file / "below"))  # below a file
    assert cached(file, whole)["values"].tolist() == [1, 2, 3]
    assert cached(file, in_pieces)["values"].shape == (3, 2)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(file, folder):
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert cached(file, whole)["values"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("damage", ["cut", "gone", "no index", "nonsense"])
def test_damaged_arrays_are_made_again(file, folder, damage):
    cached(file, whole)
    array = next(path for path in files(folder) if path.name == "0.npy")
    if damage == "cut":
        array.write_bytes(array.read_bytes()[:-8])
    elif damage == "gone":
        array.unlink()
    else:
        index = array.with_name("arrays.json")
        index.unlink() if damage == "no index" else index.write_text("{")
    assert cached(file, whole)["values"].tolist() == [1, 2, 3]
    assert cached(file, whole)["values"].tolist() == [1, 2, 3]
    assert len(CALLS) == 2


def test_arrays_in_use_outlive_the_cache(file, folder):
    arrays = cached(file, whole)
    cache.shutil.rmtree(folder)
    assert arrays["values"].tolist() == [1, 2, 3]


def test_another_process_may_be_faster(file, folder):
    def parse(path):
        if len(CALLS) == 0:
            CALLS.append(path)
            cached(path, parse)  # someone else finishes the same work meanwhile
        return {"values": np.arange(3)}

    assert cached(file, parse)["values"].tolist() == [0, 1, 2]
    assert len([path for path in files(folder) if path.suffix == ".npy"]) == 1
    assert list(folder.rglob(".making*")) == []


def test_many_at_once(file, folder):
    barrier = Barrier(6)

    def parse(path):
        yield {"values": np.arange(1000)}
        barrier.wait(timeout=60)
        yield {"values": np.arange(1000)}

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: cached(file, parse), range(6)))
    assert all(int(arrays["values"].sum()) == 999_000 for arrays in found)
    assert len(list(folder.rglob("arrays.json"))) == 1
    assert list(folder.rglob(".making*")) == []


def test_what_a_killed_process_left_is_removed_later(file, folder):
    cached(file, whole)
    left = next(folder.iterdir()) / ".making-old"
    left.mkdir()
    os.utime(left, (0, 0))
    young = left.with_name(".making-young")
    young.mkdir()
    cached(file, whole, variant="other")
    assert not left.exists() and young.exists()


def test_where_the_cache_is(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("EGNN_PRUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "egnn_prune"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "egnn_prune"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_pieces_are_the_arrays_of_the_file(tmp_path, monkeypatch, save):
    monkeypatch.setattr("egnn_prune.data.array_files.PIECE", 100)  # bytes: many pieces
    made = {
        "big": np.random.default_rng(0).normal(size=(50, 3)),
        "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "number": np.array(2.5),
        "text": np.array(["a", "bcd"]),
        "nothing": np.zeros((0, 3)),
        "../../up": np.arange(3, dtype=">i4"),
    }
    save(tmp_path / "own.npz", **made)
    found = cached(tmp_path / "own.npz", npz_pieces)
    assert set(found) == set(made)
    for name, array in made.items():
        assert np.array_equal(found[name], array) and found[name].dtype == array.dtype, name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "own.npz"]
