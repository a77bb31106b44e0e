"""One progress bar for a whole fit, instead of one a pass."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

#: Validation results that a bar shows, where the task logs them.
SHOWN = ("val_mae", "val_force_mae", "val_loss", "val_error")


class StepBar(ProgressBar):
    """Optimiser steps done, with the validation results after each pass over the data.

    Args:
        steps: optimiser steps in the fit.
        label: what is being trained.
    """

    def __init__(self, steps: int, label: str) -> None:
        super().__init__()
        self.bar: tqdm | None = None
        self.steps, self.label = steps, label

    def disable(self) -> None:
        """Lightning switches bars off on all ranks but the first."""
        self._off = True

    def enable(self) -> None:
        """Lightning switches the first rank's bar on again."""
        self._off = False

    def on_train_start(self, *_: Any) -> None:
        """Open the bar."""
        if not getattr(self, "_off", False):
            self.bar = tqdm(total=self.steps, desc=self.label, unit="step", leave=True)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Advance to the present step."""
        if self.bar is not None:
            self.bar.update(trainer.global_step - self.bar.n)

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Show the validation results."""
        found = trainer.callback_metrics
        shown = {name: f"{float(found[name]):.4g}" for name in SHOWN if name in found}
        if self.bar is not None and shown:
            self.bar.set_postfix(shown, refresh=False)

    def on_train_end(self, *_: Any) -> None:
        """Close the bar."""
        self.close()

    def on_exception(self, *_: Any) -> None:
        """Close the bar when the fit is interrupted."""
        self.close()

    def close(self) -> None:
        """Leave the bar on the screen and start a new line."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
