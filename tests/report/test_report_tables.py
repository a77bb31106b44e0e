"""The comparison and the ledger as text."""

from __future__ import annotations

import math
from typing import Any

import pytest

from egnn_prune.report import comparison_table, ledger_table
from egnn_prune.report.common.formatting import factor, percent_change, si, significant, times
from egnn_prune.report.run.tables import comparison_rows, headline, notes


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.05234, "0.0523"),
        (0.5, "0.500"),
        (12.0, "12.0"),
        (123.4, "123"),
        (999.7, "1000"),
        (1234.5, "1234"),
        (3.14e-7, "3.1e-07"),
        (-1.31, "-1.31"),
        (0.0, "0"),
        (math.nan, "n/a"),
        (math.inf, "n/a"),
    ],
)
def test_significant(value: float, text: str) -> None:
    assert significant(value) == text


def test_si_prefixes() -> None:
    assert si(312456) == "312 k"
    assert si(999_960) == "1.00 M"
    assert si(512) == "512"
    assert si(1_270_000, "B") == "1.27 MB"
    assert si(math.nan) == "n/a"


def test_ratios_in_words() -> None:
    assert times(1.0, 2.9, "fewer", "more") == "2.9x fewer"
    assert times(1.04, 1.0, "faster", "slower") == "1.04x slower"
    assert times(1.001, 1.0, "faster", "slower") == "same"
    assert times(math.nan, 1.0, "faster", "slower") == "n/a"
    assert times(0.0, 1.0, "faster", "slower") == "n/a"
    assert factor(12.34) == "12x"
    assert percent_change(1.031, 1.0) == "+3.1 %"
    assert percent_change(1.0, 0.0) == "n/a"


def test_comparison_table_contents(metrics: dict[str, Any]) -> None:
    lines = comparison_table(metrics).splitlines()
    assert lines[0].split()[:4] == ["unit", "dense", "pruned", "scratch"]
    mae = next(line for line in lines if line.startswith("Test MAE"))
    assert mae.split()[2:8] == ["eV", "0.0523", "0.0534", "0.0591", "+2.1", "%"]
    assert mae.endswith("[+0.4, +3.8]")
    macs = next(line for line in lines if line.startswith("MACs"))
    assert "41.2 M" in macs and "15.3 M" in macs and macs.endswith("2.7x fewer")
    assert any(
        "batch of 64" in line and line.split()[-3:] == ["faster", "[2.22,", "2.38]"]
        for line in lines
    )
    assert max(map(len, lines)) <= 120


def test_rows_know_what_is_better(metrics: dict[str, Any]) -> None:
    rows = {row.key: row for row in comparison_rows(metrics)}
    assert rows["test_mae"].better is False
    assert rows["macs_per_graph"].better is True
    assert rows["equivariance_error"].better is None
    # no interval, or one that holds both: what is better cannot be told
    assert rows["spearman_error_uncertainty"].better is None
    metrics["intervals"]["test_mae"] = [-0.01, 0.04]
    assert {row.key: row for row in comparison_rows(metrics)}["test_mae"].better is None
    metrics["intervals"]["test_mae"] = [0.0, 0.0]
    metrics["models"]["pruned"]["test_mae"] = metrics["models"]["dense"]["test_mae"] * 1.00001
    assert {row.key: row for row in comparison_rows(metrics)}["test_mae"].better is None


def test_before_and_after_recalibration(calibrated_metrics: dict[str, Any]) -> None:
    lines = comparison_table(calibrated_metrics).splitlines()
    assert max(map(len, lines)) <= 120
    cells = {line[:22].strip(): line[22:].split() for line in lines}
    assert cells["ENCE"][:6] == ["0.200", "→", "0.100", "0.320", "→", "0.100"]
    assert cells["ENCE"][-2:] == ["[-0.020,", "+0.020]"], "of the calibrated ones"
    assert cells["CRPS"][:4] == ["eV", "0.0410", "→", "0.0390"]
    assert cells["Coverage of 90 %"][-3:] == ["-0.036", "→", "+0.000"]
    assert cells["AUSE"] == ["0.400", "0.400", "0.400", "+0.000"], "no arrow to the same number"
    assert {"Miscalibration area", "OOD AUROC", "NLL, test"} <= set(cells)


@pytest.mark.parametrize(
    ("dense", "pruned", "better"),
    [(0.80, 0.88, True), (0.90, 0.97, False), (0.85, 0.94, True), (0.95, 0.95, None)],
)
def test_coverage_is_best_at_its_level(
    calibrated_metrics: dict[str, Any], dense: float, pruned: float, better: bool | None
) -> None:
    calibrated_metrics["models"]["dense"]["coverage_90_calibrated"] = dense
    calibrated_metrics["models"]["pruned"]["coverage_90_calibrated"] = pruned
    calibrated_metrics["intervals"]["coverage_90_calibrated"] = [0.01, 0.1]
    rows = {row.key: row for row in comparison_rows(calibrated_metrics)}
    assert rows["coverage_90"].better is better


