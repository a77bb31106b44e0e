"""The page of a specialised potential: complete, from the files alone, clear where they are bad."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import specialise_run
from matplotlib.image import imread

from egnn_prune.cli import report as command
from egnn_prune.errors import InputError
from egnn_prune.report.common.page import glossary
from egnn_prune.report.specialise import page, report_table, write_report
from egnn_prune.report.specialise.cut import is_odd
from egnn_prune.report.specialise.files import load_metrics, load_structures
from egnn_prune.report.specialise.intervals import force_rmse, number_of, ratio_interval
from egnn_prune.report.specialise.page import CAPTIONS
from egnn_prune.report.specialise.speed import curve_of, error_against_speed

_VOID = {"meta", "img", "br"}


class _Page(HTMLParser):
    """Checks that tags are closed in order, and collects the pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.pictures.append(dict(attrs))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def metrics(tmp_path: Path) -> dict[str, Any]:
    return specialise_run.write_run(tmp_path / "run")


@pytest.fixture
def folder(tmp_path: Path, metrics: dict[str, Any]) -> Path:
    return tmp_path / "run"


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made but not turned into pixels, where most of the time goes."""
    monkeypatch.setattr(page, "png_bytes", lambda figure: b"a picture")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page without figures, for what only its words show."""
    monkeypatch.setattr(page, "figures", lambda *_: {})


def _rewritten(folder: Path, metrics: object) -> Path:
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return folder


def _text(folder: Path) -> str:
    """The page that is written anew; its tags are closed and every picture is described."""
    text = write_report(folder).read_text(encoding="utf-8")
    found = _Page(text)
    assert found.open == [] and "link" not in found.tags and found.tags.count("script") in (1, 3)
    for picture in found.pictures:
        assert (picture["src"] or "").startswith("data:image/png;base64,")
        assert len(picture["alt"] or "") > 20
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", text))
    return text


def test_every_figure_is_drawn_and_described(folder: Path) -> None:
    text = _text(folder)
    assert text.startswith("<!doctype html>") and not re.search(r"https?://|@import|url\(", text)
    assert text.count("<img") == len(CAPTIONS)
    for name in CAPTIONS:
        pixels = imread(folder / f"{name}.png")[..., :3]
        assert 0.01 < (pixels < 0.9).any(-1).mean() < 0.9, name
    assert len((folder / "budgets.csv").read_text().splitlines()) == 6
    assert not list(folder.glob(".*")), "no temporary file is left"


@pytest.mark.usefixtures("undrawn")
def test_numbers_are_those_of_the_files(folder: Path, metrics: dict[str, Any]) -> None:
    models = metrics["models"]
    models["specialised"] |= {"force_rmse_mev_per_angstrom": 71.4, "latency_ms": 62.64}
    models["finetuned"]["force_rmse_mev_per_angstrom"] = 60.2
    models["scratch"]["force_rmse_mev_per_angstrom"] = 156.1
    text = _text(_rewritten(folder, metrics))
    for expected in (
        "needs 24 % of the teacher&#39;s time (261 → 62.6 ms for 108 atoms, 1 thread) at a force "
        "RMSE of 71.4 meV/Å; the teacher fine-tuned by the same steps has 60.2 meV/Å, the same "
        "shape from scratch has 156 meV/Å.",
        "Time of 108 atoms (ms)",
        "58.3 → 21.4 ms (2.7x faster). Single small molecules gain less",
        "structures like the training ones of H, C, N, O with 9 to 27 atoms",
        "odd paths alone changes the teacher&#39;s forces by 4.10 meV/Å",
        "Of 89 chemical elements that the teacher knows, 4 stay.",
        "RMSE of 318 meV/Å without and 232 with it",
        "3f9a1c77d0e2",
        "&lt;script&gt;",
    ):
        assert expected in text, expected
    assert f"{len(load_structures(folder / 'predictions.npz', metrics))} test structures" in text


@pytest.mark.usefixtures("undrawn")
def test_odd_paths_and_copies_are_counted(folder: Path, metrics: dict[str, Any]) -> None:
    paths = [path for layer in metrics["cut"]["layers"] for path in layer["paths"]]
    assert is_odd({"source": "1e", "l": 1, "target": "1e"})
    assert not is_odd({"source": "1o", "l": 1, "target": "2e"})
    odd = sum(map(is_odd, paths))
    assert odd == 12  # of the three inner layers, as in SevenNet-0
    kept = sum(path["kept"] for path in paths)
    assert f"{kept} of {len(paths)} paths were kept; 12 of the paths cut are odd" in _text(folder)


