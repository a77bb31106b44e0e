"""What all pages share: contents, sorting, glossary as data, values as text."""

from __future__ import annotations

import base64
import hashlib
import html
import re

import pytest

from egnn_prune.report.common.element_table import element_table
from egnn_prune.report.common.page import Section, Text, as_text, glossary, pairs, render
from egnn_prune.report.common.tables import Cell, Table
from egnn_prune.report.images.page import KINDS

WORDS = {"graph": "graph", "value": "coordinate", "equivariance": "It turns."}
EVIL = """</script></section><script>alert('1')</script>"><img src=x onerror=alert(1)>"""


def _page(*blocks: Table | Text, terms: bool = True) -> str:
    sections = [Section("Error bars of forces", blocks), Section("Nothing here", [])]
    words = [("term", "Meaning.")] if terms else []
    return render("Title", "headline", sections, config="seed: 0", terms=words)


def test_contents_lead_to_every_section_that_is_there_and_to_no_other() -> None:
    text = _page(Text("a"))
    anchors = re.findall(r'<a href="#([^"]+)">', text)
    assert anchors == ["error-bars-of-forces", "what-the-words-mean", "configuration"]
    assert re.findall(r'<section id="([^"]+)">', text) == anchors
    without = _page(Text("a"), terms=False)
    assert "What the words mean" not in without


def test_the_page_allows_its_own_script_by_its_hash_and_no_other() -> None:
    text = _page(Text(EVIL), Table(EVIL, [EVIL, "b"], [[EVIL, Cell(EVIL, unit=EVIL)]], note=EVIL))
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    found = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert html.unescape(policy[1]).endswith(f"script-src 'sha256-{found}'")
    assert "default-src 'none'" in policy[1]
    assert "<img" not in text and text.count("</section>") == 3
    # text goes about as nodes, never as markup, when a table is sorted
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|eval|document\.write", script)


def test_tables_offer_sorting_where_it_means_something() -> None:
    body = [["a", "1"], ["b", "2"]]
    assert '<table class="sortable">' in _page(Table("", ["name", "value"], body))
    assert "<table>" in _page(Table("", ["name", "value"], body, sortable=False))
    assert "<table>" in _page(Table("", ["name", "value"], body[:1]))
    assert "<button" not in _page(Table("", ["name", "value"], body)).split("<script>")[0]


@pytest.mark.parametrize("page", ["molecules", "positions", *KINDS])
def test_every_page_explains_each_term_once_in_its_own_words(page: str) -> None:
    terms = glossary(page, **WORDS)
    assert len(terms) > 10 and len({term for term, _ in terms}) == len(terms)
    assert all(meaning.endswith(".") and "{" not in meaning for _, meaning in terms)


def test_compact_values_are_cut_grouped_and_left_out_where_unknown() -> None:
    assert as_text(list(range(14)), compact=True).endswith("10, 11 and 2 more")
    assert as_text(list(range(14))).endswith("12, 13")
    found = {"some_count": 12345, "none": None, "yes": True, "deep": {"a": [0.5]}}
    assert pairs(found) == [
        ("some count", "12345"),
        ("none", "–"),
        ("yes", "yes"),
        ("deep", "a: 0.500"),
    ]
    assert dict(pairs(found, compact=True))["some count"] == "12,345"
    assert "none" not in dict(pairs(found, compact=True))


def test_elements_have_a_row_each_with_the_errors_of_the_models_that_know_them() -> None:
    hydrogen = {"atoms": 12, "mae": 0.5, "rmse": 0.75}
    table = element_table(
        {"dense": {"H": hydrogen}, "old": None, "pruned": {"H": hydrogen | {"rmse": 2.0}, "O": {}}},
        "Forces",
    )
    assert table is not None
    assert table.header == ["element", "atoms"] + [
        *("dense RMSE", "pruned RMSE", "dense MAE", "pruned MAE")
    ]
    assert table.body[0] == ["H", "12", "0.750", "2.00", "0.500", "0.500"]
    other = {"dense": {"H": hydrogen}, "pruned": {"O": hydrogen}}
    rows = element_table(other, "Forces")
    assert rows is not None
    assert [row[1:4] for row in rows.body] == [["12", "0.750", "n/a"], ["12", "n/a", "0.750"]]
    assert element_table({"dense": None, "pruned": 3}, "Forces") is None
