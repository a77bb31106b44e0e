"""Gradual unfreezing: the read-out learns first, then layer after layer from the top."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from egnn_prune.errors import ConfigError
from egnn_prune.pruning import thaw
from egnn_prune.pruning.ledger import layer_names
from egnn_prune.pruning.masks import freeze_entries, mask_of
from egnn_prune.pruning.tensors import parameter_names
from egnn_prune.training.pruned_part import pruned_part


class GradualUnfreezing(Callback):
    """Starts with all layers but the last frozen, and thaws one more every few optimiser steps.

    Source: Howard and Ruder 2018, Section 3.3. Pruned entries stay zero throughout, and what was
    frozen before the fit stays frozen (what a PruningCallback freezes during it does not). Layers
    are those of :func:`egnn_prune.pruning.ledger.layer_names`, in the order of construction.

    Args:
        every: optimiser steps between two layers, at least 1.
    """

    def __init__(self, every: int) -> None:
        if every < 1:
            raise ConfigError(f"layers thaw every 1 or more optimiser steps, not {every}")
        self.every = every
        self.thawed = 1
        self._before: dict[str, Tensor] = {}
        self._layers: list[str] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Freeze everything but the last layer."""
        model = pruned_part(pl_module)
        if stage == "fit":
            self.thawed, self._before = 1, {}  # a resumed state is loaded later
            self._layers = layer_names(model)
            last = f"{self._layers[-1]}."
            for name in parameter_names(model):
                state = mask_of(model, name)
                if state is not None and state.frozen.any():  # frozen by somebody else: stays
                    self._before[name] = state.frozen.clone()
                if not name.startswith(last):
                    freeze_entries(model, name)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any
    ) -> None:
        """Thaw what is due."""
        model = pruned_part(pl_module)
        due = min(len(self._layers), 1 + trainer.global_step // self.every)
        if due > self.thawed:
            self.thawed = due
            free = tuple(f"{layer}." for layer in self._layers[-due:])
            names = [n for n in parameter_names(model) if n.startswith(free)]
            thaw(model, names)
            for name in set(names) & set(self._before):
                freeze_entries(model, name, self._before[name].to(pl_module.device))

    def state_dict(self) -> dict[str, Any]:
        """How far the thaw has come; Lightning calls this."""
        return {"thawed": self.thawed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The opposite of :meth:`state_dict`; Lightning calls this."""
        self.thawed = state_dict["thawed"]