def test_intervals_are_paired_over_structures(folder: Path, metrics: dict[str, Any]) -> None:
    test = load_structures(folder / "predictions.npz", metrics)
    found = metrics["models"]["specialised"]["force_rmse_mev_per_angstrom"]
    assert number_of(force_rmse(test, "specialised"), test) == pytest.approx(found)
    everywhere = [number_of(force_rmse(test, "specialised", z), test) for z in (1, 6, 7, 8)]
    assert min(everywhere) < found < max(everywhere)
    low, high = ratio_interval(test, "specialised", "finetuned")
    assert 1.0 < low < 0.071 / 0.060 < high < 1.3
    assert ratio_interval(test, "specialised", "specialised") == pytest.approx((1, 1))
    assert math.isnan(ratio_interval(test, "specialised", "unknown")[0])
    assert "[1.0" in report_table(folder) and "95 % interval" in report_table(folder)


def test_speed_is_relative_to_the_teacher(metrics: dict[str, Any]) -> None:
    del metrics["curve"][0]["latency_share"]
    speeds = [speed for speed, _ in curve_of(metrics)]
    assert speeds == sorted(speeds) and speeds[0] == pytest.approx(1 / (0.97 * 0.75))
    figure = error_against_speed(metrics)
    assert figure is not None
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert {"budget 75 %", "15 %", "specialised", "teacher"} <= texts


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(("missing", "gone"), [("scratch", True), ("finetuned", False)])
def test_a_missing_model_is_left_out(
    folder: Path, metrics: dict[str, Any], missing: str, gone: bool
) -> None:
    metrics["models"][missing] = None
    if gone:
        del metrics["models"][missing]
    text = _text(_rewritten(folder, metrics))
    assert f">vs {'scratch' if missing == 'scratch' else 'fine-tuned'}<" not in text
    assert f"<dt>not made</dt><dd>{missing}</dd>" in text


def test_optional_parts_may_be_missing(folder: Path, metrics: dict[str, Any]) -> None:
    for key in ("curve", "cut", "latency_single_atoms", "git_commit", "budget"):
        del metrics[key]
    for model in metrics["models"].values():
        for key in ("stress_rmse_mev_per_angstrom3", "latency_single_ms", "reflection_error"):
            model[key] = None
        for key in ("memory_mb", "md_steps_per_second"):
            del model[key]
    arrays = dict(np.load(folder / "predictions.npz"))
    np.savez(folder / "predictions.npz", **{k: v for k, v in arrays.items() if "scratch" not in k})
    for path in (folder / "curves").iterdir():
        path.unlink()
    (folder / "config.yaml").unlink()
    text = _text(_rewritten(folder, metrics))
    for absent in ("What was cut", "Stress RMSE", "Memory", "Configuration", "<h2>Training"):
        assert absent not in text
    assert not (folder / "budgets.csv").exists() and not (folder / "what_was_cut.png").exists()


def test_labels_of_the_teacher_are_said(folder: Path, metrics: dict[str, Any]) -> None:
    """Its errors are zero then, which no logarithmic axis can show."""
    metrics |= {"labels": "teacher", "budget": 0.1}
    for key in list(metrics["models"]["teacher"]):
        if "rmse" in key or "mae" in key:
            metrics["models"]["teacher"][key] = 0.0
    arrays = dict(np.load(folder / "predictions.npz"))
    arrays["teacher_forces"] = arrays["forces_reference"]
    arrays["teacher_energy"] = arrays["energy_reference"]
    np.savez(folder / "predictions.npz", **arrays)
    text = _text(_rewritten(folder, metrics))
    assert ">vs fine-tuned<" not in text and ">vs scratch<" in text
    assert "meV/Å against the teacher; the same shape from scratch has" in text
    assert "teacher&#39;s own energies and forces" in text
    shown = load_structures(folder / "predictions.npz", metrics)
    assert list(shown.energies) == list(shown.all_forces) == ["specialised", "scratch"]
    assert "budget was 10 % of the teacher&#39;s time and was not met" in text


