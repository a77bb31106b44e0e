"""Which graphs are drawn, decided anew while a model is fine-tuned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from egnn_prune.errors import ConfigError


class Reselection(Callback):
    """Gives the training graphs new drawing probabilities at the beginning of some epochs.

    The first selection is the one that the fit begins with; what the model has learned by then
    decides the next. Use it with ``fit(..., weights=...)``.

    Args:
        weights: ``weights(model) -> [n]``; it may change the model that it gets, a copy.
        epochs: the epochs before which it is asked; 0 is the beginning and is left out.

    Raises:
        ConfigError: (in the fit) the graphs are not drawn by weights.
    """

    def __init__(self, weights: Callable[[nn.Module], Tensor], epochs: Sequence[int]) -> None:
        self.weights, self.epochs = weights, set(epochs) - {0}

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Between two epochs: the next one draws with the new probabilities."""
        if trainer.current_epoch + 1 not in self.epochs:
            return
        sampler: Any = getattr(trainer.train_dataloader, "sampler", None)
        if not isinstance(getattr(sampler, "weights", None), Tensor):
            raise ConfigError("a selection in rounds needs a fit with weights")
        model: Any = module.model
        sampler.weights = self.weights(model).to(sampler.weights)
