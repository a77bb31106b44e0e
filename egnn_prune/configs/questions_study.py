"""Settings of the study's questions."""

from __future__ import annotations

from dataclasses import dataclass

from egnn_prune.configs.declaration import setting
from egnn_prune.configs.settings import COUNT, SEED, THREADS

QUESTIONS = ("scratch", "budgets", "calibration", "forgetting", "uncertainty", "freezing")


@dataclass
class QuestionsStudySettings:
    """What pruning a pretrained potential costs, and when uncertainty pays: docs/study.md."""

    out: str = setting("runs/questions", "folder of the study")
    form: str = setting(
        "quick",
        "quick: small numbers, no data; full: those of the protocol",
        choices=("quick", "full"),
    )
    asked: list[str] = setting(list(QUESTIONS), "which questions", choices=QUESTIONS)
    seeds: list[int] = setting(
        [], "structures, fits and draws, one each per seed; []: those of the form", **SEED
    )
    workers: int = setting(1, "seeds at the same time, in processes of their own", **COUNT)
    threads: int | None = setting(1, "CPU threads; null: torch's default", **THREADS)
