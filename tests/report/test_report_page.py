"""What both pages share: the glossary as data and values as text."""

from __future__ import annotations

import pytest

from egnn_prune.report.common.page import as_text, glossary, pairs
from egnn_prune.report.images.page import KINDS

WORDS = {"graph": "graph", "value": "coordinate", "equivariance": "It turns."}


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
