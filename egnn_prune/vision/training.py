"""One step of learning to classify, and a fit that stops early when it is told to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from egnn_prune.configs.settings import check
from egnn_prune.errors import ConfigError
from egnn_prune.training import KeepBest, LearningCurve, Task, fit
from egnn_prune.vision.data import Batches
from egnn_prune.vision.settings import ImageFitSettings

#: ``fused`` is one pass over the parameters; torch's default on a CPU is a loop over them, which
#: takes longer than the backward pass of a small network.
OPTIMIZERS: dict[str, Callable[[list[nn.Parameter], ImageFitSettings], Optimizer]] = {
    "sgd": lambda p, s: torch.optim.SGD(
        p, s.lr, momentum=s.momentum, weight_decay=s.weight_decay, fused=True
    ),
    "adam": lambda p, s: torch.optim.Adam(p, s.lr, weight_decay=s.weight_decay, fused=True),
    "adamw": lambda p, s: torch.optim.AdamW(p, s.lr, weight_decay=s.weight_decay, fused=True),
}


def image_losses(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of every image, ``[B]``, in nats."""
    x, y = batch
    return F.cross_entropy(network(x), y, reduction="none")


def build_optimizer(network: nn.Module, settings: ImageFitSettings) -> Optimizer:
    """The optimiser of the settings, for all parameters of a network."""
    return OPTIMIZERS[settings.optimizer](list(network.parameters()), settings)


class ClassificationTask(Task):
    """Fits a network to labels by cross-entropy.

    Args:
        model: maps images ``[B, C, H, W]`` to logits ``[B, classes]``.
        settings: how fast.
        optimizer: one that already owns the model's parameters, to go on with its moments.
    """

    def __init__(
        self, model: nn.Module, settings: ImageFitSettings, optimizer: Optimizer | None = None
    ) -> None:
        super().__init__()
        self.model, self.settings = model, settings
        self.optimizer = optimizer or build_optimizer(model, settings)

    def trainer_options(self, batches: int | None) -> dict[str, Any]:
        """At most the epochs of the settings."""
        return {"max_epochs": self.settings.epochs}

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Mean cross-entropy of a batch."""
        return image_losses(self.model, batch).mean()

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Mean cross-entropy in nats, and the share of wrong labels."""
        logits = self.model(batch[0])
        wrong = (logits.argmax(1) != batch[1]).float()
        loss = F.cross_entropy(logits, batch[1])
        self.log_dict({"val_loss": loss, "val_error": wrong.mean()}, batch_size=len(logits))

    def configure_optimizers(self) -> Any:
        """The optimiser with its schedule, stepped after every batch."""
        steps = int(self.trainer.estimated_stepping_batches)
        name, rate = self.settings.schedule, self.settings.lr
        if name == "constant":
            return self.optimizer
        schedulers = torch.optim.lr_scheduler
        schedule: Any = (
            schedulers.CosineAnnealingLR(self.optimizer, steps)
            if name == "cosine"
            else schedulers.OneCycleLR(self.optimizer, rate, total_steps=max(2, steps))
        )
        return [self.optimizer], [{"scheduler": schedule, "interval": "step"}]


@dataclass(frozen=True)
class Fitted:
    """What a fit did.

    Attributes:
        epochs: passes over the training images until it ended.
        best_epoch: after which of them the weights that were kept were found (the last, where
            ``monitor`` is not set).
        seconds: wall time.
        cpu_seconds: processor time of this process; where others use the machine, the fairer one.
        history: one row an epoch: ``epoch, val_loss, val_accuracy, seconds``.
    """

    epochs: int
    best_epoch: int
    seconds: float
    cpu_seconds: float
    history: list[dict[str, float]]

    def outputs(self) -> dict[str, float]:
        """All but the history and the processor time, for the row of an experiment."""
        return {"epochs": self.epochs, "best_epoch": self.best_epoch, "seconds": self.seconds}


def fit_classifier(
    network: nn.Module,
    train: Batches,
    val: Batches,
    settings: ImageFitSettings,
    *,
    device: torch.device,
    label: str = "training",
    optimizer: Optimizer | None = None,
) -> Fitted:
    """Train in place, look at the validation images after every epoch, return to the CPU.

    Args:
        network: maps images to logits; a masked one keeps its masks.
        train: training images.
        val: validation images, which decide when to stop and which weights to keep.
        settings: how long and how fast.
        device: where to train.
        label: for the progress bar.
        optimizer: to go on with, instead of a new one; it has to own the network's parameters.

    Raises:
        ConfigError: a setting is out of range, batch norm would see single images, or the loss
            became NaN or infinite.
    """
    check(settings)
    rest = 0 if train.drop_last else len(train.labels) % train.batch_size
    if 1 in (train.batch_size, rest) and any(isinstance(m, _BatchNorm) for m in network.modules()):
        raise ConfigError(
            "batch normalisation cannot learn from batches of one image; set training.batch_size "
            "to 2 or more, drop a last batch of one, or use a network without it"
        )
    curve = LearningCurve()
    watching: list[Callback] = [curve]
    measure = settings.monitor or "val_loss"
    best = KeepBest(measure)
    if settings.monitor:
        watching.append(best)
    if settings.patience is not None:
        watching.append(EarlyStopping(measure, patience=settings.patience, check_finite=True))
    network.to(device)  # before there is an optimiser: it holds on to the parameters it was given
    task = ClassificationTask(network, settings, optimizer)
    processor = time.process_time()
    seconds = fit(task, train, val, device=device, label=label, callbacks=watching)
    processor = time.process_time() - processor
    if any(not math.isfinite(row["val_loss"]) for row in curve.rows):  # best weights are put back
        raise ConfigError("training diverged: the validation loss is NaN or infinite; lower the lr")
    per_epoch = len(train)
    history = [
        {
            "epoch": row["step"] // per_epoch,
            "val_loss": row["val_loss"],
            "val_accuracy": 1 - row["val_error"],
            "seconds": row["seconds"],
        }
        for row in curve.rows
    ]
    epochs = len(history)
    best_epoch = best.step // per_epoch if settings.monitor else epochs
    return Fitted(epochs, best_epoch, seconds, processor, history)
