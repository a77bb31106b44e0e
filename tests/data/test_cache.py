"""Files are parsed once, kept whole or not at all, and never written to by readers."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
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


def test_the_same_name_size_and_time_but_other_numbers(file):
    cached(file, whole)
    times = file.stat()
    file.write_text("1 2 4")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert cached(file, whole)["values"].tolist() == [1, 2, 4]


def test_other_files_are_part_of_the_key_and_must_not_change(file, folder, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("a")
    cached(file, whole, others=[other])
    cached(file, whole, others=[other])
    assert len(CALLS) == 1
    other.write_text("b")
    cached(file, whole, others=[other])
    cached(file, whole)
    assert len(CALLS) == 3

    def parse(path):
        other.write_text("longer")
        return {"values": np.zeros(3)}

    with pytest.raises(DataError, match="changed while it was read"):
        cached(file, parse, others=[other])


def test_a_file_that_may_not_be_read(file, monkeypatch):
    def forbidden(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(DataError, match=r"cannot read .*numbers\.txt: Permission denied"):
        cached(file, whole)


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


@pytest.mark.parametrize("damage", ["cut", "gone", "no index", "nonsense", "bit", "null"])
def test_damaged_arrays_are_made_again(file, folder, damage):
    cached(file, whole)
    array = next(path for path in files(folder) if path.name == "0.npy")
    if damage == "cut":
        array.write_bytes(array.read_bytes()[:-8])
    elif damage == "gone":
        array.unlink()
    elif damage == "bit":  # in a number, which looks like any other
        content = bytearray(array.read_bytes())
        content[-3] ^= 4
        array.write_bytes(content)
    elif damage == "null":
        array.with_name("contents.json").write_text("null")
    else:
        index = array.with_name("contents.json")
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
    assert len(list(folder.rglob("contents.json"))) == 1
    assert list(folder.rglob(".making*")) == []


def test_what_appears_while_we_look_is_not_removed(file, folder, monkeypatch):
    """Another process finishes between our look for the folder and for what is in it."""
    cached(file, whole)
    done = next(folder.rglob("contents.json")).parent
    monkeypatch.setattr(Path, "is_dir", lambda path: False)
    assert cache._opened(done) is None
    monkeypatch.undo()
    assert (done / "contents.json").is_file()


#: Imports the cache without the packages around it, which import torch and take seconds.
PROCESS = """
import os, signal, sys, time, types
from pathlib import Path
import numpy as np
for name in ("egnn_prune", "egnn_prune.data"):
    package = types.ModuleType(name)
    package.__path__ = [str(Path(sys.argv[5], *name.split(".")))]
    sys.modules[name] = package
from egnn_prune.data.cache import cached

def parse(path):
    yield {"values": np.arange(1 << 16)}
    Path(sys.argv[2]).touch()
    if sys.argv[3] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[3] == "full":
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    deadline = time.time() + 60
    while sys.argv[3] == "waits" and not Path(sys.argv[4]).exists() and time.time() < deadline:
        time.sleep(0.01)
    yield {"values": np.arange(1 << 16)}

print(int(cached(sys.argv[1], parse)["values"].sum()))
"""
TOTAL = str((1 << 16) * ((1 << 16) - 1))


def start(*arguments: object) -> subprocess.Popen[str]:
    root = Path(cache.__file__).parents[2]
    words = [str(word) for word in (*arguments, "unused")[:4]]
    command = [sys.executable, "-c", PROCESS, *words, str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_killed_process_leaves_nothing_that_counts(file, folder, tmp_path):
    killed = start(file, tmp_path / "began", "killed")
    killed.communicate(timeout=120)
    assert killed.returncode == -9 and (tmp_path / "began").exists()
    assert len(list(folder.rglob(".making-*"))) == 1
    assert not list(folder.rglob("contents.json"))
    printed, _ = start(file, tmp_path / "began", "works").communicate(timeout=120)
    assert printed.strip() == TOTAL
    assert len(list(folder.rglob("contents.json"))) == 1


def test_a_disk_that_fills_while_we_write(file, folder, tmp_path):
    printed, _ = start(file, tmp_path / "began", "full").communicate(timeout=120)
    assert printed.strip() == TOTAL
    assert files(folder) == []


def test_two_processes_at_once(file, folder, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    pair = start(file, first, "waits", second), start(file, second, "waits", first)
    assert [process.communicate(timeout=120)[0].strip() for process in pair] == [TOTAL, TOTAL]
    assert len(list(folder.rglob("contents.json"))) == 1
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
