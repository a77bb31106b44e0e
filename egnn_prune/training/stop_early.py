"""A fit that stops where validation gets no better."""

from __future__ import annotations

from collections.abc import Callable

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason


class StopEarly(EarlyStopping):
    """Lightning's early stopping, which waits until a network is pruned.

    Use a :class:`~egnn_prune.training.KeepBest` before it, or the weights are those of the last
    look, which was not the best one.

    Args:
        metric: what the task logs and is small when good, as for ``KeepBest``.
        patience: looks at the validation split, one after the other, none of which is better than
            the best so far; the last of these ends the fit.
        ready: looks count from when this returns True, such as after the last round of pruning.
    """

    def __init__(
        self, metric: str, patience: int, ready: Callable[[], bool] = lambda: True
    ) -> None:
        super().__init__(
            metric, patience=patience, check_finite=False, check_on_train_epoch_end=False
        )
        self.ready = ready

    @property
    def stopped(self) -> bool:
        """Whether this ended the fit."""
        return self.stopping_reason is EarlyStoppingReason.PATIENCE_EXHAUSTED

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count a look, and end the fit where it is one too many."""
        if self.ready():
            super().on_validation_end(trainer, pl_module)