def test_without_recalibration_the_first_number_counts(calibrated_metrics: dict[str, Any]) -> None:
    for model in calibrated_metrics["models"].values():
        model["ence_calibrated"] = None
    row = {row.key: row for row in comparison_rows(calibrated_metrics)}["ence"]
    assert row.better is False and row.change == "+0.120"
    assert row.texts["pruned"] == "0.320"
    calibrated_metrics["models"]["dense"]["ence_calibrated"] = 0.05
    row = {row.key: row for row in comparison_rows(calibrated_metrics)}["ence"]
    assert row.texts == {"dense": "0.200 → 0.0500", "pruned": "0.320", "scratch": "0.240"}
    assert row.better is False, "what only one model has is not compared"


def test_absent_scratch_and_missing_values(metrics: dict[str, Any]) -> None:
    del metrics["models"]["scratch"]
    for model in metrics["models"].values():
        model["ood_mae"] = None
    metrics["models"]["pruned"]["latency_ms"] = math.nan
    table = comparison_table(metrics)
    assert "scratch" not in table
    assert "OOD" not in table, "a quantity nobody has is left out"
    latency = next(line for line in table.splitlines() if line.startswith("Latency"))
    assert latency.split()[-3:] == ["12.4", "n/a", "n/a"]
    assert headline(metrics) == "37 % of the MACs, test error +2.1 % [+0.4, +3.8]"


def test_scratch_may_be_null(metrics: dict[str, Any]) -> None:
    metrics["models"]["scratch"] = None
    assert "scratch" not in comparison_table(metrics)


def test_headline_and_notes(metrics: dict[str, Any]) -> None:
    known = "2.3x faster [2.22, 2.38], 37 % of the MACs, test error +2.1 % [+0.4, +3.8]"
    assert headline(metrics) == known
    assert headline(metrics, intervals=False) == "2.3x faster, 37 % of the MACs, test error +2.1 %"
    scratch, baseline = notes(metrics)
    assert "is 9.6 % lower than that of the same shape" in scratch and "[-12.0, -7.0]" in scratch
    assert "0.610 eV" in baseline


def test_no_proud_count_where_time_is_not_saved(metrics: dict[str, Any]) -> None:
    dense, pruned = (metrics["models"][name] for name in ("dense", "pruned"))
    pruned["latency_ms"] = 0.98 * dense["latency_ms"]
    metrics["intervals"]["latency_ms"] = [-0.05, 0.02]
    said = notes(metrics)[0]
    assert "51 % of the channels and 63 % of the multiplications are gone, but" in said
    assert "takes 0.98 of the dense time (95 % interval 0.95 to 1.02)" in said
    assert "overhead, not channels" in said and said in comparison_table(metrics)
    metrics["intervals"]["latency_ms"] = [-0.05, -0.01]
    assert "of the dense time" not in comparison_table(metrics)
    del metrics["intervals"]["latency_ms"]
    assert "of the dense time" not in comparison_table(metrics), "nothing is known of its spread"
    pruned["latency_ms"] = 1.1 * dense["latency_ms"]
    assert "takes 1.10 of the dense time: at this size" in comparison_table(metrics)


def test_a_network_that_learned_nothing_proves_nothing(metrics: dict[str, Any]) -> None:
    assert not headline(metrics).startswith("hardly") and len(notes(metrics)) == 2
    metrics["models"]["dense"]["test_mae"] = 0.6
    assert headline(metrics).startswith("hardly trained: 2.3x faster")
    assert "0.600 eV, without any network it is 0.610" in notes(metrics)[0]
    metrics["dataset"]["mean_predictor_mae"] = None
    assert "hardly" not in comparison_table(metrics) + headline(metrics)


def test_the_interval_of_a_time_holds_the_number_beside_it(metrics: dict[str, Any]) -> None:
    dense, pruned = (metrics["models"][name] for name in ("dense", "pruned"))
    pruned["latency_ms"] = dense["latency_ms"] / 1.07
    metrics["intervals"]["latency_ms"] = [-0.24, 0.05]
    table = comparison_table(metrics)
    line = next(line for line in table.splitlines() if line.startswith("Latency"))
    assert line.endswith("[0.95, 1.32]") and "1.07x faster" in line
    assert headline(metrics, intervals=False).startswith("same latency, "), "as with them"


def test_the_table_says_how_it_is_read(metrics: dict[str, Any]) -> None:
    table = comparison_table(metrics)
    assert ("a → b: before and after calibration; " in table) == (" → " in table.split("a → b")[0])
    assert "[a, b]: 95 % interval. What the words mean: at the end of report.html." in table


