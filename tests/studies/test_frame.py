"""What all studies share: refusals before any work, rows over seeds, files and what is said."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from egnn_prune.cli.report import studies
from egnn_prune.configs.declaration import setting
from egnn_prune.configs.over_seeds import SanitySettings
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.runs.result_store import Row, Rows
from egnn_prune.studies.frame import Results, Study, redraw, study_folder, study_of
from egnn_prune.studies.sanity_checks import run_checks


@dataclass
class Settings:
    out: str | None = setting("runs/tiny", "where to")
    seeds: list[int] = setting([2, 1], "of what")  # noqa: RUF009
    threads: int | None = setting(None, "of each")
    least: int = setting(0, "the least seed")


def check(settings: Settings) -> None:
    if settings.least < 0:
        raise ConfigError("least counts from 0")


def run_seed(settings: Settings, seed: int) -> list[Row]:
    if seed < settings.least:
        raise ConfigError(f"seed {seed} is too small")
    return [{"seed": seed, "threads": torch.get_num_threads()}]


def results(_: Settings, rows: list[Row]) -> Results:
    figure = Figure() if len(rows) > 1 else None
    return Results(rows, f"{len(rows)} rows", figure, ["threads"])


study = Study("tiny", run_seed, results, check)


def test_rows_tables_and_figures_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    try:
        out = study(Settings(out=None, threads=1))
    finally:
        torch.set_num_threads(before)
    assert out == Path("runs/tiny") == study_folder(Settings())
    assert (out / "tiny.csv").read_text() == "threads,seed\n1,2\n1,1\n"
    assert (out / "tiny.txt").read_text() == "2 rows\n"
    assert (out / "tiny.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert said == "2 rows\nWritten: tiny.csv, tiny.txt, tiny.png, report.html in runs/tiny\n"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "2 results over seeds 2, 1</h1>" in page and "least: 0" in page
    assert page.count("<img") == 1
    assert study(Settings(str(tmp_path / "one"), seeds=[3])) == tmp_path / "one"
    assert not (tmp_path / "one" / "tiny.png").exists()


KNOWN = {__name__: Settings}


def test_a_study_is_drawn_again_of_what_it_stored(tmp_path, monkeypatch, capsys):
    out = study(Settings(str(tmp_path / "out"), seeds=[4, 3]))
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.suffix != ".lock"}
    assert "study.json" in before
    for name in ("tiny.csv", "tiny.txt", "tiny.png", "report.html"):
        (out / name).unlink()
    monkeypatch.setattr("egnn_prune.studies.frame.over_seeds", None)  # nothing is found out anew
    capsys.readouterr()
    redraw(out, KNOWN)
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.suffix != ".lock"} == before
    assert capsys.readouterr().out.startswith("2 rows\nWritten: tiny.csv")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"kind": "audit"}, "is of another kind or version"),
        ({"schema_version": 2}, "is of another kind or version"),
        ({"study": "os"}, "is of another kind or version"),
        ({"study": ["os"]}, "is of another kind or version"),
        ({"settings": {"nonsense": 3}}, "is damaged or of another version .*nonsense"),
        ({"settings": None}, "is damaged or of another version"),
        ({"rows": 3}, "is damaged or of another version"),
    ],
)
def test_a_damaged_study_is_refused_in_one_sentence(tmp_path, change, complaint):
    content = {"kind": "study", "schema_version": 1, "study": __name__, "settings": {}, "rows": []}
    (tmp_path / "study.json").write_text(json.dumps(content | change))
    with pytest.raises(InputError, match=complaint) as error:
        redraw(tmp_path, KNOWN)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "report.html").exists()


def test_the_command_knows_every_study():
    """By the module that its seeds are worked on in, which ``study.json`` names."""
    known = studies()
    assert len(known) > 9
    for module, schema in known.items():
        found = study_of(module)
        assert found.run_seed.__module__ == module and {"out", "seeds"} <= set(vars(schema()))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"seeds": []}, "seeds needs one or more different values"),
        ({"seeds": [1, 1]}, "seeds needs one or more different values"),
        ({"least": -1}, "least counts from 0"),
        ({"least": 2}, "seed 1 is too small"),  # found while it ran
    ],
)
def test_a_refused_study_leaves_nothing(tmp_path, changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        study(Settings(str(tmp_path / "out"), **changes))
    assert not (tmp_path / "out").exists()


def test_every_seed_must_be_one_that_the_main_job_can_have(tmp_path):
    with pytest.raises(ConfigError, match="seeds must lie between 0 and 4,000,000"):
        run_checks(SanitySettings(out=str(tmp_path / "out"), seeds=[0, -1]))


def test_only_what_is_missing_is_found_out(tmp_path):
    asked = []

    def find_out(arm: str) -> Row:
        asked.append(arm)
        return {"error": len(arm)}

    rows = Rows(tmp_path / "rows.json", {}, seed=4)
    rows.fill([{"arm": "a"}], find_out)
    again = Rows(tmp_path / "rows.json", {}, seed=4)
    found = again.fill([{"arm": "bb"}, {"arm": "a"}], find_out)
    assert asked == ["a", "bb"]
    assert [list(row.items()) for row in found] == [
        [("seed", 4), ("arm", "bb"), ("error", 2)],
        [("seed", 4), ("arm", "a"), ("error", 1)],
    ]
