"""``--config FILE``: what a file may hold, what comes before it, and what is refused."""

from __future__ import annotations

import sys

import pytest
from omegaconf import OmegaConf

from egnn_prune.cli import jobs
from egnn_prune.cli.config_file import overrides_of, set_by, split_config
from egnn_prune.cli.jobs import Job
from egnn_prune.configs.over_seeds import ComparisonSettings
from egnn_prune.configs.settings import Settings
from egnn_prune.vision.settings import VisionSettings


@pytest.fixture
def settings(monkeypatch, capsys, tmp_path):
    """``settings(text, *arguments, job)``: what the job sees, or its sentence about the file."""

    def read(text: str | bytes, *arguments: str, job: Job = jobs.TRAIN):
        path = tmp_path / "run.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        seen = []
        monkeypatch.setattr(Job, "_run", lambda _, found: seen.append(found))
        monkeypatch.setattr(sys, "argv", ["egnn-prune", "--config", str(path), *arguments])
        with pytest.raises(SystemExit) as caught:
            job()
        err = capsys.readouterr().err
        assert (caught.value.code == 0) == bool(seen)
        return (seen[0] if len(seen) == 1 else seen) if seen else err.replace(str(path), "run.yaml")

    return read


def test_nested_and_dotted_names(settings):
    found = settings("seed: 3\nmodel:\n  hidden: 8\n  dropout: 1e-3\nmodel.layers: 2\nout: null\n")
    assert (found.seed, found.model.hidden, found.model.layers) == (3, 8, 2)
    assert found.model.dropout == 1e-3 and found.out is None
    assert found.model.attention == Settings().model.attention  # the rest is as ever


def test_a_word_of_earlier_runs(settings):
    assert settings("training.best_by: val_mae\n").training.monitor == "val_mae"


def test_the_command_line_comes_first(settings):
    found = settings("seed: 3\nmodel: {hidden: 8}\n", "model.hidden=16")
    assert (found.seed, found.model.hidden) == (3, 16)


def test_a_choice_in_the_file_brings_its_settings(settings):
    found = settings("data: rmd17\nmodel.copies: 5\n")
    assert (found.data.name, found.model.network, found.model.copies) == ("rmd17", "irreps", 5)


def test_a_choice_on_the_command_line_comes_before_what_the_file_says(settings):
    text = "data: {name: qm9, limit: 5}\nmodel: {network: egnn, hidden: 8}\nseed: 4\n"
    found = settings(text, "data=rmd17")
    assert found.data.name == "rmd17" and found.data.limit is None
    assert found.model.network == "irreps" and found.model.hidden == 32 and found.seed == 4
    assert settings("data: qm9\n", "data=nbody").data.name == "nbody"


@pytest.mark.parametrize(
    ("job", "schema"),
    [(jobs.TRAIN, Settings), (jobs.COMPARE, ComparisonSettings), (jobs.VISION, VisionSettings)],
)
def test_the_configuration_of_a_run_can_be_used_again(settings, job, schema):
    """As runs/run_folder.py writes it; with what YAML and Hydra have to quote."""
    wanted = schema()
    wanted.seeds = [5, 6] if hasattr(wanted, "seeds") else None
    wanted.name = 'it\'s "a", name: {of} [a] \\run\\ = 1e3, ü'
    wanted.data.path = "null"
    wanted.training.lr = 1.5e-7
    if schema is Settings:
        del wanted.seeds
    found = settings(OmegaConf.to_yaml(OmegaConf.structured(wanted)), job=job)
    assert found == wanted


def test_a_sweep_over_a_file(settings):
    found = settings("model: {hidden: 8}\nreuse: []\n", "-m", "seed=3,4")
    assert [(f.seed, f.model.hidden) for f in found] == [(3, 8), (4, 8)]


def test_help_shows_the_values_of_the_file(settings, capsys, tmp_path, monkeypatch):
    path = tmp_path / "run.yaml"
    path.write_text("model: {hidden: 8}\n")
    monkeypatch.setattr(sys, "argv", ["egnn-prune train", "--help", f"--config={path}", "seed=2"])
    with pytest.raises(SystemExit):
        jobs.TRAIN()
    out = capsys.readouterr().out
    assert f"Settings with --config {path} seed=2:" in out and "  model.hidden=8 " in out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: {hiden: 8}", "there is no setting 'model.hiden'; --help lists all settings (did"),
        ("sed: 8", "there is no setting 'sed'; --help lists all settings (did you mean seed?)"),
        ("model: 8", "there is no setting 'model'"),
        ("- 1", "run.yaml holds no settings; they are written SETTING: VALUE"),
        ("", ""),
        ("seed: 1\nseed: 2", "run.yaml is no YAML file of settings: "),
        ("seed: [", "run.yaml is no YAML file of settings: "),
        ("[" * 100, "run.yaml is too long or nested too deeply for a file of settings"),
        ("#" * 2_000_000, "run.yaml is too long or nested too deeply for a file of settings"),
        (b"\xff\xfe\x00", "run.yaml is no YAML file of settings: "),
        (
            "name: !!python/object/apply:os.system ['true']",
            "could not determine a constructor",
        ),
        ("name: ${oc.env:HOME}", "name in run.yaml must be a number, text or a list, not '${oc."),
        ("seed: many", "seed"),
        ("data: nonsense", "data must be one of centroid, "),
    ],
)
def test_what_a_file_cannot_hold(settings, text, said):
    found = settings(text)
    if not text:
        assert found == Settings()  # an empty file says nothing
    else:
        assert found.startswith("error: ") and found.count("\n") == 1 and said in found


def test_a_file_that_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["egnn-prune", "--config", str(tmp_path / "no.yaml")])
    with pytest.raises(SystemExit) as caught:
        jobs.TRAIN()
    assert caught.value.code == 2 and "cannot read" in capsys.readouterr().err


def test_parts():
    assert split_config(["a=1", "--config", "x", "-m"])[1] == ["a=1", "-m"]
    assert set_by("data", "xtb") == {"data.name"} and "model.copies" in set_by("data", "rmd17")
    assert set_by("data", "nonsense") == set()


def test_what_hydra_reads(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("selection: {band: [0.5, 1]}\ntraining: {scratch: false}\nname: it's\n")
    assert overrides_of(path, Settings, ("data",), []) == [
        "selection.band=[0.5,1]",
        "training.scratch=false",
        r"name='it\'s'",
    ]
