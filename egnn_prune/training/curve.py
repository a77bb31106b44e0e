"""How the validation error fell while a model was trained."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from egnn_prune.system.files import atomic


class LearningCurve(Callback):
    """Keeps every validation result of a fit, and writes them as CSV.

    Attributes:
        rows: one dictionary a validation, with ``step`` (optimiser steps done), ``seconds`` (wall
            time so far) and what the task logged: ``val_mae``, ``val_mse`` and, with forces,
            ``val_force_mae``, in the target's unit.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._start = time.perf_counter()
        self._before = 0.0

    def on_train_start(self, *_: Any) -> None:
        """Start the clock."""
        self._start, self._before = time.perf_counter() - self._before, 0.0

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Remember what was logged."""
        found = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val_")}
        seconds = round(time.perf_counter() - self._start, 2)
        self.rows.append({"step": trainer.global_step, "seconds": seconds, **found})

    def fit_state(self) -> dict[str, Any]:
        """What a resumed fit needs; a :class:`FitCheckpoint` calls this."""
        return {"rows": self.rows, "seconds": time.perf_counter() - self._start}

    def set_fit_state(self, state: dict[str, Any]) -> None:
        """The opposite of :meth:`fit_state`."""
        self.rows, self._before = state["rows"], state["seconds"]

    def write(self, path: Path) -> None:
        """Write the rows; nothing where there are none."""
        if not self.rows:
            return
        with atomic(path) as temporary, temporary.open("w", newline="") as handle:
            table = csv.DictWriter(handle, list(self.rows[0]))
            table.writeheader()
            table.writerows(self.rows)
