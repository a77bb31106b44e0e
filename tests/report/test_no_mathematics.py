"""Names come from strangers: no figure takes a ``$`` for the beginning of a formula."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import egnn_prune
from egnn_prune.report.common.style import house_style, new_figure, png_bytes

PACKAGE = Path(egnn_prune.__file__).parent
#: Where figures begin: for all reports, and for a metric that its user draws.
BEGINNINGS = {"report/common/style.py", "uncertainty/metrics/base.py"}


def test_figures_exist_in_the_house_style_only():
    with pytest.raises(AssertionError, match="house_style"):
        new_figure(2.0)
    with house_style():
        figure = new_figure(2.0)
        figure.text(0.5, 0.5, r"$\frac{1}{$ \undefined{x}^$")
    assert png_bytes(figure).startswith(b"\x89PNG")


def test_figures_begin_in_one_place():
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called.split(".")[-1] == "Figure" or called in ("plt.subplots", "plt.figure"):
                    found.add(str(path.relative_to(PACKAGE)))
    assert found == BEGINNINGS


def test_tables_of_text_are_written_in_one_place():
    """Other tables hold numbers, and words of our own."""
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if "csv.writer(" in (text := path.read_text()) or "csv.DictWriter(" in text
    }
    assert found == {"report/common/csv_file.py", "training/curve.py", "ase/dynamics_state.py"}
