"""Errors by type of structure on a page."""

from __future__ import annotations

from typing import Any

import pytest
from test_report_page import EVIL

from egnn_prune.report.common.page import Section, Text, render
from egnn_prune.report.common.tables import Table
from egnn_prune.report.common.type_tables import type_blocks

LABELS = {"dense": "dense", "pruned": "pruned", "scratch": "scratch"}


def stored(name: str = "hot") -> dict[str, Any]:
    errors = {
        "dense": [0.25, 0.125, 0.5],
        "pruned": [0.5, 0.25, 1.0],
        "difference": [0.25, 0.125, 0.375],
    }
    return {
        "errors_by_type": {
            "units": {"energy": "eV", "force": "eV/Angstrom"},
            "compared": ["pruned", "dense"],
            "left_out": 3,
            "types": {
                name: {"structures": 12, "energy_mae": errors, "force_mae": errors},
                "lone": {"structures": 1, "energy_mae": {"dense": [1.0, None, None]}},
            },
        }
    }


def test_a_table_for_each_kind_of_error_with_the_change_last():
    about, forces, energies = type_blocks(stored(), LABELS)
    assert isinstance(about, Text) and " 3 types with fewer structures are left out." in about.text
    assert isinstance(forces, Table) and isinstance(energies, Table)
    assert forces.title == "MAE of the forces, in eV/Angstrom"
    assert energies.title == "MAE of the energy, in eV"
    assert energies.header == ["type", "structures", "dense", "pruned", "pruned less dense"]
    hot, lone = energies.body
    assert [*hot[:2], *hot[2][:1], hot[2].below] == ["hot", "12", "0.250", "[0.125, 0.500]"]
    assert hot[4] == ("+0.25", "bad", "", "[+0.125, +0.375]")
    assert lone[2] == ("1.00", "", "", "") and lone[3].text == lone[4].text == "n/a"
    assert "0.250 [0.125, 0.500]" in energies.text()


@pytest.mark.parametrize("low, high, style", [(-2.0, -1.0, "good"), (-1.0, 1.0, "")])
def test_a_change_is_coloured_where_its_interval_leaves_out_zero(low, high, style):
    metrics = stored()
    one = metrics["errors_by_type"]["types"]["hot"]
    one["energy_mae"] = one["energy_mae"] | {"difference": [low, low, high]}
    assert type_blocks(metrics, LABELS)[2].body[0][4].style == style


@pytest.mark.parametrize("found", [None, {}, [], 3, {"types": 3}, {"types": {"a": 1}}])
def test_nothing_where_there_are_no_types(found):
    assert type_blocks({"errors_by_type": found}, LABELS) == []


def test_names_of_types_are_no_markup():
    page = render("t", "h", [Section("s", type_blocks(stored(EVIL), LABELS))], config="", terms=())
    assert "<img" not in page and "&lt;img" in page
    assert '<br><span class="soft below">[0.125, 0.500]</span>' in page
