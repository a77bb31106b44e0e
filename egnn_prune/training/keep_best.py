"""The weights that did best on validation, instead of the last."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from egnn_prune.errors import ConfigError


class KeepBest(Callback):
    """Ends a fit with the weights that were best on validation, for fits that end up overfitted.

    Weights are kept in memory, not on disk, so this works beside a PruningCallback, whose masks are
    part of them; a resumed fit remembers what it had before.

    Args:
        metric: what the task logs and is small when good: ``val_mae``, ``val_mse`` or
            ``val_force_mae``; of potentials ``val_force_rmse`` or ``val_energy_mae``; of images
            ``val_loss`` or ``val_error``.
        ready: validations count from when this returns True: models before the last round of
            pruning are larger, and no competitors.

    Attributes:
        value: the best found, infinite before the first.
        step: optimiser steps done then.

    Raises:
        ConfigError: (at the first validation) nothing of that name is logged.
    """

    def __init__(self, metric: str, ready: Callable[[], bool] = lambda: True) -> None:
        self.metric, self.ready = metric, ready
        self.value, self.step = math.inf, 0
        self._weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Copy the weights if they are the best so far."""
        if trainer.sanity_checking or not self.ready():
            return
        if self.metric not in trainer.callback_metrics:
            found = ", ".join(k for k in trainer.callback_metrics if k.startswith("val_"))
            raise ConfigError(
                f"the best model by {self.metric!r} was asked for, but validation measures "
                f"{found or 'nothing'}"
            )
        value = float(trainer.callback_metrics[self.metric])
        if value < self.value:
            self.value, self.step = value, trainer.global_step
            self._weights = {k: v.clone() for k, v in pl_module.state_dict().items()}

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the best weights back; the last ones stay where no validation counted."""
        if self._weights:
            pl_module.load_state_dict(self._weights)
            self._weights = {}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed fit needs; Lightning calls this."""
        return {"value": self.value, "step": self.step, "weights": self._weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The opposite of :meth:`state_dict`; Lightning calls this."""
        self.value, self.step = state_dict["value"], state_dict["step"]
        self._weights = state_dict["weights"]