@pytest.mark.usefixtures("unrendered")
def test_one_structure_has_no_interval_and_a_diverged_model_no_bar(
    folder: Path, metrics: dict[str, Any]
) -> None:
    arrays = dict(np.load(folder / "predictions.npz"))
    one = {k: v[:9] if "forces" in k or k == "z" else v[:1] for k, v in arrays.items()}
    one["scratch_forces"][:] = np.nan
    one["scratch_energy"][:] = np.nan
    np.savez(folder / "predictions.npz", **one)
    metrics["models"]["scratch"]["force_rmse_mev_per_angstrom"] = None
    text = _text(_rewritten(folder, metrics))
    assert '<th scope="row" class="name">95 % interval' not in text


def _broken(change: str) -> object:
    found = specialise_run.metrics(specialise_run.predictions())
    layer = found["cut"]["layers"][1]
    if change == "kind":
        found["kind"] = "other"
    elif change == "version":
        found["schema_version"] = 9
    elif change == "models":
        found["models"] = []
    elif change == "teacher":
        found["models"]["teacher"] = None
    elif change == "latency":
        found["models"]["scratch"]["latency_ms"] = 0
    elif change == "error":
        found["models"]["specialised"]["force_rmse_mev_per_angstrom"] = "small"
    elif change == "budget":
        found["curve"][2]["budget"] = None
    elif change == "kept":
        layer["conv"]["1e"] = [99, 64]
    elif change == "conv":
        layer["conv"] = [1, 2]
    elif change == "path":
        layer["paths"][0]["source"] = "vector"
    elif change == "species":
        found["cut"]["species"] = "many"
    return found


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("kind", "kind must be 'specialise'"),
        ("version", "schema_version must be 1, got 9"),
        ("models", "models must be a mapping, got list"),
        ("teacher", "models.teacher must be a mapping"),
        ("latency", "models.scratch.latency_ms must be a positive number"),
        ("error", "models.specialised.force_rmse_mev_per_angstrom must be a number"),
        ("budget", "curve[2].budget"),
        ("kept", "cut.layers[1].conv.1e must be [kept, total], got [99, 64]"),
        ("conv", "cut.layers[1].conv must be a mapping"),
        ("path", "cut.layers[1].paths needs source and target"),
        ("species", "cut.species must be [kept, total]"),
    ],
)
def test_damaged_metrics_are_refused_in_one_sentence(folder: Path, change: str, says: str) -> None:
    _rewritten(folder, _broken(change))
    with pytest.raises(InputError, match=r"metrics\.json: ") as caught:
        write_report(folder)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not (folder / "report.html").exists() and not list(folder.glob("*.png"))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("z", np.ones(3), "'z' must hold one number for each of the 720 atoms"),
        ("atoms", np.array([0.5]), "'atoms' must be a list of whole numbers"),
        ("specialised_forces", np.ones((2, 3)), "'specialised_forces' has shape"),
        ("forces_reference", None, "array 'forces_reference' is missing"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(
    folder: Path, key: str, value: Any, says: str
) -> None:
    arrays = dict(np.load(folder / "predictions.npz"))
    arrays[key] = value
    np.savez(folder / "predictions.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(InputError, match=re.escape(says)):
        write_report(folder)
    (folder / "predictions.npz").unlink()
    with pytest.raises(InputError, match=r"predictions\.npz is missing"):
        write_report(folder)


@pytest.mark.usefixtures("undrawn")
def test_the_command_draws_it_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["egnn-prune report", str(folder)])
    command.main()
    out = capsys.readouterr().out
    assert out.startswith("The specialised network needs 25 %")
    assert out.endswith(f"Report: {folder / 'report.html'}\n")
    first = (folder / "report.html").read_bytes()
    command.main()
    assert (folder / "report.html").read_bytes() == first


def test_no_torch_is_needed() -> None:
    code = "import sys; sys.modules['torch'] = None; import egnn_prune.report.specialise"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_term_is_explained_once() -> None:
    terms = glossary("specialise")
    assert len(terms) > 10 and len({term for term, _ in terms}) == len(terms)
    assert all(meaning.endswith(".") and "{" not in meaning for _, meaning in terms)


def test_metrics_that_are_no_json_name_the_file(folder: Path) -> None:
    (folder / "metrics.json").write_text("[1")
    with pytest.raises(InputError, match=r"metrics\.json is missing or damaged"):
        load_metrics(folder / "metrics.json")
