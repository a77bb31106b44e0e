"""The command `specialise`, from structures to metrics, on a teacher of some hundred weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_teacher import structures, tiny_teacher, write_labelled

import not_landed  # noqa
from egnn_prune import adapters
from egnn_prune.configs.specialise_settings import SpecialiseSettings
from egnn_prune.pipeline import specialise
from egnn_prune.pipeline.specialise import run

MODELS = ["teacher", "finetuned", "specialised", "scratch"]


@pytest.fixture(autouse=True, scope="module")
def a_tiny_teacher():
    """Instead of a checkpoint; times are measured briefly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapters, "load", lambda name: tiny_teacher(), raising=False)
        patch.setattr("egnn_prune.pipeline.specialise_measure.REPEATS", 2)
        patch.setattr("egnn_prune.pipeline.specialise_measure.WARMUP", 1)
        yield


def tiny(out: Path, path: Path | None, **changes: Any) -> SpecialiseSettings:
    """Settings of a job of a few seconds."""
    settings = SpecialiseSettings(out=str(out), device="cpu", threads=1, teacher="tiny")
    settings.data.path = str(path) if path else None
    settings.budget, settings.budgets = 0.99, [0.99, 0.98]
    settings.cut.timings, settings.cut.steps, settings.training.steps = 2, 2, 4
    settings.training.scratch_lrs = [1e-3, 1e-2]
    for name, value in changes.items():
        section, _, last = name.rpartition("__")
        setattr(getattr(settings, section) if section else settings, last, value)
    return settings


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    return write_labelled(tmp_path_factory.mktemp("data") / "mine.xyz", structures())


@pytest.fixture(scope="module")
def finished(tmp_path_factory, labelled) -> Path:
    return run(tiny(tmp_path_factory.mktemp("run") / "run", labelled))


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def test_flow(finished):
    print(json.dumps(metrics(finished), indent=1))
