"""A loss that is NaN or infinite stops a fit, without making a GPU wait after every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from egnn_prune.errors import ConfigError
from egnn_prune.training.batch_losses import not_finite

#: Steps between two questions to a GPU: each makes the processor wait for all work in its queue.
STEPS = 50


class FiniteLosses:
    """Watches the losses of a fit.

    On the CPU, where nothing has to be waited for, every loss is looked at as it comes, and the
    message names the number at fault. On a GPU the losses are remembered there and looked at
    together.

    Args:
        steps: between two looks at a GPU's losses.
    """

    def __init__(self, steps: int = STEPS) -> None:
        self.steps, self._seen = steps, 0
        self._bad: Tensor | None = None

    def check(self, loss: Tensor, batch: Any, number: int) -> None:
        """Look at a loss, now or later.

        Args:
            loss: a single number.
            batch: what it was computed of.
            number: which batch of the pass over the data that is, from 0.

        Raises:
            ConfigError: it is NaN or infinite, or one since the last look was.
        """
        finite = torch.isfinite(loss.detach())
        if loss.device.type == "cpu":
            if not bool(finite):
                raise not_finite(batch, number)
            return
        self._bad = ~finite if self._bad is None else self._bad | ~finite
        self._seen += 1
        if self._seen % self.steps == 0 and bool(self._bad):
            raise ConfigError(
                f"the training loss became NaN or infinite within the last {self.steps} steps; "
                "lower training.lr (device=cpu tells whether a number in the data is at fault)"
            )
