"""Figures and tables of the two studies of selection: the right numbers in the right cells."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from egnn_prune.report.common.statistics import paired, paired_text, t_quantile
from egnn_prune.report.common.style import png_bytes
from egnn_prune.report.studies.learning_curve import (
    curve,
    learning_curve_plot,
    learning_curve_table,
)
from egnn_prune.report.studies.selection import selection_plot, selection_table

SEEDS = range(4)


@pytest.fixture
def study() -> list[dict[str, Any]]:
    """Seeds differ by 10 %; "top" is 0.001 better than random on test, 0.003 worse on OOD."""
    rows = []
    for replay in (0.5, 0.0):
        for strategy, gain in (("random", 0.0), ("top", 0.001), ("least", -0.02)):
            for seed in SEEDS:
                error = 0.1 * (1 + 0.1 * seed) + (0.05 if replay == 0 else 0)
                noise = 0.0001 * (-1) ** seed if strategy == "top" else 0
                rows.append(
                    {
                        "seed": seed,
                        "strategy": strategy,
                        "replay": replay,
                        "test_mae": error - gain + noise,
                        "ood_mae": 2 * error + 3 * gain,
                    }
                )
    return rows


@pytest.fixture
def curves() -> list[dict[str, Any]]:
    return [
        {
            "seed": seed,
            "strategy": strategy,
            "labelled": labelled,
            "test_mae": factor * (1 + 0.1 * seed) * 10 / labelled**0.5,
            "ood_mae": None,
        }
        for strategy, factor in (("random", 1.0), ("top", 0.9))
        for seed in SEEDS
        for labelled in (100, 400)
    ]


def line_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_differences_are_paired():
    new, old = {0: 1.1, 1: 2.1, 2: 3.1, 7: 9.0}, {2: 3.0, 1: 2.0, 0: 1.0, 8: 0.0}
    summary = paired(new, old)  # seeds 7 and 8 have no partner
    assert (summary.n, summary.mean) == (3, pytest.approx(0.1))
    assert summary.half == pytest.approx(0, abs=1e-12)
    assert paired_text(new, old) == "+0.100 (+5.0 %) [+0.100, +0.100]"
    assert paired_text({0: 1.0}, {0: 1.0000001}) == "+0.000 (+0.0 %)"  # not -0.000
    assert paired_text({0: 1.0}, {1: 1.0}) == "n/a"


def test_table_of_the_study(study):
    text = selection_table(study, "eV")
    assert text.splitlines()[0].split("  ")[0] == "strategy"
    top = line_of(text, "top")
    half = t_quantile(3) * np.std([1e-4, -1e-4, 1e-4, -1e-4], ddof=1) / 2
    assert f"-0.0010 (-0.9 %) [{-0.001 - half:+.4f}, {-0.001 + half:+.4f}]" in top
    assert "+0.0030 (+1.3 %) [+0.0030, +0.0030]" in top
    assert "0.114 ± 0.013" in top and top.split()[1:3] == ["0.5", "4"]
    assert "[" not in line_of(text, "random")
    # compared with random selection of the same replay
    assert "+0.0200 (+17.4 %) [+0.0200, +0.0200]" in line_of(text, "least")
    zero = [line for line in text.splitlines() if line.startswith("least")][1]
    assert "+0.0200 (+12.1 %)" in zero


def test_forest_plot(study):
    figure = selection_plot(study, "eV", steps=300)
    test, ood = figure.axes
    assert [axes.get_title(loc="left").split(":")[0] for axes in figure.axes] == ["test", "OOD"]
    assert [label.get_text() for label in test.get_yticklabels()] == ["top", "least"]
    dots = test.containers[0].lines[0]
    assert dots.get_xdata() == pytest.approx([-0.001, 0.02])
    assert ood.containers[0].lines[0].get_xdata() == pytest.approx([0.003, -0.06])
    assert dots.get_ydata()[0] < test.containers[1].lines[0].get_ydata()[0]  # replays apart
    assert png_bytes(figure).startswith(b"\x89PNG")
    one = [row for row in study if row["seed"] == 0]
    assert "one seed" in selection_plot(one).get_suptitle()


def test_curve(curves):
    found = curve(curves, "top", "test_mae")
    assert list(found) == [100, 400]
    assert found[400].mean == pytest.approx(0.9 * 1.15 * 0.5)
    spread = 0.9 * 0.5 * np.std([1.0, 1.1, 1.2, 1.3], ddof=1)
    assert found[400].half == pytest.approx(t_quantile(3) * spread / 2)


def test_curve_table(curves):
    text = learning_curve_table(curves, "eV")
    means, differences = text.split("\n\n")  # nothing about OOD: there is none
    assert line_of(means, "random").split() == "random 1.15 ± 0.13 0.575 ± 0.065".split()
    assert "-0.115 (-10.0 %)" in line_of(differences, "top")
    assert "-0.0575 (-10.0 %)" in line_of(differences, "top")
    assert "random" not in differences.splitlines()[2]


def test_curve_plot(curves):
    figure = learning_curve_plot(curves, "eV", steps=400)
    (axes,) = figure.axes
    assert axes.get_xticks().tolist() == [100, 400]
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["top"].get_ydata() == pytest.approx([0.9 * 1.15, 0.9 * 1.15 / 2])
    (band,) = axes.collections[1].get_paths()
    summary = curve(curves, "top", "test_mae")[100]
    assert band.vertices[:, 1].max() == pytest.approx(summary.mean + summary.half)
    assert png_bytes(figure).startswith(b"\x89PNG")


def test_an_unfinished_seed_is_left_out_of_the_difference(curves):
    text = learning_curve_table(curves[:-1], "eV")  # seed 3 of "top" lacks 400 graphs
    assert "(-10.0 %)" in line_of(text.split("\n\n")[1], "top").split("]")[1]
    assert math.isfinite(curve(curves[:-1], "top", "test_mae")[400].half)
