"""The results of the study: answers, then tables, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from egnn_prune.errors import InputError
from egnn_prune.report.common.answers import Answer, answers, found_text
from egnn_prune.report.common.formatting import MISSING
from egnn_prune.report.common.markdown import chance, markdown
from egnn_prune.report.common.statistics import Rows
from egnn_prune.report.studies.questions.notes import HEAD, NOTES
from egnn_prune.report.studies.questions.primary import PRIMARY
from egnn_prune.report.studies.questions.tables import TABLES
from egnn_prune.system.files import read_json

#: Seeds of the full form: nothing is concluded before all of them are run.
SEEDS = 5
TITLES = {
    "scratch": "1. Pretrained and pruned, or from scratch?",
    "budgets": "2. Which score, with and without compensation, at equal measured time?",
    "calibration": "3. Does pruning harm calibration more than accuracy?",
    "forgetting": "4. What does a pruned potential forget?",
    "uncertainty": "5. When does uncertainty pay?",
    "freezing": "6. Does freezing help?",
}


def questions_text(rows: Rows, seeds: int = 2, origins: Mapping[str, str] | None = None) -> str:
    """All answers and tables of the questions that have rows.

    Args:
        rows: of the study.
        seeds: without which nothing is concluded.
        origins: of a question's rows, a sentence: machine, versions, commit.
    """
    parts = []
    for name, title in TITLES.items():
        inside = [row for row in rows if row["question"] == name]
        if inside:
            parts += [
                f"## {title}",
                answers_table(inside, name, seeds),
                TABLES[name](inside, seeds),
            ]
            parts += [NOTES[name], *([origins[name]] if origins and name in origins else [])]
    return "\n\n".join(parts)


def stored_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of the full form that a folder keeps, seed after seed.

    Raises:
        InputError: there are none, or a file is damaged.
    """
    rows: list[dict[str, Any]] = []
    for name in TITLES:
        found = folder.glob(f"{name}-full-seed*.json")
        for path in sorted(found, key=lambda path: int(path.stem.rpartition("seed")[2])):
            rows += read_json(path)["rows"]
    if not rows:
        raise InputError(f"there are no rows in {folder}; copy those of a study's folder there")
    return rows


def results_page(rows: Rows, origins: Mapping[str, str]) -> str:
    """The page of the study's results, in Markdown; origins as in :func:`questions_text`."""
    counts = [
        f"{title.split('.')[0]}: {len(inside)}"
        for name, title in TITLES.items()
        if (inside := [row for row in rows if row["question"] == name])
    ]
    return HEAD.format(counts=", ".join(counts)) + questions_text(rows, SEEDS, origins) + "\n"


def answers_table(rows: Rows, name: str, seeds: int) -> str:
    """The primary comparisons of a question, and what they say if all seeds are there."""
    body = [_line(answer, seeds) for answer in answers(PRIMARY[name](rows))]
    header = ["primary comparison", "answer", "yes is", "found [95 %]", "p (Holm)"]
    header += ["would have shown", "negligible within", "seeds"]
    return markdown(header, body)


def _line(answer: Answer, seeds: int) -> list[str]:
    comparison, found = answer.comparison, answer.found
    ratio = comparison.ratio

    least = answer.detectable
    if not math.isnan(least):
        would = f"{math.exp(-least):.2f}x or {math.exp(least):.2f}x" if ratio else f"±{least:.3f}"
    else:
        would = MISSING
    missing = f"{found.n} of {seeds} seeds" if found.n else "not run"
    why = f" ({answer.why})" if answer.why else ""
    says = f"**{answer.says}**{why}" if found.n >= seeds else missing
    margin = f"{comparison.margin:.0%}" if ratio else f"±{comparison.margin:g}"
    return [
        comparison.label,
        says,
        f"{'above' if comparison.yes > 0 else 'below'} {'1' if ratio else '0'}",
        found_text(answer),
        chance(answer.adjusted),
        would,
        margin,
        str(found.n),
    ]
