"""The page: complete, self-contained, escaped and reproducible."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from egnn_prune.report import write_report
from egnn_prune.report.run.figures import pruned_vs_baseline
from egnn_prune.report.run.html import _comparison
from egnn_prune.report.run.tables import comparison_rows

_LINKING = {"src", "href", "srcset", "data", "action", "poster"}
_VOID = {"meta", "img", "br", "link", "hr", "input"}


class _Page(HTMLParser):
    """Collects tags and links and checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in _LINKING]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_complete_and_self_contained(run_folder: Path) -> None:
    path = write_report(run_folder)
    assert path == run_folder / "report.html"
    text = path.read_text(encoding="utf-8")
    page = _Page(text)
    assert page.open == []
    assert text.startswith("<!doctype html>")
    pictures = [link for link in page.links if not link.startswith("#")]
    assert len(pictures) == 2
    assert all(link.startswith("data:image/png;base64,") for link in pictures)
    assert not {"link", "iframe"} & set(page.tags) and page.tags.count("script") == 1
    assert not re.search(r"https?://|@import|url\(", text)
    for expected in (
        "2.3x faster [2.22, 2.38], 37 % of the MACs, test error +2.1 % [+0.4, +3.8]",
        "0.0534",
        "2.7x fewer",
        "layers.3.edge",
        "18 / 64",
        "260 of 512",
        "1260",
        "3f9a1c77d0e2",
        "0a1b2c3d4e5f",
        "hidden: 64",
        "Rank correlation",
        "of the weights that are left were frozen while fine-tuning",
    ):
        assert expected in text
    assert "prefers-color-scheme: dark" in text
    assert not list(run_folder.glob(".*")), "no temporary file is left"
    # The run is an old one, without the numbers and molecules of these two sections.
    assert "Calibration is left out: this run was written before" in text
    assert "The gallery is left out: this run holds no molecules" in text
    assert not (run_folder / "calibration.png").exists()


def test_page_with_calibration_and_gallery(
    calibrated_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the sizes are those at full resolution
    path = write_report(calibrated_run)
    text = path.read_text(encoding="utf-8")
    page = _Page(text)
    assert page.open == []
    assert (
        sum(link.startswith("data:") for link in page.links) == 4
        and path.stat().st_size < 3_000_000
    )
    assert not re.search(r"https?://|@import|url\(", text)
    main, calibration = text.split("<h2>Calibration</h2>")
    for quantity in ("ENCE", "Miscalibration area", "OOD AUROC"):
        assert f">{quantity}" not in main and f">{quantity}" in calibration
    for expected in ("0.320 → 0.100", "suffered more than accuracy", "3 most uncertain molecules"):
        assert expected in calibration
    assert "left out" not in text
    for name in ("calibration", "gallery"):
        picture = (calibrated_run / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) < 700_000


def test_page_escapes_and_is_reproducible(run_folder: Path) -> None:
    first = write_report(run_folder).read_bytes()
    assert b"&lt;script&gt;alert(1)" in first
    assert first.count(b"<script") == 1 and b"<script>alert" not in first
    assert write_report(run_folder).read_bytes() == first


def test_page_without_optional_parts(run_folder: Path, metrics: dict[str, Any]) -> None:
    for key in ("selection", "ledger", "pruning"):
        del metrics[key]
    metrics["git_commit"] = None
    metrics["models"]["scratch"] = None
    (run_folder / "metrics.json").write_text(json.dumps(metrics))
    text = write_report(run_folder).read_text(encoding="utf-8")
    assert _Page(text).open == []
    for heading in ("Selection", "Ledger", "Channels kept", "<h2>Pruning"):
        assert heading not in text


def test_what_is_said_of_freezing(run_folder: Path, metrics: dict[str, Any]) -> None:
    for row in metrics["ledger"]:
        row["frozen"] = 0
    said = {"none": "Nothing was frozen (", "pruned": "Only what was removed is frozen, at zero ("}
    for mode, sentence in said.items():
        metrics["pruning"]["freeze"] = mode
        (run_folder / "metrics.json").write_text(json.dumps(metrics))
        text = write_report(run_folder).read_text(encoding="utf-8")
        assert f"{sentence}pruning.freeze={mode})" in text


def test_a_column_that_says_nothing_is_left_out(metrics: dict[str, Any]) -> None:
    rows = comparison_rows(metrics)
    full = _comparison(["dense", "pruned"], rows)
    bare = _comparison(["dense", "pruned"], [replace(row, interval="") for row in rows])
    assert full.header[-1] == "95 % interval" and bare.header == full.header[:-1]
    assert {len(cells) for cells in bare.body} == {len(bare.header)}


def test_impossible_groups_are_refused(run_folder: Path, metrics: dict[str, Any]) -> None:
    metrics["pruning"]["groups"][0]["kept"] = 99
    (run_folder / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(ValueError, match=r"layers\.0\.edge.*kept=99"):
        write_report(run_folder)


def test_missing_file(run_folder: Path) -> None:
    (run_folder / "config.yaml").unlink()
    with pytest.raises(FileNotFoundError):
        write_report(run_folder)


def test_every_figure_scrolls_in_a_box_of_its_own(run_folder: Path) -> None:
    text = write_report(run_folder).read_text(encoding="utf-8")
    assert text.count("<img") == len(re.findall(r'<div class="wide"[^>]*><img', text)) == 2
    assert re.search(r"figure img \{ width: 800px; max-width: none; \}", text)
    assert ".wide { overflow-x: auto;" in text


def test_the_learning_curves_say_the_steps_that_were_taken(run_folder: Path) -> None:
    (run_folder / "curves").mkdir()
    for name in ("dense", "baseline", "pruned"):
        (run_folder / "curves" / f"{name}.csv").write_text("step,val_mae\n10,0.3\n20,0.2\n")
    assert "The baseline takes the same extra steps." in write_report(run_folder).read_text()
    metrics = json.loads((run_folder / "metrics.json").read_text())
    metrics["steps"] = {"dense": [20], "baseline": [20], "pruned": [10]}
    (run_folder / "metrics.json").write_text(json.dumps(metrics))
    text = write_report(run_folder).read_text()
    assert "same extra steps" not in text
    assert text.count("the dense model took 20 extra steps and the pruned one 10.") == 2


def test_a_long_headline_is_a_title_of_two_lines(metrics: Any, predictions: Any) -> None:
    for name in ("dense", "pruned"):
        metrics["models"][name] |= {"test_force_mae": 0.1}
    title = pruned_vs_baseline(metrics, predictions).get_suptitle()
    assert len(title) > 88 and max(map(len, title.splitlines())) <= 88
