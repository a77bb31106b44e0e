"""Criteria against each other: statistics, CSV, table and plot."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egnn_prune.report.common.csv_file import write_rows
from egnn_prune.report.common.statistics import summarise, t_quantile
from egnn_prune.report.common.style import png_bytes
from egnn_prune.report.studies.comparison import COLUMNS, comparison_plot, summary_table

Rows = list[dict[str, Any]]


def test_t_quantiles() -> None:
    # Reference values from scipy.stats.t.ppf(0.975, df).
    for freedom, value in ((1, 12.7062), (4, 2.7764), (30, 2.0423), (40, 2.0211), (200, 1.9719)):
        assert t_quantile(freedom) == pytest.approx(value, abs=2e-4)
    with pytest.raises(ValueError, match="degrees of freedom"):
        t_quantile(0)


def test_summarise() -> None:
    summary = summarise([1.0, 2.0, 3.0, math.nan])
    assert (summary.n, summary.mean, summary.sd) == (3, 2.0, 1.0)
    assert summary.half == pytest.approx(4.302653 / math.sqrt(3))
    assert summarise([5.0]).mean == 5.0 and math.isnan(summarise([5.0]).half)
    assert summarise([]).n == 0 and math.isnan(summarise([]).mean)


def test_csv_round_trip(comparison: Rows, tmp_path: Path) -> None:
    comparison[0]["nll"] = math.nan
    comparison[1]["extra"] = "x,y"
    del comparison[2]["ood_mae"]
    path = write_rows(comparison, tmp_path / "new" / "rows.csv", COLUMNS)
    with path.open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert len(read) == len(comparison)
    assert float(read[0]["test_mae"]) == comparison[0]["test_mae"]
    assert read[0]["nll"] == "" and read[2]["ood_mae"] == ""
    assert read[1]["extra"] == "x,y"
    assert [entry.name for entry in path.parent.iterdir()] == ["rows.csv"]


def test_formulas_are_text_and_numbers_stay_numbers(tmp_path: Path) -> None:
    numbers = ["-0.5", "+3", "-1e-3", "-.5", "12"]
    formulas = ["=1+1", "-1+1", "+cmd|'/C calc'!A0", "@SUM(A1)", "\t=1", "-", "-1_0", "-inf"]
    rows = [{"=name": text, "value": -0.5} for text in (*numbers, *formulas)]
    path = write_rows(rows, tmp_path / "rows.csv")
    with path.open(newline="", encoding="utf-8") as file:
        header, *read = csv.reader(file)
    assert header == ["'=name", "value"]
    assert [row[0] for row in read] == [*numbers, *(f"'{text}" for text in formulas)]
    assert {row[1] for row in read} == {"-0.5"}


def test_summary_table(comparison: Rows) -> None:
    lines = summary_table(comparison).splitlines()
    assert len(lines) == 2 + 1 + 9
    assert "test MAE (eV)" in lines[0]
    assert lines[2].split()[:5] == ["dense", "0", "3", "100", "%"]
    assert "±" in lines[2] and "[" not in lines[2]
    random = next(line for line in lines if line.startswith("random") and " 0.7 " in line)
    differences = [
        row["test_mae"] - dense["test_mae"]
        for row in comparison
        if row["arm"] == "random" and row["sparsity"] == 0.7
        for dense in comparison
        if dense["arm"] == "dense" and dense["seed"] == row["seed"]
    ]
    half = 4.3027 * np.std(differences, ddof=1) / math.sqrt(3)
    mean = np.mean(differences)
    assert f"{mean:+.4f}" in random
    assert f"[{mean - half:+.4f}, {mean + half:+.4f}]" in random


def test_one_seed_has_no_spread(comparison: Rows) -> None:
    rows = [row for row in comparison if row["seed"] == 0]
    table = summary_table(rows)
    assert "±" not in table and "[+" not in table and "[-" not in table
    figure = comparison_plot(rows)
    assert all(not axes.collections for axes in figure.axes)
    assert png_bytes(figure)


def test_plot_has_a_line_and_a_band_per_arm(comparison: Rows) -> None:
    figure = comparison_plot(comparison)
    error, likelihood = figure.axes
    assert len(error.collections) == 3
    assert {line.get_label() for line in error.lines} >= {
        "dense",
        "uncertainty",
        "magnitude",
        "random",
    }
    assert "MAE (eV)" in error.get_ylabel() and "NLL" in likelihood.get_ylabel()
    assert "95 % interval over 3 seeds" in likelihood.get_title("right")
    colours = {line.get_color() for line in error.lines if not line.get_label().startswith("_")}
    assert len(colours) == 4


def test_plot_falls_back_to_ood(comparison: Rows) -> None:
    for row in comparison:
        row["nll"] = None
    assert "OOD MAE" in comparison_plot(comparison).axes[1].get_ylabel()


def test_arm_with_one_sparsity_and_no_dense(comparison: Rows) -> None:
    rows = [row for row in comparison if row["arm"] == "random" and row["sparsity"] == 0.5]
    assert "n/a" in summary_table(rows)
    assert png_bytes(comparison_plot(rows))


def test_malformed_rows(comparison: Rows) -> None:
    with pytest.raises(ValueError, match="no rows"):
        summary_table([])
    with pytest.raises(ValueError, match="twice"):
        summary_table([*comparison, comparison[3]])
    with pytest.raises(ValueError, match="different units"):
        comparison_plot([*comparison[1:], comparison[0] | {"unit": "kcal/mol"}])
    with pytest.raises(ValueError, match="row 0 lacks test_mae"):
        comparison_plot([{"seed": 0, "arm": "dense", "macs_per_graph": 1}])
    with pytest.raises(ValueError, match="finite sparsity"):
        comparison_plot([comparison[1] | {"sparsity": None}])


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    rows = [{"name": f"{sign}1+cmd", "value": -1.5} for sign in "=+-@\t"] + [{"name": "a=b\r1"}]
    path = write_rows(rows, tmp_path / "rows.csv")
    with path.open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["name"] for row in read] == [*(f"'{row['name']}" for row in rows[:-1]), "a=b 1"]
    assert [row["value"] for row in read] == ["-1.5"] * 5 + [""]
