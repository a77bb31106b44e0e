"""``make`` sets up its own environment, and leaves that of another checkout alone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout whose environment's python writes down what it is asked for."""
    folder = tmp_path / "mine"
    (folder / "env" / "bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    for name in ("python", "mkdocs"):
        program = folder / "env" / "bin" / name
        program.write_text('#!/bin/sh\necho "$@" >> asked\n')
        program.chmod(0o755)
    return folder


def make(folder: Path, target: str) -> tuple[int, str, str]:
    """Exit status, what was said, and what the environment's programs were asked for."""
    done = subprocess.run(
        ["make", target, "VENV=env"], cwd=folder, capture_output=True, text=True, timeout=60
    )
    asked = folder / "asked"
    return done.returncode, done.stderr, asked.read_text() if asked.exists() else ""


def installed_from(folder: Path, source: Path) -> None:
    packages = folder / "env" / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "_egnn_prune.pth").write_text(str(source))


@pytest.mark.parametrize("ready", [False, True])
def test_the_environment_of_another_checkout_is_left_alone(checkout, tmp_path, ready):
    (tmp_path / "theirs").mkdir()
    installed_from(checkout, tmp_path / "theirs")
    if ready:  # newer than pyproject.toml, so that only the documentation is to be installed
        (checkout / "env" / ".installed").touch()
    status, said, asked = make(checkout, "docs")
    assert status and f"env is the environment of the checkout {tmp_path / 'theirs'}" in said
    assert "install" not in asked


@pytest.mark.parametrize("source", [None, "mine", "moved away"])
def test_its_own_is_set_up(checkout, tmp_path, source):
    if source:
        installed_from(checkout, tmp_path / source)
    status, said, asked = make(checkout, "docs")
    assert status == 0, said
    assert "-e .[vision,test,dev]" in asked and "-e .[docs]" in asked and "build --strict" in asked


@pytest.mark.parametrize("word", ["pruning.sparsity=0.75", "seed=3"])
def test_settings_outside_args_are_not_dropped_silently(checkout, word):
    done = subprocess.run(
        ["make", "train", "VENV=env", word], cwd=checkout, capture_output=True, text=True
    )
    assert done.returncode and f'make train ARGS="{word}"' in done.stderr
    assert not (checkout / "asked").exists()
