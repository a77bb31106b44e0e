"""The structures that a page lets turn: right numbers, as data and not as code, and small."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

import force_arrays
import numpy as np
import pytest
import specialise_run
from molecules import MOLECULES

from egnn_prune.errors import DataError
from egnn_prune.report.common.page import Section, Text, render
from egnn_prune.report.run import html as run_page
from egnn_prune.report.run.force_bars import force_bars
from egnn_prune.report.run.gallery import exhibits
from egnn_prune.report.run.molecule import facing
from egnn_prune.report.run.structure_view import (
    MOST_ATOMS,
    MOST_STRUCTURES,
    Shown,
    gallery_view,
    structure_view,
)
from egnn_prune.report.specialise import page as specialise_page
from egnn_prune.report.specialise.files import load_structures
from egnn_prune.report.specialise.structure_view import structures_to_turn

WATER = np.array(MOLECULES["O"][0]), np.array(MOLECULES["O"][1], dtype=float)
EVIL = """</script></div><script>alert('1')</script><!-- "&"""


def _data(text: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json">(.*?)</script>', text, flags=re.DOTALL)
    parsed: dict[str, Any] = json.loads(found, parse_constant=pytest.fail)
    return parsed


def _page(*shown: Shown) -> str:
    section = Section("Structures", [Text("Above."), *structure_view(shown, "eV/Å")])
    return render("Title", "headline", [section], config="", terms=[])


def _positions(structure: dict[str, Any]) -> np.ndarray:
    return np.reshape(structure["pos"], (-1, 3))


def test_the_page_holds_positions_bonds_and_errors_as_they_are() -> None:
    error, bar = np.array([0.12345, 2.0, np.nan]), np.array([0.5, 0.25, np.inf])
    data = _data(_page(Shown("Water.", *WATER, error, bar), Shown("Plain.", *WATER)))
    first, second = data["structures"]
    assert first["caption"] == "Water." and first["z"] == [8, 1, 1]
    assert np.array_equal(_positions(first), WATER[1])
    assert np.reshape(first["bonds"], (-1, 2)).tolist() == [[0, 1], [0, 2]]
    assert first["error"] == [0.123, 2.0, None]
    assert first["bar"] == [0.5, 0.25, 2.0], "an infinite one is drawn as the longest"
    assert data["most"] == 2.0 and data["unit"] == "eV/Å"
    assert "error" not in second and "bar" not in second and "cell" not in second
    assert {each["symbol"] for each in data["elements"].values()} == {"O", "H"}
    turn = np.reshape(first["turn"], (3, 3))
    seen = WATER[1] @ turn.T
    spread = (seen.max(axis=0) + seen.min(axis=0)) / 2
    assert np.allclose(seen - spread, facing(WATER[1]), atol=1e-3), "as in the picture"


def test_texts_cannot_end_the_data_and_come_back_as_they_were() -> None:
    text = _page(Shown(EVIL, *WATER))
    assert _data(text)["structures"][0]["caption"] == EVIL
    assert text.count("<script") == text.count("</script") == 3 and "<!--" not in text
    assert "alert('1')" not in text.replace("\\u0027", "")


def test_the_policy_names_the_scripts_of_the_page_and_no_other() -> None:
    for text, count in ((_page(Shown("Water.", *WATER)), 2), (_page(), 1)):
        scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
        assert len(scripts) == count
        hashes = [
            base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
            for script in scripts
        ]
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
        assert policy is not None
        allowed = html.unescape(policy[1]).split("script-src ")[1].split()
        assert allowed == [f"'sha256-{each}'" for each in hashes]
        for script in scripts:
            assert not re.search(r"innerHTML|outerHTML|insertAdjacent|eval|fetch|http", script)


def test_the_view_is_hidden_until_a_script_runs_and_can_be_reached_by_keyboard() -> None:
    text = _page(Shown("Water.", *WATER, np.ones(3)))
    assert re.search(r'<div class="structures" role="group" aria-label="[^"]+" hidden>', text)
    assert '<canvas tabindex="0" role="img">' in text
    assert re.findall(r'data-colour="(\w+)"', text.split("<script>")[0]) == ["element", "error"]
    assert "data-colour" not in _page(Shown("Water.", *WATER)).split("<script>")[0]


def test_a_periodic_structure_has_its_cell_and_a_molecule_among_them_has_none() -> None:
    slab = np.array([[3.0, 0, 0], [1.5, 2.5, 0], [0, 0, 0]])
    found = _data(_page(Shown("a", *WATER, cell=slab), Shown("b", *WATER, cell=np.zeros((3, 3)))))[
        "structures"
    ]
    assert np.array_equal(np.reshape(found[0]["cell"], (3, 3)), slab) and "cell" not in found[1]
    turn = np.reshape(found[0]["turn"], (3, 3))
    assert np.allclose(turn @ turn.T, np.eye(3), atol=2e-3) and np.linalg.det(turn) > 0


def test_few_structures_of_few_atoms_keep_the_page_small() -> None:
    random = np.random.default_rng(0)

    def packed(atoms: int) -> Shown:
        pos = 1.6 * np.stack(np.unravel_index(np.arange(atoms), (7, 7, 8)), axis=1)
        values = random.random((2, atoms))
        pos = pos + random.normal(0, 0.05, pos.shape)
        return Shown("Carbon.", np.full(atoms, 6), pos, *values, 11 * np.eye(3))

    many = [packed(MOST_ATOMS + 1), *(packed(MOST_ATOMS) for _ in range(MOST_STRUCTURES + 1))]
    text = _page(*many)
    assert [len(s["z"]) for s in _data(text)["structures"]] == MOST_STRUCTURES * [MOST_ATOMS]
    assert len(text) - len(_page()) < 250_000
    assert len(_page(Shown("Water.", *WATER))) - len(_page()) < 12_000


def test_there_is_nothing_where_there_is_no_structure_to_show() -> None:
    broken = Shown("Nowhere.", WATER[0], np.full((3, 3), np.nan))
    assert structure_view([], "eV/Å") == [] == structure_view([broken], "eV/Å")
    text = _page(broken)
    assert "<canvas" not in text and "application/json" not in text and text.count("<script") == 1


@pytest.fixture
def arrays(
    calibrated_metrics: dict[str, Any], calibrated_predictions: dict[str, Any]
) -> dict[str, Any]:
    """Of a run with forces on all structures."""
    force_arrays.add_force_bars(calibrated_metrics, calibrated_predictions, structures=700)
    for split, first in (("test", 1000), ("ood", 2000)):
        calibrated_predictions[f"gallery_{split}_frame"] = first + np.arange(3)
        calibrated_predictions[f"gallery_{split}_cell"] = np.stack(3 * [5.0 * np.eye(3)])
    return calibrated_predictions


def test_the_gallery_of_a_run_can_be_turned(arrays: dict[str, Any]) -> None:
    (view,) = gallery_view(arrays, "eV")
    assert len(view.data["structures"]) == 6 and len(view.colours) == 3
    first, shown = exhibits(arrays, "test")[0], view.data["structures"][0]
    assert shown["caption"].startswith(
        f"test structure {first.row} (frame 1002 of the data set): C#N. Error "
    )
    assert np.array_equal(_positions(shown), MOLECULES["C#N"][1])
    assert shown["cell"] == [5, 0, 0, 0, 5, 0, 0, 0, 5]
    bars = force_bars(arrays, "test", "pruned")
    assert bars is not None and bars.calibrated is not None
    own = bars.structure == first.row
    assert shown["error"] == pytest.approx(bars.size[own], rel=5e-3)
    assert shown["bar"] == pytest.approx(bars.calibrated[own], rel=5e-3)
    assert view.data["structures"][3]["caption"].startswith("OOD structure ")


def test_a_gallery_that_does_not_fit_the_forces_is_refused(arrays: dict[str, Any]) -> None:
    row = exhibits(arrays, "test")[0].row
    counts = arrays["test_forces_atoms"]
    counts[row] += 1
    counts[row - 1] -= 1
    with pytest.raises(DataError, match=f"structure {row} of test has 3 atoms in the gallery"):
        gallery_view(arrays, "eV")
    arrays["gallery_test_cell"] = np.eye(3)
    with pytest.raises(DataError, match="'gallery_test_cell' has shape"):
        gallery_view(arrays, "eV")


def test_a_run_of_old_is_shown_by_element_alone(
    calibrated_metrics: dict[str, Any], calibrated_predictions: dict[str, Any], tmp_path: Path
) -> None:
    picture = tmp_path / "any.png"
    picture.write_bytes(b"a picture")
    names = ("pruned_vs_baseline", "parity", "calibration", "gallery")
    images = dict.fromkeys(names, picture)
    text = run_page.render(calibrated_metrics, calibrated_predictions, "", images)
    data = _data(text)
    assert len(data["structures"]) == 6 and "error" not in data["structures"][0]
    assert "frame" not in data["structures"][0]["caption"]
    assert text.index("<img", text.index("Least certain molecules</h2>")) < text.index("<canvas")


def test_a_specialised_potential_shows_the_least_certain_and_the_worst(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = specialise_run.write_run_with_error_bars(tmp_path)
    path = tmp_path / "predictions.npz"
    plain = dict(np.load(path))
    plain |= {"frame": np.arange(40) + 500, "cell": np.stack(40 * [20.0 * np.eye(3)])}
    np.savez(path, **plain)
    test = load_structures(path, found)
    (view,) = structures_to_turn(test)
    captions = [each["caption"] for each in view.data["structures"]]
    assert ["longest error bar." in each for each in captions] == 6 * [True] + 6 * [False]
    rows = [int(re.findall(r"test structure (\d+) ", each)[0]) for each in captions]
    assert len(set(rows)) == 12 and f"(frame {500 + rows[0]} of the data)" in captions[0]
    std = plain["specialised_forces_std_calibrated"]
    error = plain["specialised_forces"] - plain["forces_reference"]
    error = np.sqrt((error**2).mean(axis=1))
    ends = np.cumsum(plain["atoms"])
    longest = [each.max() for each in np.split(std, ends[:-1])]
    worst = [each.max() for each in np.split(error, ends[:-1])]
    assert rows[:6] == list(np.argsort(-np.array(longest))[:6])
    assert rows[6] == next(b for b in np.argsort(-np.array(worst)) if b not in rows[:6])
    own = slice(ends[rows[0]] - plain["atoms"][rows[0]], ends[rows[0]])
    shown = view.data["structures"][0]
    assert _positions(shown) == pytest.approx(plain["pos"][own], abs=6e-4)
    assert shown["error"] == pytest.approx(1000 * error[own], rel=5e-3)
    assert shown["bar"] == pytest.approx(1000 * std[own], rel=5e-3)
    assert shown["cell"][0] == 20.0
    monkeypatch.setattr(specialise_page, "figures", lambda *_: {})
    text = specialise_page.write_report(tmp_path).read_text(encoding="utf-8")
    assert _data(text) == json.loads(json.dumps(view.data))
    assert text.index(specialise_page.ERROR_BARS + "</h2>") < text.index("<canvas")


def test_without_error_bars_the_worst_are_shown_and_without_positions_nothing(
    tmp_path: Path,
) -> None:
    found = specialise_run.write_run(tmp_path)
    path = tmp_path / "predictions.npz"
    plain = dict(np.load(path))
    assert structures_to_turn(load_structures(path, found)) == []
    plain["pos"] = np.random.default_rng(0).normal(0, 3, plain["forces_reference"].shape)
    np.savez(path, **plain)
    (view,) = structures_to_turn(load_structures(path, found))
    assert len(view.data["structures"]) == MOST_STRUCTURES
    assert all("largest force error" in each["caption"] for each in view.data["structures"])
    assert [key for key, _ in view.colours] == ["element", "error"]
