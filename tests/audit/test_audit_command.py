"""``egnn-prune audit``: our own files, names of strangers, and the page."""

from __future__ import annotations

import copy
import json
import sys

import ase.io
import pytest
from hand_made import HandMade, labelled
from trained_models import ethanol, trained

from egnn_prune import save
from egnn_prune.audit import audit, calculator_of
from egnn_prune.cli.main import main
from egnn_prune.errors import InputError
from egnn_prune.report.audit import write_report
from egnn_prune.report.audit.page import render

EVIL = "<img src=x onerror=alert(1)>$\\frac{1}{$"


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["egnn-prune", "audit", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        return code, *capsys.readouterr()

    return run


def test_a_model_against_its_copy_in_other_precision(tmp_path, call, monkeypatch):
    monkeypatch.setattr("egnn_prune.audit.auditing.PROBES", 1)
    model = trained()
    about = {"target": "energy", "unit": "eV", "units": {"pos": "Angstrom"}}
    (tmp_path / "run").mkdir()
    save(model, tmp_path / "run" / "pruned.safetensors", **about)
    save(copy.deepcopy(model).float(), tmp_path / "single.safetensors", **about)
    ase.io.write(tmp_path / "some.xyz", [ethanol(0.05, seed) for seed in range(6)])
    code, out, err = call(
        *(tmp_path / "run", tmp_path / "single.safetensors", tmp_path / "some.xyz"),
        *("--out", tmp_path / "out", "--md-steps", 40, "--sizes", "9,12", "--device", "cpu"),
    )
    assert code == 0, err
    assert "single.safetensors" in out and "There are no labels" in out
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    by_name = {row["name"]: row["value"] for row in found["differences"]}
    assert 0 < by_name["force, RMS of B less A"] < 0.1
    assert all(row["kept"] for row in found["symmetry"])
    assert all(row["gradient"] and row["smooth"] for row in found["smoothness"])
    assert [row["atoms"] for row in found["speed"]] == [9, 18]
    assert len(found["groups"]) == 4  # its error bars make the fourth kind
    page = tmp_path / "out" / "audit.html"
    written = page.read_bytes()
    page.unlink()
    assert write_report(tmp_path / "out").read_bytes() == written  # from audit.json alone


def test_names_of_strangers_are_text(tmp_path):
    report = audit(
        HandMade(),
        HandMade(noise=0.1, stated=0.1),
        labelled(4),
        names=(EVIL, "<script>alert(2)</script>"),
        md_steps=0,
        sizes=[],
    )
    html = report.write(tmp_path).read_text()
    assert "&lt;img src=x onerror" in html and "&lt;script&gt;" in html
    assert html.count("<script") == 1 and "<script>alert" not in html  # ours sorts tables
    assert "<img src=x" not in html
    assert {p.name for p in tmp_path.glob("*.png")} == {
        *("structures.png", "groups.png", "smoothness.png", "calibration.png")
    }


def test_a_failure_in_words_of_a_stranger_is_text():
    report = audit(HandMade(), HandMade(), labelled(4), md_steps=0, sizes=[]).to_json()
    row = {"who": "a", "drift": None, "drift_error": None, "fluctuation": None, "stopped": EVIL}
    html = render(report | {"findings": [EVIL], "dynamics": [row]}, images={})
    assert html.count("&lt;img src=x onerror") == 2 and "<img src=x" not in html


@pytest.mark.parametrize("name", ["vasp", "os", "os.system", "ase.calculators.vasp", "kim", ""])
def test_what_a_name_stands_for_is_never_imported(name):
    before = set(sys.modules)
    with pytest.raises(InputError):
        calculator_of(name)
    assert not {m for m in set(sys.modules) - before if "vasp" in m or "kim" in m}


def test_the_folder_of_a_specialist_names_files_of_its_own(tmp_path):
    content = {"origin": "x", "teacher": None, "attempts": []}
    path = tmp_path / "specialist" / "specialist.json"
    path.parent.mkdir()
    save(trained(), tmp_path / "outside.safetensors", target="energy", unit="eV")
    save(trained(), path.parent / "model-000.safetensors", target="energy", unit="eV")
    for model, said in ((None, "no network that was learned"), ("../outside.safetensors", "outs")):
        path.write_text(json.dumps(content | {"model": model}))
        with pytest.raises(InputError, match=said):
            calculator_of(str(path.parent))
    path.write_text(json.dumps(content | {"model": "model-000.safetensors"}))
    assert calculator_of(str(path.parent), "cpu").model.source.endswith("model-000.safetensors")


def test_refusals_are_one_sentence(tmp_path, call):
    file = tmp_path / "some.xyz"
    ase.io.write(file, labelled(2, labels=False))
    (tmp_path / "damaged.safetensors").write_bytes(b"no model")
    for words, said in (
        (["emtt", "lj", file], "did you mean emt?"),
        (["emt", tmp_path / "damaged.safetensors", file], "damaged.safetensors"),
        (["emt", "lj", tmp_path / "none.xyz"], "there is no file"),
        (["emt", "lj", file, "--sizes", "big"], "--sizes takes whole numbers"),
        (["emt", "lj", file, "--md-steps", "1"], "--md-steps must be"),
        (["emt", "lj", file, "--limit", "0"], "--limit must be"),
        (["emt", "lj", file, "--out", file], "is a file"),
    ):
        code, out, err = call(*words)
        assert code == 2 and said in err and err.count("\n") == 1 and not out, err


def test_options_are_refused_before_calculators_are_loaded(tmp_path, call):
    ase.io.write(tmp_path / "some.xyz", [ethanol()])
    words = ("neither", "there", tmp_path / "some.xyz", "--md-steps", 20, "--out", tmp_path / "out")
    code, _, err = call(*words)
    assert code == 2 and "--md-steps must be 0 or at least 40, not 20" in err


def test_the_page_is_drawn_again_of_what_was_stored(tmp_path, monkeypatch, capsys):
    found = audit(HandMade(), HandMade(wrong_on=8), labelled(), md_steps=0, sizes=())
    page = found.write(tmp_path)
    before = page.read_bytes()
    page.unlink()
    (tmp_path / "groups.png").unlink()
    monkeypatch.setattr(sys, "argv", ["egnn-prune", "report", str(tmp_path)])
    main()
    assert page.read_bytes() == before and (tmp_path / "groups.png").exists()
    said = capsys.readouterr().out.splitlines()
    assert said == [*(f"- {sentence}" for sentence in found.findings), f"Report: {page}"]
