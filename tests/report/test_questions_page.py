"""Primary comparisons of the study from made-up rows, each in the direction the protocol says."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import pytest
from scipy.optimize import minimize_scalar

from egnn_prune.errors import InputError
from egnn_prune.report.studies.questions import forgotten, page, primary, tables
from egnn_prune.report.studies.questions.figure import questions_plot
from egnn_prune.report.studies.questions.page import questions_text, results_page, stored_rows
from egnn_prune.report.studies.questions.primary import (
    PRIMARY,
    at_best_rate,
    best_nll,
    by_share,
    calibration_loss,
    on_the_rest,
)
from egnn_prune.report.studies.questions.tables import TABLES
from egnn_prune.studies.questions import networks, uncertainty
from egnn_prune.studies.questions.forms import FORMS
from egnn_prune.system.files import read_json

SEEDS = range(5)
ROOT = Path(__file__).parents[2]


def of(question: str, rows: list[dict]) -> list[dict]:
    return [{"question": question, **row} for row in rows]


def scratch_rows() -> list[dict]:
    error = {"inherited": 50.0, "scratch": 100.0, "other": 90.0, "full": 40.0}
    rows = [
        {"seed": s, "size": size, "steps": n, "arm": arm, "rate": rate, "seconds": float(n)}
        | {"val": e + 1000 * (rate == 0.1), "force_rmse": e * 200 / n + s + 500 * (rate == 0.1)}
        for s in SEEDS
        for size in (1000, 100, 8000)
        for n in (200, 2000)
        for arm, e in error.items()
        for rate in ((0.01, 0.1) if size == 1000 and not s else (0.01,))
    ]
    return of("scratch", rows)


def test_of_several_rates_the_one_with_the_lowest_validation_error_counts():
    best = at_best_rate(scratch_rows())
    assert {row["rate"] for row in best} == {0.01} and len(best) == 5 * 3 * 2 * 4


def test_inherited_against_scratch():
    found = PRIMARY["scratch"](scratch_rows())
    assert [c.label.split("scratch, ")[1] for c in found] == [
        "100 structures, 200 steps",
        "1,000 structures, 2,000 steps",
        "8,000 structures, 2,000 steps",
        "1,000 structures, 200 steps against 2,000 steps",
    ]
    assert found[0].by_seed[0] == pytest.approx(math.log(50 / 100))
    assert found[3].by_seed[0] == pytest.approx(math.log(50 / 10))
    assert all(c.yes == -1 and c.ratio for c in found)


def test_what_the_others_need_for_the_error_of_inherited_weights():
    """In the made-up rows errors fall as 1 / steps, by factors of 50, 100, 90 and 40."""
    rows = [row for row in scratch_rows() if row["seed"] == 0]
    lines = TABLES["scratch"](rows, 5).splitlines()
    assert lines[-2] == (  # seconds are steps there
        "| 8,000 | 200 (200) | 400 (400) | 360 (360) | at most 200 (200) |"
    )
    longest = "more than 2,000 (0 of 1 seeds reach it)"
    assert lines[-1] == f"| 8,000 | 2,000 (2000) | {longest} | {longest} | 1600 (1600) |"
    assert lines[-8].split(" | ")[2] == "scratch needs, steps (processor seconds)"
    slow = [
        {**row, "force_rmse": row["force_rmse"] * 100 ** (row["arm"] == "scratch")} for row in rows
    ]
    assert "| 200 (200) | more than 2,000 (0 of 1 seeds reach it) | 360 (360) |" in TABLES[
        "scratch"
    ](slow, 5)


def test_scores_are_compared_over_all_budgets():
    factor = {"force": 1.0, "taylor": 2.0, "magnitude": 4.0, "random": 8.0}
    rows = [
        {"part": "fit", "seed": s, "score": score, "budget": b, "compensated": c, "before": 1.0}
        | {"force_rmse": f * (100 / b) * (1 if c else 3)}
        for s in SEEDS
        for score, f in factor.items()
        for b in (0.7, 0.5)
        for c in (False, True)
    ]
    found = PRIMARY["budgets"](of("budgets", rows))
    assert [c.by_seed[0] for c in found] == pytest.approx(
        [-math.log(2), -math.log(4), -math.log(8), -math.log(3)]
    )


def calibration_rows() -> list[dict]:
    rows = []
    for s in SEEDS:
        for system in ("ethanol", "3bpa"):
            one = {"seed": s, "system": system, "method": "last_layer", "spearman": 0.5}
            one |= {"energy_coverage_90": 0.9, "force_rmse": 50.0}
            rows.append({**one, "share": 0.0, "point": "before", "m": 1.0, "log_std": -3.0})
            points = {"right after": (16.0, -3.0), "old calibration": (2.0, -2.5)}
            points["recalibrated"] = (1.0, -2.4 if system == "ethanol" else -2.6)
            for point, (m, log_std) in points.items():
                rows.append({**one, "share": 0.75, "point": point, "m": m, "log_std": log_std})
    for row in rows:
        row["coverage_90"] = 0.9 - 0.1 * (row["point"] == "recalibrated")
    return of("calibration", rows)


def test_calibration_loss_is_what_the_best_factor_would_gain():
    row = {"m": 3.0, "log_std": -2.0}

    def nll(log_s: float) -> float:  # without the constant
        return row["log_std"] + log_s + 0.5 * row["m"] * math.exp(-2 * log_s)

    best = minimize_scalar(nll).fun
    assert calibration_loss(row) == pytest.approx(nll(0.0) - best)
    assert best_nll(row) == pytest.approx(best - 0.5)


def test_losses_of_calibration_and_accuracy():
    after, old, new, covered = PRIMARY["calibration"](calibration_rows())
    assert after.by_seed[0] == pytest.approx(0.5 * (16 - 1 - math.log(16)) - 0.5 * math.log(16))
    assert old.by_seed[0] == pytest.approx(0.5 * (1 - math.log(2)) - (0.5 + 0.5 * math.log(2)))
    assert new.by_seed[0] == pytest.approx(-0.5)  # mean of the two systems
    assert covered.by_seed[0] == pytest.approx(-0.1) and covered.yes == -1


def test_damage_and_its_tail():
    rows = [
        {"part": "damage", "seed": s, "network": n, "error_bar": 0.6, "distance": 0.5}
        | {"strain": 0.4, "tail": 0.7, "tail_of_full": 0.4, "test": [1, 2], "hot": [3, 4]}
        | {"elements": {"1": [1, 2]}}
        for s in SEEDS
        for n in ("cut", "small")
    ]
    for row in rows:
        if row["network"] == "cut":
            row["error_bar"] = -1.0
    found = PRIMARY["forgetting"](of("forgetting", rows))
    assert [c.by_seed[2] for c in found] == pytest.approx([0.6, 0.5, 0.4, 0.3])


def test_damage_of_atoms_and_broken_molecules_are_told_over_the_seeds():
    rows = [
        {"part": "damage", "seed": s, "network": "small", "error_bar": 0.6, "distance": 0.5}
        | {"strain": 0.4, "tail": 0.7, "tail_of_full": 0.4, "test": [1, 2], "hot": [3, 4]}
        | {"elements": {"1": [1, 2]}, "damage": [1.0, 2.0] * 20, "bars": [1.0, 3.0] * 20}
        for s in SEEDS
    ]
    for s in SEEDS:
        atoms = {"part": "atoms", "seed": s, "network": "small", "error_bar": 0.1 * s}
        atoms |= {"distance": 0.2, "within": {"H": 0.3}}
        rows.append(atoms | {"bonds": {"C 4": [50.0, 100.0, 10], "C 3": [1.0, 1.0, 10]}})
        whole = {"1000": [1.0, 1.0], "2000": [1.0, 0.25 if s == 2 else 1.0]}
        rows.append(
            {
                "part": "heated",
                "seed": s,
                "network": "small",
                "whole_ps": whole,
                "ps": 1.0,
                "force_rmse": 50.0,
            }
        )
    del rows[-2]["bonds"]["C 3"]  # of the last seed
    text = TABLES["forgetting"](of("forgetting", rows), len(SEEDS))
    mean = statistics.mean(0.1 * s for s in SEEDS)
    spread = statistics.stdev(0.1 * s for s in SEEDS)
    assert f"| small | {mean:.2f} ± {spread:.2f} | 0.20 ± 0.00 | 0.30 ± 0.00 |" in text
    assert "| small | C, 4 bonds | 10 | 50.0 | 100 | 2.00 |" in text and "C, 3" not in text
    count = 2 * len(SEEDS)
    assert f"| small | 50.0 ± 0.0 | 0 of {count} | 1 of {count}, the first after 0.25 ps |" in text


def test_uncertain_against_random():
    rows = [
        {"part": part, "seed": s, "kind": kind, "rare": rare, "choice": choice}
        | {key: 80.0 if choice == "uncertain" else 100.0, "cold": 1.0, "hot": 1.0}
        | {
            "common_force_rmse": 1.25 if choice == "uncertain" else 1.0,
            "rare_chosen": 1,
            "hot_chosen": 1,
        }
        for s in SEEDS
        for part, kind, rare, key in (
            ("label", "hot", 0.05, "rare_force_rmse"),
            ("label", "hot", 0.6, "rare_force_rmse"),
            ("label", "bond", 0.05, "rare_force_rmse"),
            ("tune", None, 0.05, "force_rmse"),
            ("tune", None, 0.6, "force_rmse"),
        )
        for choice in ("uncertain", "random")
    ]
    rows += [
        {"part": "ask", "seed": s, "error_bar": 0.4, "random": 0.1, "distance": 0.3, "best": 0.5}
        for s in SEEDS
    ]
    found = PRIMARY["uncertainty"](of("uncertainty", rows))
    assert len(found) == 4
    assert [c.by_seed[0] for c in found] == pytest.approx([*[math.log(0.8)] * 3, 0.3])
    assert [c.yes for c in found] == [-1, -1, -1, 1]
    shares = [c.label.split(": ")[0] for c in by_share(of("uncertainty", rows))]
    assert shares == ["what to label, 60 % hot frames", "what to fine-tune on, 60 % hot"]
    rest = on_the_rest(of("uncertainty", rows))
    assert [c.by_seed[0] for c in rest] == pytest.approx([math.log(1.25), math.log(1.25), 0.0])


def test_frozen_against_not():
    error = {"nothing": 100.0, "message passing": 90.0, "important": 110.0}
    rows = [
        {"seed": s, "size": n, "frozen": arm, "force_rmse": e}
        for s in SEEDS
        for n in (50, 200, 1000)
        for arm, e in error.items()
    ]
    found = PRIMARY["freezing"](of("freezing", rows))
    assert [c.by_seed[0] for c in found] == pytest.approx([math.log(0.9)] * 2 + [math.log(1.1)] * 2)
    assert "50 structures" in found[0].label and "1,000 structures" in found[1].label


def test_the_page_has_answers_tables_and_a_panel_a_question():
    rows = scratch_rows() + calibration_rows()
    text = questions_text(rows)
    assert text.index("## 1. ") < text.index("## 3. ") and "## 2. " not in text
    label = "inherited against scratch, 100 structures, 200 steps"
    assert f"| {label} | **yes** | below 1 | 0.5" in text
    figure = questions_plot(rows)
    titles = [axes.get_title("left") for axes in figure.axes if axes.axison]
    assert [title[:2] for title in titles] == ["1.", "3."]


def test_at_each_share_both_losses_and_their_difference_are_told():
    rows = calibration_rows()
    noise = {seed: 0.3 * (seed - 2) for seed in SEEDS}
    small = [
        {**row, "share": 0.3, "m": math.exp(noise[row["seed"]]), "log_std": -3.0}
        for row in rows
        if row["share"]
    ]
    lines = questions_text(rows + small).splitlines()
    head = next(k for k, line in enumerate(lines) if "Holm over the shares" in line)
    assert lines[head].endswith("| 30% | 75% |")
    told = {
        line.split("|")[1].strip(): line.split("|")[2:4] for line in lines[head + 2 : head + 12]
    }
    for name in ("calibration loss minus accuracy loss", "accuracy loss"):
        assert [cell.endswith("* ") for cell in told[f"{name}, right after"]] == [False, True]
    assert told["calibration loss, right after"][1] == f" {0.5 * (15 - math.log(16)):+.3f}* "
    assert told["accuracy loss, right after"][1] == f" {0.5 * math.log(16):+.3f}* "
    assert "* |" not in questions_text(rows + small, seeds=6)  # nothing before all seeds are there


def test_cells_say_what_time_they_take_and_those_over_the_budget_are_left_out_beside_the_answer():
    rows = [
        {"part": "fit", "seed": s, "score": score, "budget": b, "compensated": c, "before": 1.0}
        | {"force_rmse": 100.0 * (1 + (b == 0.4)) * (1 + c) + s, "time": 0.45}
        for s in SEEDS
        for score in ("force", "taylor", "magnitude", "random")
        for b in (0.5, 0.4)
        for c in (False, True)
    ]
    text = questions_text(of("budgets", rows))
    assert text.count("; 45%)") == 4 * 2 * 2
    met = [line for line in text.splitlines() if line.count("|") == 4]
    assert met[0].startswith("| over the budgets that were met (50%) |")
    assert met[-1].startswith("| compensated against not (force) | 1.98x [1.96x, 2.00x]")


def test_compiled_networks_stand_beside_the_teacher_as_it_is():
    row = {"part": "compiled", "seed": 0, "score": "force"}
    row |= {"eager_ms": {"teacher": 20.0, "0.5": 10.0}}
    row |= {"compiled_ms": {"teacher": 40.0, "0.5": 25.0}}
    lines = tables._compiled(row).splitlines()
    assert lines[2] == "| teacher | 20.0 (1.00x) | 40.0 (0.50x) |"
    assert lines[3] == "| budget 50% | 10.0 (2.00x) | 25.0 (0.80x) |"


def test_damage_is_ranked_within_each_kind_and_beside_noise_of_its_spread():
    damage = [1.0 * k for k in range(10)] + [100.0 + k for k in range(10)]
    row = {"damage": damage, "bars": [*range(10), *range(110, 100, -1)]}
    noise, cold, hot = forgotten._within(row)
    assert (cold, hot) == pytest.approx((1, -1))
    assert 0.15 < noise < 0.25  # the two largest of twenty
    assert forgotten._within({**row, "damage": [5.0 + 1e-6 * k for k in range(20)]})[0] == (
        pytest.approx(0.1, abs=1e-3)
    )


def test_nothing_is_concluded_before_all_seeds_are_run():
    rows = [row for row in calibration_rows() if row["seed"] < 4]
    assert "4 of 5 seeds" in results_page(rows, {}) and "**" not in results_page(rows, {})
    assert "**yes**" in results_page(calibration_rows(), {})
    assert len(FORMS["full"].seeds) == page.SEEDS


def test_the_page_says_which_direction_is_yes():
    lines = questions_text(calibration_rows() + scratch_rows()).splitlines()
    told = {
        line.split("|")[1].strip(): line.split("|")[3].strip() for line in lines if "**" in line
    }
    assert told["calibration loss minus accuracy loss, right after"] == "above 0"
    assert told["coverage of 90 % intervals, recalibrated minus before"] == "below 0"
    assert told["inherited against scratch, 100 structures, 200 steps"] == "below 1"


def test_the_committed_page_is_what_the_stored_rows_say():
    folder = ROOT / "docs" / "study"
    if not folder.is_dir():
        pytest.skip("the study has no stored rows yet")
    page = (ROOT / "docs" / "study-results.md").read_text(encoding="utf-8")
    rows, origins = stored_rows(folder), read_json(folder / "origins.json")
    assert page == results_page(rows, origins), "run python scripts/draw_study.py"
    assert {row["question"] for row in rows} <= origins.keys()
    assert all(page.count(origins[row["question"]]) == 1 for row in rows)


def test_a_folder_without_rows_is_refused(tmp_path):
    with pytest.raises(InputError, match="there are no rows in"):
        stored_rows(tmp_path)


def test_rows_are_read_in_the_order_of_questions_and_seeds(tmp_path):
    for name, seed in (("freezing", 0), ("scratch", 10), ("scratch", 2)):
        path = tmp_path / f"{name}-full-seed{seed}.json"
        path.write_text(json.dumps({"asked": {}, "rows": [{"question": name, "seed": seed}]}))
    (tmp_path / "freezing-quick-seed0.json").write_text("{}")
    assert [row["seed"] for row in stored_rows(tmp_path)] == [2, 10, 0]


def test_the_page_and_the_study_ask_at_the_same_shares():
    """The page may not import the study, and states its two numbers again."""
    assert primary.SHARE == networks.SHARE
    assert primary.RARE == uncertainty.PRIMARY_SHARE
