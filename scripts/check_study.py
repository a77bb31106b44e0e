"""Hold a run of the study's quick form against the numbers that are stored.

Of all questions but the second every row with one error of forces may differ by 5 %, and every
primary comparison, a mean over the seeds, by 0.05 (logarithms of ratios, coverages, correlations).
Left out: question 2, where the clock decides how much goes, the network of another shape, which 15
steps do not tame, and simulations, which amplify rounding. On one machine, with and without vector
instructions, the errors of seed 0 differed by less than 0.01 %.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from egnn_prune.cli.script import one_sentence
from egnn_prune.report.studies.questions.primary import PRIMARY
from egnn_prune.runs.result_store import Row
from egnn_prune.system.files import read_json, write_json

STORED = Path(__file__).parents[1] / "docs" / "study" / "quick.json"
TOLERANCE = 0.05
#: What is compared of a row: the first of these that it has.
JUDGED = ("force_rmse", "stretched bond")
#: What tells rows apart.
ASKED = "seed system size steps arm method share point frozen part rare choice network".split()


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of `compare_baseline.py study=quick`")
    parser.add_argument("--store", action="store_true", help="store its numbers instead")
    return parser.parse_args()


def numbers(rows: list[Row]) -> dict[str, dict[str, float]]:
    """``errors`` of forces by row, and ``comparisons``: mean of each primary one over seeds."""
    errors: dict[str, float] = {}
    comparisons: dict[str, float] = {}
    for question in PRIMARY:
        inside = [row for row in rows if row["question"] == question]
        if question == "budgets" or not inside:
            continue
        for row in inside:
            key = next((key for key in JUDGED if row.get(key)), "")
            if key and row.get("arm") != "other":
                cell = [f"{name} {row[name]}" for name in ASKED if row.get(name) is not None]
                errors[", ".join([question, *cell])] = row[key]
        for one in PRIMARY[question](inside):
            if one.by_seed:
                comparisons[one.label] = sum(one.by_seed.values()) / len(one.by_seed)
    return {"errors": errors, "comparisons": comparisons}


def differing(found: dict[str, dict[str, float]], stored: dict[str, dict[str, float]]) -> list[str]:
    """A line for each number that only one of both has, or that differs by more than allowed."""
    lines = []
    for kind, relative in (("errors", True), ("comparisons", False)):
        now, then = found[kind], stored[kind]
        for name in sorted(now.keys() | then.keys()):
            if name not in now or name not in then:
                lines.append(f"{name}: {'not found' if name in then else 'not stored'}")
            elif not abs(now[name] - then[name]) <= TOLERANCE * (then[name] if relative else 1):
                lines.append(f"{name}: {now[name]:.4g}, stored {then[name]:.4g}")
    return lines


def main() -> None:
    """Compare, or store."""
    asked = parse()
    found = numbers(read_json(asked.run / "study.json")["rows"])
    if asked.store:
        write_json(STORED, found)
        print(f"Written: {STORED}")
        return
    if lines := differing(found, read_json(STORED)):
        print("These numbers of the quick form changed:", *lines, sep="\n  ")
        raise SystemExit(1)  # 2 is for wrong input
    count = sum(map(len, found.values()))
    print(f"{count} numbers of the quick form are what {STORED.name} says")


if __name__ == "__main__":
    with one_sentence():
        main()
