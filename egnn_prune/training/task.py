"""One step of learning, and a fit of a given number of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence, Sized
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
from egnn_prune.training.batch_losses import not_finite
from egnn_prune.training.force_loss import ForceLosses
from egnn_prune.training.loss import graph_losses
from egnn_prune.training.progress import StepBar

Losses = Callable[[nn.Module, Any], Tensor]

#: A fit of many short passes over the data looks at the validation split about so often.
VALIDATIONS = 100

# Lightning greets and advises on every fit; what went wrong still comes through
for _name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
    logging.getLogger(_name).setLevel(logging.ERROR)


class RegressionTask(L.LightningModule):
    """Fits a model with AdamW and a one-cycle rate, by default with :func:`graph_losses`.

    Args:
        model: such as :class:`egnn_prune.models.PropertyModel`.
        steps: number of optimiser steps in the whole fit.
        lr: highest learning rate of the cycle (Smith and Topin 2018).
        weight_decay: AdamW's.
        warmup: share of the steps in which the rate rises.
        losses: ``losses(model, batch) -> [samples]``; their mean is minimised.
    """

    def __init__(
        self,
        model: nn.Module,
        steps: int,
        lr: float,
        weight_decay: float,
        warmup: float = 0.1,
        losses: Losses = graph_losses,
    ) -> None:
        super().__init__()
        self.losses = losses
        self.model = model
        self.steps, self.lr, self.weight_decay, self.warmup = steps, lr, weight_decay, warmup

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
        optimiser = torch.optim.AdamW(self.parameters(), self.lr, weight_decay=self.weight_decay)
        # OneCycleLR divides by zero where the rise lasts exactly one step
        rise = self.warmup if self.warmup * self.steps > 1 else 0.9 * self.warmup
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, self.lr, total_steps=self.steps, pct_start=rise
        )
        return [optimiser], [{"scheduler": schedule, "interval": "step"}]


def fit(
    model: nn.Module,
    train: Sequence[Data],
    val: Sequence[Data],
    *,
    steps: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    clip: float,
    device: torch.device,
    label: str = "training",
    weights: Tensor | None = None,
    losses: Losses = graph_losses,
    callbacks: list[Callback] | None = None,
) -> float:
    """Train in place for exactly ``steps`` optimiser steps, then return to the CPU.

    Args:
        model: the model.
        train: training graphs, drawn without replacement and begun again as often as needed.
        val: graphs whose error the progress bar shows after each pass; without a
            :class:`~egnn_prune.training.KeepBest` among the callbacks nothing is tuned on them.
        steps: optimiser steps.
        batch_size: graphs per step (fewer in the last batch of a small set).
        lr: highest learning rate.
        weight_decay: AdamW's.
        clip: largest norm of the gradient.
        device: where to train.
        label: for the progress bar.
        weights: ``[len(train)]``; graphs are drawn with these probabilities, with replacement.
        losses: ``losses(model, batch) -> [samples]``.
        callbacks: Lightning callbacks.

    Returns:
        Wall time of the fit, in seconds.
    """
    batch_size = min(batch_size, len(train))
    if weights is None:
        loader = DataLoader(train, batch_size, shuffle=True, drop_last=True)
    else:
        sampler = WeightedRandomSampler(weights.tolist(), len(train))
        loader = DataLoader(train, batch_size, sampler=sampler, drop_last=True)
    return fit_loader(
        model,
        loader,
        DataLoader(val, 4 * batch_size),
        steps=steps,
        lr=lr,
        weight_decay=weight_decay,
        clip=clip,
        device=device,
        losses=losses,
        label=label,
        callbacks=callbacks,
    )


def fit_loader(
    model: nn.Module,
    loader: Iterable[Any],
    val: Iterable[Any] | None = None,
    *,
    steps: int,
    lr: float,
    weight_decay: float,
    clip: float,
    device: torch.device,
    losses: Losses = graph_losses,
    label: str = "training",
    callbacks: list[Callback] | None = None,
) -> float:
    """Train any model in place for exactly ``steps`` optimiser steps, then return to the CPU.

    Args:
        model: the model.
        loader: batches, begun again as often as needed.
        val: batches whose mean error the progress bar shows, for models of graphs.
        steps: optimiser steps.
        lr: highest learning rate.
        weight_decay: AdamW's.
        clip: largest norm of the gradient.
        device: where to train.
        losses: ``losses(model, batch) -> [samples]``.
        label: for the progress bar.
        callbacks: Lightning callbacks.

    Returns:
        Wall time of the fit, in seconds.

    Raises:
        ConfigError: there is nothing to train on, a setting is out of range, or the loss or a
            weight became NaN or infinite.
    """
    if steps < 1 or not lr > 0 or clip < 0 or weight_decay < 0:
        raise ConfigError(
            f"a fit needs 1 or more steps and a positive learning rate, not {steps} and {lr} "
            f"(clip {clip} and weight decay {weight_decay} must not be negative)"
        )
    if isinstance(loader, Sized) and len(loader) == 0:
        raise ConfigError("there is not a single batch to train on; lower the batch size")
    epochs = steps // len(loader) if isinstance(loader, Sized) else 1
    task = RegressionTask(model, steps, lr, weight_decay, losses=losses)
    seconds = run_fit(
        task,
        loader,
        val if val is not None else [],
        device,
        [StepBar(steps, label), *(callbacks or [])],
        max_steps=steps,
        max_epochs=-1,
        gradient_clip_val=clip,
        limit_val_batches=0 if val is None else 1.0,
        check_val_every_n_epoch=max(1, epochs // VALIDATIONS),
        inference_mode=False,  # forces are gradients, in validation too
        log_every_n_steps=1,
    )
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise ConfigError("training diverged: a weight is NaN or infinite; lower training.lr")
    return seconds


def run_fit(
    task: L.LightningModule,
    train: Iterable[Any],
    val: Iterable[Any],
    device: torch.device,
    callbacks: list[Callback],
    **options: Any,
) -> float:
    """Let Lightning fit the model of a task, without its logs, files and exit codes.

    Args:
        task: a Lightning module with a ``model``, which is trained in place and ends on the CPU in
            evaluation mode.
        train: training batches.
        val: validation batches.
        device: where to train.
        callbacks: Lightning callbacks.
        options: what else ``lightning.Trainer`` takes, such as ``max_epochs``.

    Returns:
        Wall time, in seconds.
    """
    start = time.perf_counter()
    trainer = L.Trainer(
        accelerator=device.type,
        devices=1 if device.index is None else [device.index],
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    model = task.model
    assert isinstance(model, nn.Module)
    model.train()  # lightning keeps the mode it finds: a loaded model would learn without dropout
    try:
        trainer.fit(task, train, val)
    except SystemExit:  # lightning turns Ctrl-C into an exit code of its own
        raise KeyboardInterrupt from None
    model.to("cpu").eval()
    return time.perf_counter() - start
