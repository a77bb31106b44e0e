"""The results of the study: answers, then tables, in Markdown."""

from __future__ import annotations

import math

from egnn_prune.report.common.answers import Answer, answers
from egnn_prune.report.common.formatting import MISSING
from egnn_prune.report.common.statistics import Rows
from egnn_prune.report.studies.questions.primary import PRIMARY
from egnn_prune.report.studies.questions.tables import TABLES, markdown

TITLES = {
    "scratch": "1. Pretrained and pruned, or from scratch?",
    "budgets": "2. Which score, with and without compensation, at equal measured time?",
    "calibration": "3. Does pruning harm calibration more than accuracy?",
    "forgetting": "4. What does a pruned potential forget?",
    "uncertainty": "5. When does uncertainty pay?",
    "freezing": "6. Does freezing help?",
}


def questions_text(rows: Rows) -> str:
    """All answers and tables of the questions that have rows."""
    parts = []
    for name, title in TITLES.items():
        inside = [row for row in rows if row["question"] == name]
        if inside:
            parts += [f"## {title}", answers_table(inside, name), TABLES[name](inside)]
    return "\n\n".join(parts)


def answers_table(rows: Rows, name: str) -> str:
    """The primary comparisons of a question, and what they say."""
    body = [_line(answer) for answer in answers(PRIMARY[name](rows))]
    header = [
        "primary comparison",
        "seeds",
        "found [95 %]",
        "p (Holm)",
        "would have shown",
        "answer",
    ]
    return markdown(header, body)


def _line(answer: Answer) -> list[str]:
    comparison, found = answer.comparison, answer.found
    ratio = comparison.ratio

    def shown(value: float) -> str:
        if math.isnan(value):
            return MISSING
        return f"{math.exp(value):.2f}x" if ratio else f"{value:+.3f}"

    interval = f" [{shown(found.low)}, {shown(found.high)}]" if found.n > 1 else ""
    least = answer.detectable
    if not math.isnan(least):
        would = f"{math.exp(-least):.2f}x or {math.exp(least):.2f}x" if ratio else f"±{least:.3f}"
    else:
        would = MISSING
    unit = f" {comparison.unit}" if comparison.unit else ""
    p = MISSING if math.isnan(answer.adjusted) else f"{answer.adjusted:.3f}"
    says = f"**{answer.says}**" if found.n > 1 else "not run"
    return [
        f"{comparison.label}",
        str(found.n),
        f"{shown(found.mean)}{interval}{unit}",
        p,
        would,
        says,
    ]
