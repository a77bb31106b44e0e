"""Does the page say whether a specialised potential knows what it does not know?"""

from __future__ import annotations

import csv
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import specialise_run

from egnn_prune.errors import InputError
from egnn_prune.report.common.page import glossary
from egnn_prune.report.run.calibration import reliability, sparsification
from egnn_prune.report.specialise import error_bar_figures as drawn
from egnn_prune.report.specialise import error_bars, page, report_table, write_report
from egnn_prune.report.specialise.files import Structures, load_structures

MODELS = ("finetuned", "specialised", "scratch")


@pytest.fixture
def metrics(tmp_path: Path) -> dict[str, Any]:
    return specialise_run.write_run_with_error_bars(tmp_path / "run")


@pytest.fixture
def folder(tmp_path: Path, metrics: dict[str, Any]) -> Path:
    return tmp_path / "run"


@pytest.fixture
def structures(folder: Path, metrics: dict[str, Any]) -> Structures:
    return load_structures(folder / "predictions.npz", metrics)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page without figures, for what only its words show."""
    monkeypatch.setattr(page, "figures", lambda *_: {})


def _text(folder: Path, metrics: dict[str, Any]) -> str:
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return unescape(write_report(folder).read_text(encoding="utf-8"))


def _without(folder: Path, *parts: str) -> None:
    arrays = dict(np.load(folder / "predictions.npz"))
    kept = {k: v for k, v in arrays.items() if not any(part in k for part in parts)}
    np.savez(folder / "predictions.npz", **kept)


@pytest.mark.usefixtures("undrawn")
def test_sentences_state_these_numbers(folder: Path, metrics: dict[str, Any]) -> None:
    model = metrics["models"]["specialised"]
    for p, raw, share in ((50, 0.2, 0.512), (80, 0.4, 0.793), (90, 0.55, 0.896), (95, 0.6, 0.941)):
        model |= {f"force_coverage_{p}": raw, f"force_coverage_{p}_calibrated": share}
    model |= {"latency_ms": 60.0, "latency_with_error_bars_ms": 66.0}
    model |= {"force_spearman_atoms_calibrated": 0.71, "force_spearman_structures_calibrated": 0.95}
    text = _text(folder, metrics)
    assert "<h2>Does it know what it does not know?</h2>" in text
    for expected in (
        "Of the specialised network: intervals that promise 50 / 80 / 90 / 95 % of the force "
        "components hold 51.2 / 79.3 / 89.6 / 94.1 % of those of the test structures",
        "the promise is kept. Before calibration they held 20.0 / 40.0 / 55.0 / 60.0 %.",
        "as promised, though 40 test structures cannot tell it to 3 points",
        "rank atoms with a rank correlation of 0.71 and structures with one of 0.95",
        "with probability 0.83 (0.5 is chance).",
        "take 1.10 times as long as without (60.0 → 66.0 ms).",
        "come from a Bayesian last layer, those of forces from the distance of an atom's",
        "calibrated on 40 structures with 720 atoms of the split “val”, not on the test",
        "in-distribution distance",
    ):
        assert expected in text, expected
    metrics["uncertainty"] |= {"method": "committee", "members": 3, "source": "members"}
    said = "come from a committee of 3 networks, those of forces from the spread of the members'"
    assert said in _text(folder, metrics)
    model["force_coverage_90_calibrated"] = 0.8
    assert "the promise is not kept, error bars are too short" in _text(folder, metrics)


def test_the_terminal_table_and_the_csv_have_the_coverages(
    folder: Path, metrics: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "figures", lambda *_: {})
    lines = report_table(folder).splitlines()
    row = next(line for line in lines if line.startswith("Coverage of 90 %, forces"))
    model = metrics["models"]["specialised"]
    both = model["force_coverage_90"], model["force_coverage_90_calibrated"]
    assert "n/a" in row and f"{both[0]:.3f} → {both[1]:.3f}" in row
    assert any(line.startswith("Coverage of 90 %, energies") for line in lines)
    write_report(folder)
    with (folder / "error_bars.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["model"] for row in rows} == set(MODELS)
    found = {(r["model"], r["of"], r["score"]): (r["raw"], r["calibrated"]) for r in rows}
    assert found["specialised", "forces", "coverage_90"] == tuple(map(str, both))
    assert ("specialised", "energies", "ence") in found
    assert not any("rmse" in score or "mae" in score for _, _, score in found)


def test_figures_show_these_numbers(metrics: dict[str, Any], structures: Structures) -> None:
    held, size, ranks = (
        each(metrics, structures) for each in (drawn.held_shares, drawn.bar_sizes, drawn.bar_ranks)
    )
    assert held is not None and size is not None and ranks is not None
    for axes, prefix in zip(held.axes, ("energy_", "force_"), strict=True):
        raw, calibrated = axes.lines[3:5]  # after the diagonal and the fine-tuned teacher
        for line, suffix in ((raw, ""), (calibrated, "_calibrated")):
            model = metrics["models"]["specialised"]
            expected = [model[f"{prefix}coverage_{p}{suffix}"] for p in (50, 80, 90, 95)]
            np.testing.assert_allclose(line.get_ydata(), expected)
    forces = error_bars.force_bars(structures, "specialised")
    energies = error_bars.energy_bars(structures, "specialised")
    assert forces is not None and energies is not None
    for i, bars in enumerate((energies, forces.atoms)):
        line = size.axes[i].lines[3]  # before and after of the fine-tuned teacher stand first
        x, y = reliability(bars.error, bars.final)
        np.testing.assert_allclose(line.get_xdata(), x)
        np.testing.assert_allclose(line.get_ydata(), y)
        drawn_ranks = [line.get_ydata() for line in ranks.axes[i].lines]
        left = sparsification(bars.error, bars.final)[1]
        assert any(np.isin(each, left).all() for each in drawn_ranks)
    single = drawn.single_atoms(metrics, structures)
    assert single is not None
    assert [axes.get_title("left") for axes in single.axes] == [
        "fine-tuned",
        "specialised",
        "scratch",
    ]


def test_the_least_certain_structures_are_drawn(structures: Structures) -> None:
    bars = error_bars.force_bars(structures, "specialised")
    assert bars is not None and bars.distance is not None
    shown = drawn.most_uncertain(structures)
    longest = sorted(
        (bars.atoms.final[structures.owner == b].max() for b in range(40)), reverse=True
    )
    np.testing.assert_allclose([each.std.max() for each in shown], longest[:8])
    worst = int(structures.owner[np.argmax(bars.atoms.final)])
    np.testing.assert_allclose(shown[0].std, bars.atoms.final[structures.owner == worst])
    np.testing.assert_allclose(shown[0].error, bars.size[structures.owner == worst])
    assert shown[0].strange.tolist() == (bars.distance[structures.owner == worst] > 1).tolist()
    figure = drawn.uncertain_structures(structures)
    assert figure is not None
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert any(text.startswith(f"± {longest[0]:.0f}, error ") for text in texts)
    count = int(shown[0].strange.sum())
    assert f"{count} strange atom{'s' if count != 1 else ''}" in texts and count > 0
    figure.canvas.draw()
    boxes = [
        t.get_window_extent() for axes in figure.axes for t in axes.texts if len(t.get_text()) > 2
    ]
    boxes += [text.get_window_extent() for text in figure.texts]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_parts_that_are_missing_are_left_out(
    folder: Path, metrics: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pictures(found: dict[str, Any], shown: Structures, _: Path) -> dict[str, bytes]:
        made = drawn.figures(found, shown)
        return {name: b"a picture" for name, figure in made.items() if figure is not None}

    monkeypatch.setattr(page, "figures", pictures)
    everything = _text(folder, metrics)
    assert everything.count("<img") == 5
    _without(folder, "pos")
    assert _text(folder, metrics).count("<img") == 4
    _without(folder, "_std", "_distance", "pos")  # scores without arrays
    text = _text(folder, metrics)
    assert text.count("<img") == 1 and "promise" in text
    for model in metrics["models"].values():
        for key in [key for key in model if re.match("(energy|force)_.*_calibrated$", key)]:
            del model[key]
        model.pop("latency_with_error_bars_ms", None)
    metrics["uncertainty"] = {"method": "none"}
    text = _text(folder, metrics)
    assert "Before calibration they" not in text and "as long as without" not in text
    assert "Of the specialised network: intervals" in text


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_error_bars_has_the_page_it_had(tmp_path: Path) -> None:
    found = specialise_run.write_run(tmp_path / "old")
    shown = load_structures(tmp_path / "old" / "predictions.npz", found)
    assert drawn.figures(found, shown) == {} and shown.error_bars == {}
    text = write_report(tmp_path / "old").read_text(encoding="utf-8")
    for absent in ("Does it know", "Coverage of", "in-distribution distance", "promise"):
        assert absent not in text
    assert not (tmp_path / "old" / "error_bars.csv").exists()


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("specialised_forces_std", "'specialised_forces_std' has shape (3,)"),
        ("scratch_energy_std_calibrated", "'scratch_energy_std_calibrated' has shape (3,)"),
        ("pos", "'pos' has shape (3,)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    folder: Path, metrics: dict[str, Any], key: str, says: str
) -> None:
    arrays = dict(np.load(folder / "predictions.npz")) | {key: np.ones(3)}
    np.savez(folder / "predictions.npz", **arrays)
    with pytest.raises(InputError, match=re.escape(says)):
        load_structures(folder / "predictions.npz", metrics)


def test_unknown_elements_and_many_atoms(
    folder: Path, metrics: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An infinite error bar is drawn as the longest; large structures are not drawn at all."""
    arrays = dict(np.load(folder / "predictions.npz"))
    arrays["specialised_forces_std_calibrated"][0] = np.inf
    arrays["specialised_forces_distance"][0] = np.inf
    np.savez(folder / "predictions.npz", **arrays)
    test = load_structures(folder / "predictions.npz", metrics)
    for figure in drawn.figures(metrics, test).values():
        assert figure is not None
        figure.canvas.draw()
    shown = drawn.most_uncertain(test)
    assert np.isinf(shown[0].std[0]) and shown[0].strange[0]
    monkeypatch.setattr(drawn, "_MOST_ATOMS", 10)
    assert all(len(each.z) == 9 for each in drawn.most_uncertain(test))


@pytest.mark.parametrize("kind", ["error_bars", "force_bars"])
def test_every_new_term_is_explained_once(kind: str) -> None:
    page_of = "specialise" if kind == "error_bars" else "molecules"
    terms = [term for term, _ in glossary(kind)]
    words = {"graph": "", "value": "", "equivariance": ""}
    others = [term for term, _ in glossary(page_of, **words)]
    assert len(set(terms)) == len(terms) > 6 and not set(terms) & set(others)
