"""The figure of a simulation with a teacher behind it shows the numbers of its steps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from egnn_prune.errors import DataError
from egnn_prune.report.run.watched_dynamics import watched_dynamics_plot


def _rows(steps: int = 40) -> list[dict[str, Any]]:
    return [
        {
            "time_fs": 2.0 * i,
            "temperature_K": 300.0 + i,
            "max_force_std": 0.05 + 0.005 * i,
            "max_distance": 0.03 * i,
            "asked": i % 4 == 3,
            "reason": "",
            "checked_error": 0.06 + 0.001 * i if i % 10 == 0 else math.nan,
            "checked_inside": 0.9 + 0.001 * i if i % 10 == 0 else math.nan,
            "learned": i in (12, 30),
            "threshold": 0.1 if i < 12 else 0.12,
        }
        for i in range(steps)
    ]


def _lines(axes: Any) -> dict[str, Any]:
    return {str(line.get_label()): line for line in axes.lines}


def test_every_panel_shows_its_numbers() -> None:
    rows = _rows()
    bars, share, hot, strange, checks = watched_dynamics_plot(rows, title="heated").axes
    lines = _lines(bars)
    np.testing.assert_allclose(
        lines["longest error bar"].get_ydata(), [r["max_force_std"] for r in rows]
    )
    np.testing.assert_allclose(lines["threshold"].get_ydata(), [r["threshold"] for r in rows])
    asked = [r["time_fs"] / 1000 for r in rows if r["asked"]]
    np.testing.assert_allclose(lines["teacher answered"].get_xdata(), asked)
    np.testing.assert_allclose(lines["learned"].get_xdata(), 0.024)
    assert "10 of 40 steps (25.0 %)" in share.get_title("left")
    window_of_two = share.lines[0].get_ydata()
    assert set(np.round(window_of_two, 3)) == {0.0, 0.5}
    np.testing.assert_allclose(hot.lines[0].get_ydata(), [r["temperature_K"] for r in rows])
    assert "15.0 % of the time" in strange.get_title("left")  # 6 of 40 beyond 1
    error = _lines(checks)["error (RMS of all atoms)"]
    np.testing.assert_allclose(error.get_ydata(), [0.06, 0.07, 0.08, 0.09])
    np.testing.assert_allclose(error.get_xdata(), [0.0, 0.02, 0.04, 0.06])
    rms = 1000 * math.sqrt(np.mean(np.square([0.06, 0.07, 0.08, 0.09])))
    title = checks.get_title("left")
    assert title.startswith(f"4 random checks: RMS error {rms:.1f} meV/Å, 92 % of components in")


def test_what_was_not_recorded_is_not_drawn() -> None:
    keys = ("time_fs", "max_force_std", "asked")
    few = [{key: row[key] for key in keys} for row in _rows()]
    bars, share = watched_dynamics_plot(few, forces_threshold=0.2).axes
    assert set(_lines(bars)) == {"longest error bar", "teacher answered", "threshold"}
    assert set(_lines(bars)["threshold"].get_ydata()) == {0.2}
    assert "How unsure" in bars.get_title("left") and share.get_xlabel() == "time (ps)"


def test_without_a_teacher_the_steps_it_was_not_sure_of_are_shown() -> None:
    rows = [row | {"asked": False, "reason": "far" * (i % 4 == 3)} for i, row in enumerate(_rows())]
    share = watched_dynamics_plot(rows).axes[1]
    assert share.get_title("left").startswith("Not sure of 10 of 40 steps (25.0 %)")


def test_an_unknown_element_is_marked_at_the_top() -> None:
    rows = _rows(8)
    rows[3]["max_force_std"] = math.inf
    line = _lines(watched_dynamics_plot(rows).axes[0])
    assert math.isnan(line["longest error bar"].get_ydata()[3])
    assert line["teacher answered"].get_ydata()[0] == pytest.approx(0.085)


@pytest.mark.parametrize("rows", [[], [{"max_force_std": 0.1, "asked": False}]])
def test_steps_need_a_time(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(DataError, match="time_fs"):
        watched_dynamics_plot(rows)
