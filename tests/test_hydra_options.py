"""Hydra's own options beside our settings, in either order, and what a sweep must refuse."""

from __future__ import annotations

import sys

import pytest

from egnn_prune.command_line import command
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
