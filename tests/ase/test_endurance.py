"""A simulation that is killed at any moment goes on, and ends as if nobody had killed it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from trained_models import ethanol, trained

from egnn_prune import save
from egnn_prune.ase import dynamics_state
from egnn_prune.ase.dynamics_state import FILE, DynamicsState
from egnn_prune.ase.simulation import simulate
from egnn_prune.ase.thermostat import Thermostat
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.system.ending import asked_to_end
from egnn_prune.system.growing_file import GrowingFile

STEPS = 24
FILES = ("trajectory.extxyz", "energies.csv")


class Killed(BaseException):
    """Nobody catches it."""


@pytest.fixture(autouse=True)
def no_figure(monkeypatch):
    monkeypatch.setattr("egnn_prune.report.run.dynamics.dynamics_plot", lambda *_: None)
    monkeypatch.setattr("egnn_prune.report.common.style.png_bytes", lambda _: b"")


@pytest.fixture
def places(tmp_path) -> tuple[Path, Path]:
    model, start = tmp_path / "model.safetensors", tmp_path / "start.xyz"
    save(trained("shallow", torch.float32), model, target="energy", unit="eV")
    ase.io.write(start, ethanol())
    return model, start


def run(places, out: Path, kind: str = "none", steps: int = STEPS) -> object:
    thermostat = None if kind == "none" else Thermostat(kind, 400.0, heat_to=500.0, seed=3)
    return simulate(*places, out, steps=steps, interval=3, kelvin=400.0, thermostat=thermostat)


def content(out: Path) -> list[str]:
    facts = json.loads((out / "dynamics.json").read_text())
    facts.pop("steps_per_second")
    return [json.dumps(facts), *((out / name).read_text() for name in FILES)]


def killed_at(monkeypatch, steps: list[int]) -> None:
    """Save after every step, and kill within the ones given, once each."""
    saved, left = DynamicsState.save_when_due, list(steps)

    def save_when_due(self, atoms, dynamics, seconds):
        if left and dynamics.nsteps == left[0]:
            left.pop(0)
            for file in self.files.values():  # half of what came behind the save
                os.write(file._handle, b"9\nLattice=")
            raise Killed
        if dynamics.nsteps % 4 == 0:  # frames come every 3 steps
            self.every = 0.0
        saved(self, atoms, dynamics, seconds)
        self.every = 1e9

    monkeypatch.setattr(DynamicsState, "save_when_due", save_when_due)


@pytest.mark.parametrize("kind", ["none", "langevin", "bussi"])
def test_a_killed_simulation_goes_on(places, tmp_path, monkeypatch, kind):
    run(places, tmp_path / "undisturbed", kind)
    killed_at(monkeypatch, [2, 7, 10, 23])
    for _ in range(4):
        with pytest.raises(Killed):
            run(places, tmp_path / "md", kind)
    run(places, tmp_path / "md", kind)
    assert content(tmp_path / "md") == content(tmp_path / "undisturbed")
    assert not (tmp_path / "md" / FILE).exists()


def test_a_file_from_before_pressures_were_held_goes_on(places, tmp_path, monkeypatch):
    """It has no cell, which was constant, and no setting of a barostat."""
    run(places, tmp_path / "undisturbed")
    killed_at(monkeypatch, [10])
    with pytest.raises(Killed):
        run(places, tmp_path / "md")
    with np.load(tmp_path / "md" / FILE) as found:
        arrays = {name: found[name] for name in ("positions", "momenta")}
        facts = json.loads(str(found["facts"]))
    assert facts["settings"].pop("barostat", 0) is None
    np.savez(tmp_path / "md" / FILE, facts=np.array(json.dumps(facts)), **arrays)
    run(places, tmp_path / "md")
    assert content(tmp_path / "md") == content(tmp_path / "undisturbed")


def test_a_signal_ends_it_after_the_step_and_it_goes_on(places, tmp_path, monkeypatch):
    run(places, tmp_path / "undisturbed")
    saved, sent = DynamicsState.save_when_due, []

    def terminated(self, atoms, dynamics, seconds):
        if dynamics.nsteps == 10 and not sent:
            sent.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
        saved(self, atoms, dynamics, seconds)

    monkeypatch.setattr(DynamicsState, "save_when_due", terminated)
    before = signal.getsignal(signal.SIGTERM)
    report = run(places, tmp_path / "md")
    assert report.stopped == "interrupted" and report.picoseconds == pytest.approx(11 * 0.5e-3)
    assert len(ase.io.read(tmp_path / "md" / FILES[0], ":")) == 4
    assert signal.getsignal(signal.SIGTERM) is before
    assert run(places, tmp_path / "md").stopped is None
    assert content(tmp_path / "md") == content(tmp_path / "undisturbed")


def test_a_second_signal_is_what_it_always_was():
    # what a script starts in the background ignores the signal, and would go on ignoring it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with asked_to_end() as asked, pytest.raises(KeyboardInterrupt):
            assert not asked()
            os.kill(os.getpid(), signal.SIGINT)
            assert asked()
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_unfinished_simulation_is_not_overwritten(places, tmp_path, monkeypatch):
    killed_at(monkeypatch, [6])
    with pytest.raises(Killed):
        run(places, tmp_path / "md")
    before = (tmp_path / "md" / FILES[0]).read_bytes()
    with pytest.raises(ConfigError, match=r"with other settings \(steps 24\); repeat its command"):
        run(places, tmp_path / "md", steps=30)
    (tmp_path / "md" / FILES[0]).write_text("cut")
    with pytest.raises(InputError, match="and is 3 now"):
        run(places, tmp_path / "md")
    (tmp_path / "md" / FILES[0]).write_bytes(before)
    for bad in (b"", b"PK", (tmp_path / "md" / FILE).read_bytes()[:-40]):
        (tmp_path / "md" / FILE).write_bytes(bad)
        with pytest.raises(InputError, match=r"is damaged .*; delete it to begin anew"):
            run(places, tmp_path / "md")
    assert (tmp_path / "md" / FILES[0]).read_bytes() == before
    (tmp_path / "md" / FILE).unlink()
    assert run(places, tmp_path / "md", steps=30).stopped is None


def test_a_piece_that_does_not_fit_is_taken_back(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write = os.write

    def full(handle, data):
        if len(data) > 3:
            return write(handle, data[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match=r"cannot write .*file: No space left on device"):
        with GrowingFile(path) as file:
            file.write("whole\n")
            monkeypatch.setattr(os, "write", full)
            file.write("half\n")
    monkeypatch.undo()
    assert path.read_text() == "whole\n"
    with GrowingFile(path, 2) as file:
        file.write("y\n")
    assert path.read_text() == "why\n"
    with pytest.raises(InputError, match="cannot write"):
        GrowingFile(path / "below")


def test_a_full_disk_loses_nothing(places, tmp_path, monkeypatch):
    run(places, tmp_path / "undisturbed")
    monkeypatch.setattr(dynamics_state, "EVERY_S", 0.0)
    write = os.write

    def full(handle, data):
        left = 8000 - os.fstat(handle).st_size
        if left <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data[:left])

    with monkeypatch.context() as limited, pytest.raises(InputError, match="No space left"):
        limited.setattr(os, "write", full)
        run(places, tmp_path / "md")
    frames = ase.io.read(tmp_path / "md" / FILES[0], ":")
    assert 3 < len(frames) < 9 and all(len(frame) == 9 for frame in frames)
    assert len(dynamics_state.rows_of(tmp_path / "md" / FILES[1])) == len(frames)
    run(places, tmp_path / "md")
    assert content(tmp_path / "md") == content(tmp_path / "undisturbed")


@pytest.fixture
def command(places):
    """``command(out, *more, before="")``: the command in a process of its own."""
    model, start = places

    def call(out: Path, *more: object, before: str = "pass") -> subprocess.Popen:
        code = f"import sys; {before}; from egnn_prune.cli.md import main; main()"
        words = [model, start, "--out", out, "--interval", 2, *more]
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return call


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits of files are POSIX")
def test_a_full_disk_stops_with_a_sentence_and_leaves_whole_frames(command, tmp_path):
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))"
    process = command(tmp_path / "md", "--steps", 4000, before=limit)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2 and "Traceback" not in err
    assert "trajectory.extxyz: File too large; free some space" in err
    frames = ase.io.read(tmp_path / "md" / "trajectory.extxyz", ":")
    assert len(frames) > 5 and all(len(frame) == 9 for frame in frames)
    assert dynamics_state.rows_of(tmp_path / "md" / "energies.csv")[-1]["time_fs"] == (
        pytest.approx(frames[-1].info["time_fs"])
    )


@pytest.mark.slow
def test_killed_again_and_again_by_the_system(command, tmp_path):
    """Saved about every step, killed at any moment: the end is that of an undisturbed run."""
    how = ("--steps", 300, "--thermostat", "langevin")
    often = "import egnn_prune.ase.dynamics_state as d; d.EVERY_S = 0.0"
    whole = command(tmp_path / "undisturbed", *how)
    said = whole.communicate(timeout=300)
    assert whole.returncode == 0, said
    state, kills = tmp_path / "md" / FILE, 0
    for attempt in range(4):
        before = state.stat().st_mtime_ns if state.exists() else None
        process = command(tmp_path / "md", *how, before=often)
        while process.poll() is None and before == (
            state.stat().st_mtime_ns if state.exists() else None
        ):
            time.sleep(0.01)
        time.sleep(0.07 * attempt)  # and some steps more
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    process = command(tmp_path / "md", *how, before=often)
    said = process.communicate(timeout=300)
    assert kills > 1 and process.returncode == 0, said
    found, wanted = (
        dynamics_state.rows_of(tmp_path / name / FILES[1]) for name in ("md", "undisturbed")
    )
    assert len(found) == len(wanted) == 151
    for row, other in zip(found, wanted, strict=True):  # memory lies elsewhere in each process
        assert row == pytest.approx(other, rel=1e-7)
    frames = ase.io.read(tmp_path / "md" / FILES[0], ":")
    assert [frame.info["time_fs"] for frame in frames] == [row["time_fs"] for row in found]
