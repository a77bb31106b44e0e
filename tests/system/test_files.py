"""Files are written whole or not at all, and nothing that is no file is replaced."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys

import numpy as np
import pytest
from filelock import FileLock

from egnn_prune.errors import InputError
from egnn_prune.system.array_reading import read_arrays
from egnn_prune.system.files import (
    atomic,
    is_half_written,
    is_locked,
    read_json,
    remove_unfinished,
    unfinished_below,
    write_arrays,
    write_json,
)


def test_what_is_no_ordinary_file_stays_what_it_is(tmp_path):
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for path in (pipe, folder):
        with pytest.raises(InputError, match="is no ordinary file; choose another name"):
            write_json(path, {})
    assert pipe.is_fifo() and folder.is_dir()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "pipe"]


def test_a_dangling_link_becomes_a_file(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    write_json(link, {})
    assert link.is_file() and not link.is_symlink()


def test_what_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == '{\n  "a": 1\n}\n' and list(tmp_path.iterdir()) == [path]


def test_content_and_name_are_on_the_disk_in_this_order(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)

        def spy(*arguments, name=name, original=original):
            kind = ""
            if name == "fsync":
                kind = "folder" if stat.S_ISDIR(os.fstat(arguments[0]).st_mode) else "file"
            done.append((name, kind))
            return original(*arguments)

        monkeypatch.setattr(f"egnn_prune.system.files.os.{name}", spy)
    write_json(tmp_path / "a.json", {})
    assert done == [("fsync", "file"), ("replace", ""), ("fsync", "folder")]


KILLED = """
import os, signal, sys
from pathlib import Path
from egnn_prune.system.files import write_json
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_json(Path(sys.argv[1]), {"new": 1})
"""


def test_killed_before_the_renaming_the_old_file_stays(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    code = subprocess.run([sys.executable, "-c", KILLED, path], check=False).returncode
    assert code == -signal.SIGKILL and read_json(path) == {"old": 1}
    (left,) = unfinished_below(tmp_path)
    assert "new" in left.read_text()
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_being_written_is_not_cleaned_away(tmp_path):
    (tmp_path / ".x.unfinished").mkdir()  # nothing that we made
    (tmp_path / ".y.unfinished").symlink_to(tmp_path)
    with atomic(tmp_path / "a.txt") as temporary:
        remove_unfinished(tmp_path)
        assert is_half_written(temporary) and temporary.exists()
        temporary.write_text("whole")
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".x.unfinished", ".y.unfinished", "a.txt"]


def test_a_lock_is_seen_and_what_cannot_be_known_counts_as_held(tmp_path):
    place = tmp_path / "run.lock"
    with pytest.raises(FileNotFoundError):
        is_locked(place)
    place.touch()
    assert not is_locked(place)
    with FileLock(place):
        assert is_locked(place)
    (tmp_path / "link").symlink_to(place)
    assert is_locked(tmp_path / "link")


BAD_JSON = {
    "empty": b"",
    "cut": b'{"a": 1',
    "binary": bytes(range(256)),
    "list": b"[1]",
    "null": b"null",
    "deep": b"[" * 200_000,
    "deep objects": b'{"a":' * 200_000,
    "long number": b"1" * 5000,
}


@pytest.mark.parametrize("content", BAD_JSON.values(), ids=BAD_JSON.keys())
def test_bad_json_is_one_sentence(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json is missing or damaged: .") as caught:
        read_json(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_gigabyte_of_brackets_is_not_read(tmp_path):
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.truncate(10**9)  # takes no room
    with pytest.raises(InputError, match="it has 1,000,000,000 bytes, and files of its kind"):
        read_json(path)


def test_what_is_no_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # to open it would wait forever
    for name, why in (("pipe", "no ordinary file"), ("none", "No such file"), ("x" * 300, "long")):
        with pytest.raises(InputError, match=why):
            read_json(tmp_path / name)


def test_arrays_come_back_and_damaged_ones_are_one_sentence(tmp_path):
    path = tmp_path / "a.npz"
    write_arrays(path, a=np.arange(5), name=np.array(["x"]))
    found = read_arrays(path)
    assert found["a"].tolist() == [0, 1, 2, 3, 4] and found["name"].tolist() == ["x"]
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(np.arange(5).tobytes()) + 9] ^= 1
    for bad in (b"", whole[:-1], whole[:100], whole[50:], bytes(flipped), b"[" * 99):
        path.write_bytes(bad)
        with pytest.raises(InputError, match=r"a\.npz is not a readable") as caught:
            read_arrays(path)
        assert "\n" not in str(caught.value)


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
import torch
from safetensors.torch import save_file
from egnn_prune.errors import InputError
from egnn_prune.system.files import atomic, write_arrays, write_json
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
path, zeros = Path(sys.argv[1]) / "file", torch.zeros(10_000)
def write(save):
    with atomic(path) as temporary:
        save(temporary)
for work in (
    lambda: write_json(path, {"a": "x" * 10_000}),
    lambda: write_arrays(path, a=zeros.numpy()),
    lambda: write(lambda temporary: save_file({"a": zeros}, temporary)),
    lambda: write(lambda temporary: torch.save({"a": zeros}, temporary)),
):
    try:
        work()
    except InputError as error:
        print(str(error).replace(str(path), "FILE"))
"""


def test_no_room_for_a_file_of_any_kind(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    command = [sys.executable, "-W", "ignore", "-c", LIMITED, tmp_path]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    full = "cannot write FILE: File too large; free some space"
    other = "cannot write FILE: the file could not be written whole; free some space"
    assert found == [full, full, full, other]
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_names_of_every_length(tmp_path):
    write_json(tmp_path / ("x" * 250), {})  # the temporary name is not longer
    for name in ("x" * 300, "x/" * 3000):
        with pytest.raises(InputError, match="File name too long; choose another folder"):
            write_json(tmp_path / name, {})
