"""``egnn-prune report``: the page of a finished run, drawn again."""

from __future__ import annotations

import json
import sys

import image_rows
import pytest

from egnn_prune.cli import report
from egnn_prune.studies.sanity_checks import ARMS


@pytest.fixture
def call(monkeypatch, capsys):
    def run(folder) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["egnn-prune report", str(folder)])
        try:
            report.main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        return code, *capsys.readouterr()

    return run


def test_a_main_job(run_folder, call):
    code, out, _ = call(run_folder)
    assert code == 0 and "Test MAE" in out
    assert out.endswith(f"Report: {run_folder / 'report.html'}\n")
    assert (run_folder / "report.html").exists() and (run_folder / "parity.png").exists()


def test_an_image_experiment(tmp_path, call):
    (tmp_path / "config.yaml").write_text("kind: magnitude\n")
    (tmp_path / "metrics.json").write_text(json.dumps(image_rows.magnitude(2)))
    code, out, _ = call(tmp_path)
    assert code == 0 and (tmp_path / "report.html").exists() and "Report: " in out


@pytest.mark.parametrize("content", ["[1", "[]", "{}", '{"experiment": "nonsense"}'])
def test_a_damaged_run_is_refused_in_one_sentence(content, tmp_path, call):
    (tmp_path / "metrics.json").write_text(content)
    code, out, err = call(tmp_path)
    assert code == 2 and not out and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    "content", ["[1", '{"kind": "audit"}', '{"kind": "audit", "schema_version": 1}']
)
def test_a_damaged_audit_is_refused_in_one_sentence(content, tmp_path, call):
    (tmp_path / "audit.json").write_text(content)
    code, out, err = call(tmp_path)
    assert code == 2 and not out and err.startswith("error: ") and err.count("\n") == 1
    assert not (tmp_path / "audit.html").exists()


def test_a_study(tmp_path, call):
    rows = [
        {"seed": s, "arm": arm, "unit": "eV", "test_mae": 1.0 + s}
        for s in (0, 1)
        for arm in ("dense", *ARMS)
    ]
    content = {
        "kind": "study",
        "schema_version": 1,
        "study": "egnn_prune.studies.sanity_checks",
        "settings": {"seeds": [0, 1]},
        "rows": rows,
    }
    (tmp_path / "study.json").write_text(json.dumps(content))
    code, out, err = call(tmp_path)
    assert code == 0, err
    assert "Written: sanity.csv" in out and out.endswith(f"Report: {tmp_path / 'report.html'}\n")
    assert "14 results over seeds 0, 1</h1>" in (tmp_path / "report.html").read_text()


def test_a_study_of_an_earlier_version_says_what_to_do(tmp_path, call):
    (tmp_path / "sanity.csv").write_text("seed\n0\n")
    (tmp_path / "sanity.txt").write_text("a table\n")
    code, out, err = call(tmp_path)
    assert code == 2 and not out and "no study.json" in err and "own command again" in err
