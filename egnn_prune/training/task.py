"""One step of learning, and a fit of many."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import WeightedRandomSampler
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from egnn_prune.errors import ConfigError
from egnn_prune.models import forces
from egnn_prune.training.batch_losses import Losses, not_finite
from egnn_prune.training.force_loss import ForceLosses
from egnn_prune.training.loss import graph_losses
from egnn_prune.training.progress import StepBar

#: A fit of many short passes over the data looks at the validation split about so often.
VALIDATIONS = 100

# Lightning greets and advises on every fit; what went wrong still comes through
for _name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
    logging.getLogger(_name).setLevel(logging.ERROR)


@dataclass(frozen=True)
class FitSettings:
    """How long and how fast a network learns, handed through to its fit as one value.

    Attributes:
        steps: optimiser steps in the whole fit.
        lr: highest learning rate of the cycle (Smith and Topin 2018).
        weight_decay: AdamW's.
        clip: largest norm of the gradient; 0 leaves it as it is.
        warmup: share of the steps in which the rate rises.

    Raises:
        ConfigError: a number is out of range.
    """

    steps: int
    lr: float = 1e-3
    weight_decay: float = 1e-2
    clip: float = 5.0
    warmup: float = 0.1

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.lr > 0 or self.clip < 0 or self.weight_decay < 0:
            raise ConfigError(
                "a fit needs 1 or more steps and a positive learning rate, not "
                f"{self.steps} and {self.lr} (clip {self.clip} and weight decay "
                f"{self.weight_decay} must not be negative)"
            )


class Task(L.LightningModule):
    """What :func:`fit` trains.

    Attributes:
        model: the network.
    """

    model: nn.Module

    def trainer_options(self, batches: int | None) -> dict[str, Any]:
        """Options of Lightning's trainer that say how long the fit lasts.

        Args:
            batches: in a pass over the training data, where that is known.
        """
        raise NotImplementedError


class RegressionTask(Task):
    """Fits a model with AdamW and a one-cycle rate, by default with :func:`graph_losses`.

    Args:
        model: such as :class:`egnn_prune.models.PropertyModel`.
        settings: how long and how fast.
        losses: ``losses(model, batch) -> [samples]``; their mean is minimised.
    """

    def __init__(
        self, model: nn.Module, settings: FitSettings, losses: Losses = graph_losses
    ) -> None:
        super().__init__()
        self.model, self.settings, self.losses = model, settings, losses

    def trainer_options(self, batches: int | None) -> dict[str, Any]:
        """Exactly the steps that were asked for, however many passes over the data they are."""
        passes = self.settings.steps // batches if batches else 1
        return {
            "max_steps": self.settings.steps,
            "max_epochs": -1,
            "gradient_clip_val": self.settings.clip,
            "check_val_every_n_epoch": max(1, passes // VALIDATIONS),
            "inference_mode": False,  # forces are gradients, in validation too
        }

    def training_step(self, batch: Any, number: int) -> Tensor:
        """Mean loss of a batch; a NaN stops the fit."""
        loss = self.losses(self.model, batch).mean()
        if not bool(torch.isfinite(loss)):
            raise not_finite(batch, number)
        return loss

    def validation_step(self, batch: Data, _: int) -> None:
        """Errors in the target's unit, for the progress bar and the learning curve."""
        error = (self.model(batch).mean - batch.y).float()
        self.log("val_mae", error.abs().mean(), batch_size=len(error))
        self.log("val_mse", error.square().mean(), batch_size=len(error))
        if isinstance(self.losses, ForceLosses):
            wrong = (forces(self.model, batch) - batch.forces).abs().float()
            self.log("val_force_mae", wrong.mean(), batch_size=len(wrong))

    def configure_optimizers(self) -> Any:
        """AdamW with a one-cycle learning rate, stepped after every batch."""
        s = self.settings
        optimiser = torch.optim.AdamW(self.parameters(), s.lr, weight_decay=s.weight_decay)
        # OneCycleLR divides by zero where the rise lasts exactly one step
        rise = s.warmup if s.warmup * s.steps > 1 else 0.9 * s.warmup
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, s.lr, total_steps=s.steps, pct_start=rise
        )
        return [optimiser], [{"scheduler": schedule, "interval": "step"}]


def graph_batches(
    graphs: Sequence[Data], batch_size: int, weights: Tensor | None = None
) -> DataLoader:
    """Training graphs in batches of one size (smaller ones where there are fewer graphs).

    Args:
        graphs: drawn without replacement, in an order of their own in every pass.
        batch_size: graphs per step.
        weights: ``[len(graphs)]``; graphs are drawn with these probabilities, with replacement.
    """
    sampler = None if weights is None else WeightedRandomSampler(weights.tolist(), len(graphs))
    size = min(batch_size, len(graphs))
    return DataLoader(graphs, size, shuffle=sampler is None, sampler=sampler, drop_last=True)


def fit(
    task: Task,
    train: Iterable[Any],
    val: Iterable[Any] | None = None,
    *,
    device: torch.device,
    label: str = "training",
    callbacks: Sequence[Callback] = (),
) -> float:
    """Train a task's model in place by Lightning, without its logs, files and exit codes.

    Args:
        task: the model with what it minimises and how; the model ends on the CPU, in evaluation
            mode.
        train: batches, begun again as often as needed.
        val: batches whose errors the progress bar shows after each pass; without a
            :class:`~egnn_prune.training.KeepBest` among the callbacks nothing is tuned on them.
        device: where to train.
        label: for the progress bar.
        callbacks: Lightning callbacks.

    Returns:
        Wall time of the fit, in seconds.

    Raises:
        ConfigError: there is nothing to train on, or the loss or a weight became NaN or infinite.
    """
    batches = len(train) if isinstance(train, Sized) else None
    if batches == 0:
        raise ConfigError("there is not a single batch to train on; lower the batch size")
    start = time.perf_counter()
    trainer = L.Trainer(
        accelerator=device.type,
        devices=1 if device.index is None else [device.index],
        callbacks=[StepBar(label), *callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0 if val is None else 1.0,
        **task.trainer_options(batches),
    )
    task.model.train()  # lightning keeps the mode: a loaded model would learn without dropout
    try:
        trainer.fit(task, train, val if val is not None else [])
    except SystemExit:  # lightning turns Ctrl-C into an exit code of its own
        raise KeyboardInterrupt from None
    task.model.to("cpu").eval()
    if not all(bool(torch.isfinite(p).all()) for p in task.model.parameters()):
        raise ConfigError("training diverged: a weight is NaN or infinite; lower the lr")
    return time.perf_counter() - start
