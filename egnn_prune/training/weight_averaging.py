"""An average of the weights along a fit, which is smoother than any of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from egnn_prune.errors import ConfigError


class AveragedWeights(Callback):
    r"""Average of the weights along a fit: what is validated, kept, and left in the end.

    By default it is an exponential moving average,

    .. math:: \bar w_t = d_t\, \bar w_{t-1} + (1 - d_t)\, w_t, \qquad
        d_t = \min\!\left(d, \frac{1 + t}{10 + t}\right), \qquad \bar w_0 = w_0

    t is the number of the optimiser step, from 1. The average spans a tenth of the steps so far, so
    the weights that a short fit began with are forgotten (the schedule of TensorFlow's and
    torch_ema's averages). With ``last`` it is stochastic weight averaging (Izmailov et al. 2018):
    the plain mean of the weights after each of the last steps, and before these the weights
    themselves. Buffers, such as the masks of pruned channels, are those of the network.

    Lightning's own ``EMAWeightAveraging`` puts the trained weights back before other callbacks
    look, so :class:`~egnn_prune.training.KeepBest` would keep weights that were never validated.
    Put this one before it in the list of callbacks.

    Args:
        decay: d, at least 0 and below 1.
        last: instead, the share of a fit's steps, its last ones, whose weights count alike.

    Raises:
        ConfigError: the decay or the share is out of range.
    """

    def __init__(self, decay: float = 0.999, last: float | None = None) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"the decay of averaged weights must be in [0, 1), not {decay}")
        if last is not None and not 0 < last <= 1:
            raise ConfigError(f"the share of averaged steps must be in (0, 1], not {last}")
        self.decay, self.last = decay, last
        self._average: Any = None
        self._steps = 0
        self._trained: list[Tensor] = []
        self._saved: list[Tensor] = []

    def fit_state(self) -> dict[str, Any]:
        """What a resumed fit needs; a :class:`FitCheckpoint` calls this."""
        average = [] if self._average is None else list(self._average.module.parameters())
        return {"average": [w.detach() for w in average], "trained": self._trained}

    def set_fit_state(self, state: dict[str, Any]) -> None:
        """The opposite of :meth:`fit_state`."""
        self._saved, self._trained = state["average"], state["trained"]

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """The average begins with the weights as they are, on their device."""
        steps = trainer.estimated_stepping_batches

        def moved(average: Tensor, weight: Tensor, _: Any) -> Tensor:
            return average.lerp(weight, 1 - self._kept(self._steps, steps))

        self._average = AveragedModel(pl_module.model, avg_fn=moved)
        self._average.update_parameters(pl_module.model)  # the first of these copies
        if self._saved:
            for weight, value in zip(self._average.module.parameters(), self._saved, strict=True):
                weight.data.copy_(value)
            self._saved = []
        self._steps = trainer.global_step

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        """Training goes on with the trained weights."""
        if self._trained:
            self._put(pl_module, self._trained)
            self._trained = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        """Move the average, once a step."""
        if trainer.global_step > self._steps:
            self._steps = trainer.global_step
            self._average.update_parameters(pl_module.model)

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Validate the average."""
        if self._average is not None and not self._trained:
            # weights alone: masks may change meanwhile
            self._trained = [w.detach().clone() for w in pl_module.model.parameters()]
            self._put(pl_module, self._average.module.parameters())

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Leave the average in the network."""
        self._put(pl_module, self._average.module.parameters())
        self._average, self._trained = None, []

    def _kept(self, step: int, steps: float) -> float:
        """How much of the average before a step is in the one after it."""
        if self.last is None:
            return min(self.decay, (1 + step) / (10 + step))
        averaged = step - (steps - math.ceil(self.last * steps))
        return 1 - 1 / max(1, averaged)

    @torch.no_grad()
    def _put(self, pl_module: Any, weights: Iterable[Tensor]) -> None:
        for weight, value in zip(pl_module.model.parameters(), weights, strict=True):
            weight.copy_(value)
