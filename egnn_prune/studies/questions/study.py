"""All questions, seed by seed, and what they were answered."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from egnn_prune.configs.questions_study import QuestionsStudySettings
from egnn_prune.configs.settings import check
from egnn_prune.report.studies.questions.figure import questions_plot
from egnn_prune.report.studies.questions.page import questions_text
from egnn_prune.runs.result_store import Row
from egnn_prune.studies.frame import Results, Study, study_folder
from egnn_prune.studies.questions import (
    budgets,
    calibration,
    forgetting,
    freezing,
    scratch,
    uncertainty,
)
from egnn_prune.studies.questions.context import Asked, Question
from egnn_prune.studies.questions.forms import FORMS

QUESTIONS: dict[str, Question] = {
    "scratch": scratch.QUESTION,
    "budgets": budgets.QUESTION,
    "calibration": calibration.QUESTION,
    "forgetting": forgetting.QUESTION,
    "uncertainty": uncertainty.QUESTION,
    "freezing": freezing.QUESTION,
}

QUICK = "Headings and notes speak of the full form; no claim rests on the numbers of this one."


def run_seed(settings: QuestionsStudySettings, seed: int) -> list[Row]:
    """All rows of a seed; finished ones are read, not computed again."""
    rows: list[Row] = []
    for name in settings.asked:
        one = Asked(
            name, settings.form, study_folder(settings), seed, FORMS[settings.form].seeds[0]
        )
        question = QUESTIONS[name]
        rows += one.rows().fill(question.cells(one), partial(question.find, one))
    return rows


def results(settings: QuestionsStudySettings, rows: list[Row]) -> Results:
    """Answers, tables and a figure."""
    text = questions_text(rows, len(FORMS[settings.form].seeds))
    if settings.form == "quick":
        text = f"{QUICK}\n\n{text}"
    figure = questions_plot(rows)
    return Results(rows, text, figure, ("question", "seed"), apart=("question", "part"))


run_all = Study("questions", run_seed, results)


def run_questions(settings: QuestionsStudySettings) -> Path:
    """Answer the questions; see :class:`~egnn_prune.studies.frame.Study`.

    Raises:
        ConfigError: one sentence about the first wrong setting.
    """
    check(settings)  # before the form's seeds are looked up
    seeds = settings.seeds or list(FORMS[settings.form].seeds)
    return run_all(replace(settings, seeds=seeds))
