"""One progress bar for a whole fit, instead of one a pass."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

#: Validation results that a bar shows, where the task logs them.
SHOWN = ("val_mae", "val_force_mae", "val_force_rmse", "val_energy_mae", "val_loss", "val_error")


class StepBar(ProgressBar):
    """Optimiser steps done, with the validation results after each pass over the data.

    Lightning's own bars begin anew at every pass, and most passes here last a second.

    Args:
        label: what is being trained.
    """

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label, self.off = label, False
        self.bar: Any = None

    def disable(self) -> None:
        """Lightning switches bars off on all ranks but the first."""
        self.off = True

    def enable(self) -> None:
        """Lightning switches the first rank's bar on again."""
        self.off = False

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Open the bar."""
        steps = trainer.estimated_stepping_batches
        # False, said aloud, would outvote TQDM_DISABLE of people who want no bars
        off = {"disable": True} if self.off else {}
        done = trainer.global_step  # by a fit that is gone on with: these took no time now
        self.bar = tqdm(total=steps, desc=self.label, unit="step", initial=done, **off)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Advance to the present step."""
        self.bar.update(trainer.global_step - self.bar.n)

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Show the validation results."""
        found = trainer.callback_metrics
        shown = {name: f"{float(found[name]):.4g}" for name in SHOWN if name in found}
        if shown:
            self.bar.set_postfix(shown, refresh=False)

    def on_train_end(self, *_: Any) -> None:
        """Leave the bar on the screen and start a new line."""
        self.bar.close()

    def on_exception(self, *_: Any) -> None:
        """The same when the fit is interrupted, maybe before it began."""
        if self.bar is not None:
            self.bar.close()
