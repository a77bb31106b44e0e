"""Folders that cannot be the place of a run are refused in one sentence."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from egnn_prune.cli.main import main
from egnn_prune.configs.settings import Settings
from egnn_prune.errors import InputError
from egnn_prune.runs.folder_lock import alone_in
from egnn_prune.runs.run_folder import RunFolder

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def refused(work):
    with pytest.raises(InputError) as caught:
        work()
    text = str(caught.value)
    assert "\n" not in text and len(text) < 400
    return text


def both(out):
    """What a run says of the folder, and what a study does."""

    def study():
        with alone_in(Path(out)):
            pass

    return [refused(lambda: RunFolder(Settings(out=str(out)))), refused(study)]


def test_names(tmp_path):
    for text in both(tmp_path / ("x" * 300)) + both(tmp_path / ("x/" * 3000)):
        assert "File name too long; choose another" in text
    for text in both(os.fsdecode(bytes(tmp_path) + b"/caf\xe9")):
        assert "caf\\udce9' is no valid text (UTF-8); choose another" in text
    assert "\\x00" in both(f"{tmp_path}/a\0b")[0]
    assert "home of nobody" in both("~nobody-of-this-name/run")[0]
    assert list(tmp_path.iterdir()) == []


def test_links_and_files(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_text("mine")
    for text in both(tmp_path / "link"):
        assert text == f"out={tmp_path / 'link'} is a link to nowhere; choose another"
    assert "a link to nowhere" in both(tmp_path / "loop")[0]
    assert "a file, not a folder" in both(tmp_path / "file")[1]
    for text in both(tmp_path / "file" / "below") + both(tmp_path / "link" / "below"):
        assert "choose another" in text
    assert (tmp_path / "file").read_text() == "mine" and not (tmp_path / "nowhere").exists()


def test_a_link_to_a_folder_is_a_folder(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    RunFolder(Settings(out=str(tmp_path / "link")))
    assert (tmp_path / "there" / "config.yaml").exists()


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_a_lock_file_that_is_none_is_left_alone(tmp_path, kind):
    (tmp_path / "precious").write_text("mine")
    place = tmp_path / "run" / "run.lock"
    place.parent.mkdir()
    if kind == "link":  # filelock would empty what it leads to
        place.symlink_to(tmp_path / "precious")
    else:
        place.mkdir() if kind == "folder" else os.mkfifo(place)
    for text in both(place.parent):
        assert "run.lock is no ordinary file; delete it" in text
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize("call", ["mkdir", "open"])
def test_places_that_cannot_be_written(tmp_path, monkeypatch, number, call):
    """Root may write everywhere, so what the system would say is said by the test."""
    original = getattr(os, call)

    def refuse(path, *rest, **named):
        if str(path).startswith(str(tmp_path / "run")) and (
            call == "mkdir" or rest[0] & os.O_CREAT
        ):
            raise OSError(number, os.strerror(number), str(path))
        return original(path, *rest, **named)

    monkeypatch.setattr(os, call, refuse)
    for text in both(tmp_path / "run"):
        assert "choose another" in text or "free some space" in text
        assert os.strerror(number) in text or "writable" in text


@pytest.mark.skipif(AS_ROOT, reason="permissions do not bind root")
def test_folders_without_permissions(tmp_path):
    for name, mode in (("closed", 0o000), ("read-only", 0o555)):
        (tmp_path / name).mkdir(mode=mode)
    for out in ("closed", "closed/below", "read-only", "read-only/below"):
        for text in both(tmp_path / out):
            assert "Permission denied" in text
    for name in ("closed", "read-only"):
        (tmp_path / name).chmod(0o755)


@pytest.mark.parametrize("command", ["status", "clean", "report"])
def test_commands_with_strange_folders(tmp_path, monkeypatch, capsys, command):
    for folder in ("x" * 300, os.fsdecode(b"caf\xe9"), "~nobody-of-this-name", ""):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["egnn-prune", command, folder])
        if not folder and command != "report":  # the folder where we are
            main()
            continue
        with pytest.raises(SystemExit) as end:
            main()
        error = capsys.readouterr().err
        assert end.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1


def test_names_that_are_no_text_can_be_listed(tmp_path, monkeypatch, capsys):
    stages = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9\n\x1b[31m")) / "stages"
    stages.mkdir(parents=True)
    (stages / "run.json").write_text("{}")
    for command in ("status", "clean"):
        monkeypatch.setattr(sys, "argv", ["egnn-prune", command, str(tmp_path)])
        main()
        said = capsys.readouterr().out
        assert "caf\\udce9\\n\\x1b[31m" in said and "\x1b" not in said
        said.encode()