def test_without_an_interval_it_cannot_be_told(metrics: dict[str, Any]) -> None:
    metrics["intervals"] = {"latency_ms": [-0.1, 0.1], "test_mae_scratch": [-0.1, 0.02]}
    unknown = "(no interval: cannot be told)"
    expected = f"same latency [0.90, 1.10], 37 % of the MACs, test error +2.1 % {unknown}"
    assert headline(metrics) == expected
    slow, scratch, _ = notes(metrics)
    assert "a batch of 64 takes 0.43 of the dense time (95 % interval 0.90 to 1.10)" in slow
    assert "times scatter too much" in slow
    assert "cannot be told from that (-9.6 %) of the same shape" in scratch
    del metrics["intervals"]
    assert headline(metrics).count(unknown) == 2
    assert "cannot be told from that" in notes(metrics)[0]
    assert not any(r.interval for r in comparison_rows(metrics))


def test_forces_come_first(metrics: dict[str, Any]) -> None:
    for name, force in (("dense", 0.100), ("pruned", 0.1037), ("scratch", 0.2)):
        metrics["models"][name] |= {"test_force_mae": force, "ood_force_mae": None}
    metrics["models"]["pruned"]["test_mae"] = 0.834 * metrics["models"]["dense"]["test_mae"]
    metrics["intervals"] |= {"test_force_mae": [0.02, 0.05], "test_mae": [-0.3, 0.01]}
    said = headline(metrics)
    assert "test force error +3.7 % [+2.0, +5.0], test energy error -16.6 % [-30.0, +1.0]" in said
    rows = comparison_rows(metrics)
    assert [row.label for row in rows[:2]] == ["Test force MAE", "Test energy MAE"]
    assert rows[0].better is False and rows[1].better is None
    assert "force MAE cannot be told from that" in notes(metrics)[0]
    assert comparison_table(metrics).splitlines()[2].startswith("Test force MAE")


def test_ledger_sums(metrics: dict[str, Any]) -> None:
    lines = ledger_table(metrics).splitlines()
    assert len(lines) == 2 + len(metrics["ledger"]) + 1
    assert lines[-1].split()[:3] == ["all", "312", "k"]
    assert lines[-1].endswith("39 %")


def test_ledger_may_be_empty(metrics: dict[str, Any]) -> None:
    del metrics["ledger"]
    assert len(ledger_table(metrics).splitlines()) == 2


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema_version",), 2, "schema_version"),
        (("models",), [], "models must be a mapping"),
        (("models", "pruned"), None, "models.pruned"),
        (("models", "scratch"), 3, "models.scratch"),
        (("models", "dense", "test_mae"), "0.05", "models.dense.test_mae"),
        (("models", "dense", "params"), None, "models.dense.params"),
        (("models", "dense", "macs_per_graph"), True, "models.dense.macs_per_graph"),
        (("dataset", "unit"), None, "dataset.unit"),
        (("ledger",), {}, "ledger must be a list"),
        (("ledger",), [{"total": 1}], r"ledger\[0\]"),
        (("pruning",), 1, "pruning must be a mapping"),
        (("pruning", "groups"), [1], r"pruning.groups\[0\]"),
    ],
)
def test_malformed_metrics(
    metrics: dict[str, Any], path: tuple[str, ...], value: object, message: str
) -> None:
    parent = metrics
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        comparison_table(metrics)


def test_metrics_must_be_a_mapping() -> None:
    with pytest.raises(ValueError, match="must be a mapping"):
        comparison_table([])  # type: ignore[arg-type]


def test_unequal_steps_are_said_with_their_numbers(metrics: dict[str, Any]) -> None:
    metrics["steps"] = {"dense": [900], "baseline": [300], "pruned": [300], "scratch": [900, 300]}
    assert not any("steps" in said for said in notes(metrics))
    metrics["steps"] |= {"pruned": [1120], "scratch": [900, 200]}
    (said,) = [said for said in notes(metrics) if "steps" in said]
    assert said.endswith(
        "after the first 900 the dense model took 300 extra steps and the pruned one 1,120; the "
        "same shape from scratch 1,100 in all."
    )
    metrics["steps"] = {"dense": [10, 10], "baseline": [30], "pruned": [20]}
    assert any(": the dense model took 30 extra steps and" in said for said in notes(metrics))
    metrics["steps"] |= {"pruned": None}  # a stage of an earlier version
    assert not any("steps" in said for said in notes(metrics))


def test_a_title_without_intervals_claims_no_speed_that_is_not_certain(metrics: Any) -> None:
    metrics["intervals"]["latency_ms"] = [-0.6, 0.1]
    assert headline(metrics).startswith("same latency [0.91, 2.50]"), "times faster"
    assert headline(metrics, intervals=False).startswith("same latency, ")
