"""Hydra's own options beside our settings, in either order, and what a sweep must refuse."""

from __future__ import annotations

import sys

import pytest

from egnn_prune.cli.hydra_app import command
from egnn_prune.configs.settings import Settings

PURPOSE = "a test"


@pytest.fixture
def script(monkeypatch, capsys, tmp_path):
    """``script(*arguments) -> (exit code, seeds that the job saw, stdout, stderr)``."""

    def call(*arguments):
        seen = []
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["train_pruned_egnn.py", *arguments])
        with pytest.raises(SystemExit) as stop:
            command(lambda settings: seen.append(settings.seed), Settings, "train", PURPOSE)
        out, err = capsys.readouterr()
        assert {p.name for p in tmp_path.iterdir()} <= {"runs"}, "Hydra left something behind"
        return stop.value.code, seen, out, err

    return call


@pytest.mark.parametrize(
    "arguments", [("model.hidden=8", "--cfg", "job"), ("--cfg", "job", "model.hidden=8")]
)
def test_config_is_shown_and_not_run(script, arguments):
    code, seen, out, _ = script(*arguments)
    assert code == 0 and not seen and "hidden: 8" in out


@pytest.mark.parametrize("arguments", [("-m", "seed=3,4"), ("seed=3,4", "-m")])
def test_sweep(script, arguments):
    assert script(*arguments)[:2] == (0, [3, 4])


def test_sweep_over_an_unknown_setting(script):
    code, seen, _, err = script("-m", "seed=3,4", "foo=1")
    assert code == 2 and not seen
    assert err.strip() == "error: there is no setting 'foo'; --help lists all settings"


def test_sweep_with_one_out(script):
    code, seen, _, err = script("-m", "seed=3,4", "out=here")
    assert code == 2 and not seen and "cannot share one out" in err


def test_help_shows_the_settings_of_the_chosen_source(script):
    code, seen, out, _ = script("--help")
    assert code == 0 and not seen
    assert "Choices: data=NAME, one of centroid, extxyz, extxyz_forces, md17, nbody, npz," in out
    assert "  model.network=egnn " in out and "data=extxyz_forces" not in out
    code, seen, out, _ = script("data=extxyz_forces", "training.lr=0.5", "--help")
    assert code == 0 and not seen
    lines = {line.split()[0]: line for line in out.splitlines() if line.startswith("  ")}
    assert lines["model.network=irreps"].endswith("(default: egnn)")
    assert lines["training.force_weight=10.0"].endswith("(default: 0.0)")
    assert {"data.name=extxyz", "training.lr=0.5", "selection.replay=0.5"} <= set(lines)
    assert "Settings with data=extxyz_forces training.lr=0.5:" in out


@pytest.mark.parametrize("arguments", [("data=forces",), ("--help", "data=forces")])
def test_an_unknown_source_lists_all(script, arguments):
    code, seen, _, err = script(*arguments)
    assert code == 2 and not seen
    assert err.strip() == (
        "error: data must be one of centroid, extxyz, extxyz_forces, md17, nbody, npz, qm9, rmd17, "
        "xtb, not 'forces'"
    )


def test_help_with_a_setting_that_there_is_not(script):
    code, _, _, err = script("--help", "modle.hidden=3")
    assert code == 2 and err.startswith("error: there is no setting 'modle")
