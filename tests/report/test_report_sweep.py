"""Figure and tables of a sweep: the right numbers in the right cells."""

from __future__ import annotations

import pytest

from egnn_prune.report.common.style import png_bytes
from egnn_prune.report.studies.sweep import cell, criteria_of, rivals_table, sweep_plot, sweep_table


@pytest.fixture
def rows() -> list[dict]:
    found = []
    for seed in range(3):
        base = {"seed": seed, "macs_share": 1.0, "before_test_mae": 0.1 + 0.01 * seed}
        found.append({**base, "criterion": "dense", "sparsity": 0.0, "test_mae": 0.1})
        for sparsity in (0.5, 0.9):
            for criterion, worse in (("uncertainty", 1.0), ("taylor", 1.1), ("random", 2.0)):
                error = 0.1 * (1 + sparsity) * (1 + 0.1 * seed)
                found.append(
                    {
                        **base,
                        "criterion": criterion,
                        "sparsity": sparsity,
                        "macs_share": (1 - sparsity) ** 2,
                        "test_mae": worse * error,
                        "before_test_mae": 2 * worse * error,
                    }
                )
    return found


def test_cells(rows):
    assert criteria_of(rows) == ["uncertainty", "taylor", "random"]
    summary = cell(rows, "taylor", 0.5, "test_mae")
    assert summary.n == 3 and summary.mean == pytest.approx(0.11 * 1.5 * 1.1)
    assert summary.sd == pytest.approx(0.11 * 1.5 * 0.1)


def test_table(rows):
    lines = sweep_table(rows, "eV").splitlines()
    assert lines[0].split() == "test_mae, eV sparsity 0.5 sparsity 0.9".split()
    taylor = next(line for line in lines if line.startswith("taylor"))
    assert taylor.split() == "taylor 0.182 ± 0.017 0.230 ± 0.021".split()
    assert lines[2].split()[:2] == ["dense", "0.100"]


def test_rivals_are_paired_by_seed(rows):
    """The seeds differ by 10 %, the ratio within a seed does not differ at all."""
    lines = rivals_table(rows).splitlines()
    taylor = next(line for line in lines if line.startswith("taylor"))
    assert taylor.split() == ["taylor", *["+10.0", "[+10.0,", "+10.0]"] * 3]
    assert any(line.startswith("random") and "+100.0" in line for line in lines)


def test_rivals_leave_unfinished_seeds_out(rows):
    lines = rivals_table(rows[:-1]).splitlines()
    assert "+100.0 [+100.0, +100.0]" in next(x for x in lines if x.startswith("random"))


def test_plot(rows):
    figure = sweep_plot(rows, "eV", steps=400)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["as pruned", "after 400 steps", "after 400 steps, by cost"]
    labels = figure.axes[1].get_legend_handles_labels()[1]
    assert set(labels) == {"uncertainty", "taylor", "random", "dense"}
    g = (1.0 * 1.1 * 1.2) ** (1 / 3)  # geometric mean over the seeds
    line = figure.axes[1].containers[0].lines[0]
    assert line.get_ydata() == pytest.approx([0.1 * 1.5 * g, 0.1 * 1.9 * g])
    assert png_bytes(figure).startswith(b"\x89PNG")
    assert sweep_plot(rows[:7]) is not None  # one seed: no intervals


def test_cost_is_measured_time_where_all_rows_have_it(rows):
    assert sweep_plot(rows).axes[2].get_xlabel() == "MACs left"
    timed = [{**row, "latency_share": 0.1 + 0.9 * row["macs_share"]} for row in rows]
    axes = sweep_plot(timed).axes[2]
    assert axes.get_xlabel() == "time left"
    (line, *_) = [line for line in axes.lines if len(line.get_xdata()) == 2]
    assert sorted(line.get_xdata()) == pytest.approx([0.1 + 0.9 * 0.01, 0.1 + 0.9 * 0.25])
    assert sweep_plot([*timed[:-1], rows[-1]]).axes[2].get_xlabel() == "MACs left"
