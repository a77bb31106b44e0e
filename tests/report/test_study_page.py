"""The page of a study, of rows as a study leaves them."""

from __future__ import annotations

import re

import pytest
from test_report_page import EVIL

from egnn_prune.report.common.markdown import markdown
from egnn_prune.report.studies import page
from egnn_prune.report.studies.page import study_page

ROWS = [
    {"seed": 0, "arm": "dense", "macs_per_graph": 1234567, "nll": None, "parts": [0.5, 0.25]},
    {"seed": 1, "arm": "random", "macs_per_graph": 7, "nll": None, "late": 0.125},
]


def _cells(text: str, tag: str) -> list[str]:
    return re.findall(rf"<{tag}\b[^>]*>([^<]*)</{tag}>", text)


def test_everything_that_a_study_left_is_on_its_page() -> None:
    text = study_page("cost_study", ROWS, "arm   MAE\na   1 < 2", png=b"x", config="steps: 5")
    assert "<h1>Cost study: 2 results over seeds 0, 1</h1>" in text
    assert "arm   MAE\na   1 &lt; 2</pre>" in text and "steps: 5" in text
    assert re.findall(r'<section id="([^"]+)">', text) == [
        *("tables", "figure", "rows", "configuration")
    ]
    assert text.count("<img") == 1 and "<figcaption" not in text
    # what no row has is no column; what one has is
    assert _cells(text, "th") == ["seed", "arm", "macs per graph", "parts", "late", "0", "1"]
    assert _cells(text, "td")[:4] == ["dense", "1,234,567", "0.500, 0.250", ""]


def test_columns_come_in_the_order_asked_for() -> None:
    assert _cells(study_page("a", ROWS, "", columns=["arm"]), "th")[:2] == ["arm", "seed"]


def test_many_rows_are_cut_and_the_page_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_ROWS", 1)
    text = study_page("a", ROWS, "")
    assert "The first 1 of 2 rows of a.csv" in text and "random" not in text


def test_tables_in_markdown_become_tables_under_their_headings() -> None:
    table = markdown(["arm", "answer"], [["a < b", "**yes**"], ["", "1.5*"]])
    text = study_page("a", [], f"## 1. One?\n\n{table}\n\nWhat it says.\n\n## 2. Two?\n\n{table}")
    assert re.findall(r"<h2[^>]*>([^<]*)</h2>", text)[:2] == ["1. One?", "2. Two?"]
    assert _cells(text, "th") == 2 * ["arm", "answer", "a &lt; b", ""]
    assert _cells(text, "td") == 2 * ["yes", "1.5*"]
    assert "<p>What it says.</p>" in text and "---" not in text


def test_rows_apart_have_tables_of_their_own_without_what_is_long() -> None:
    rows = [
        {"seed": 0, "part": "fit", "error": 1.5, "curve": [[1, 2.0]], "many": list(range(13))},
        {"seed": 0, "part": "look", "by_element": {"C": 1.0}, "few": [1, 2]},
    ]
    text = study_page("a", rows, "", apart=["part"])
    heads = [_cells(part, "th") for part in text.split("<table")[1:]]
    assert heads == [["seed", "part", "error", "0"], ["seed", "part", "few", "0"]]
    assert re.findall(r"<caption>([^<]*)</caption>", text) == ["fit", "look"]


def test_nothing_of_a_row_or_a_setting_is_markup() -> None:
    text = study_page(EVIL, [{EVIL: EVIL, "seed": EVIL}], EVIL, png=b"x", config=EVIL)
    assert text.count("<img") == 1 and text.count("<script") == 1 and text.count("</script") == 1
