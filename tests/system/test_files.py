"""Files are written whole or not at all, and nothing that is no file is replaced."""

from __future__ import annotations

import os

import pytest

from egnn_prune.errors import InputError
from egnn_prune.system.files import atomic, write_json


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
