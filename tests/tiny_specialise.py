"""The command `specialise` in seconds: on a teacher of some hundred weights, without figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_teacher import tiny_teacher

from egnn_prune import adapters
from egnn_prune.configs.specialise_settings import SpecialiseSettings
from egnn_prune.pipeline import specialise_measure as measuring

STEPS = 4


@contextmanager
def in_seconds() -> Iterator[None]:
    """Within this context a tiny teacher stands for every checkpoint, and times are sizes.

    Numbers of weights are the same on every machine.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapters, "load", lambda name, modal: tiny_teacher(), raising=False)
        patch.setattr(measuring, "latencies", by_size)
        patch.setattr("egnn_prune.pipeline.specialise_cut.COPIES", (0.0, 0.25, 0.5, 0.9))
        patch.setattr(measuring, "REPEATS", 1)
        patch.setattr(measuring, "WARMUP", 1)
        yield


def by_size(models: dict[str, Any], *_: Any) -> dict[str, float]:
    return {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}


def tiny(out: Path, path: Path | None, **changes: Any) -> SpecialiseSettings:
    """Settings of a job of a few seconds; ``changes`` are names with ``__`` for the dots."""
    settings = SpecialiseSettings(out=str(out), device="cpu", threads=1, teacher="tiny")
    settings.data.path = str(path) if path else None
    settings.budget, settings.budgets = 0.6, [0.8, 0.6, 0.01]
    settings.cut.timings, settings.cut.steps, settings.training.steps = 1, 2, STEPS
    settings.training.scratch_lrs = [1e-3, 1e-2]
    settings.uncertainty.method = "none"  # error bars: test_specialise_bars.py
    for name, value in changes.items():
        section, _, last = name.rpartition("__")
        node = getattr(settings, section) if section else settings
        assert hasattr(node, last), name
        setattr(node, last, value)
    return settings


@contextmanager
def undrawn() -> Iterator[None]:
    """Within this context a report has no figures, which take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "egnn_prune.report.specialise.write_report",
            lambda folder: (folder / "report.html").write_text("nothing"),
        )
        yield


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def predictions(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "predictions.npz", allow_pickle=False) as archive:
        return dict(archive)
