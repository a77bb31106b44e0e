"""One step of learning, and a fit of many."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, LambdaCallback
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, WeightedRandomSampler
from torch_geometric.data import Data

from egnn_prune.data.collation import draw_as_a_loader, loader
from egnn_prune.errors import (
    ConfigError,
    InputError,
    lost_process_sentence,
    out_of_memory_sentence,
)
from egnn_prune.models import energy_and_forces
from egnn_prune.system.distributed import agree_on_draws, any_of_us, part_of, place, total
from egnn_prune.training.batch_losses import Losses
from egnn_prune.training.divergence import FiniteLosses
from egnn_prune.training.fit_checkpoint import FitCheckpoint, diverged, signals_as_they_are
from egnn_prune.training.force_loss import ForceLosses
from egnn_prune.training.looks import passes_between_looks
from egnn_prune.training.loss import graph_losses
from egnn_prune.training.progress import StepBar
from egnn_prune.training.resumable import ResumableSampler
from egnn_prune.training.schedules import SCHEDULES

# Lightning greets and advises on every fit; what went wrong still comes through
for _name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
    logging.getLogger(_name).setLevel(logging.ERROR)


@dataclass(frozen=True)
class FitSettings:
    """How long and how fast a network learns, handed through to its fit as one value.

    Attributes:
        steps: optimiser steps in the whole fit.
        lr: highest learning rate.
        weight_decay: AdamW's.
        clip: largest norm of the gradient; 0 leaves it as it is.
        warmup: share of the steps in which the rate of ``onecycle`` rises.
        passes_per_look: passes over the data from one look at the validation split to the next;
            more where there would be far over a hundred looks.
        schedule: how the rate goes, a name in :data:`egnn_prune.training.schedules.SCHEDULES`.
        mixed_precision: ``"bf16"``: steps multiply matrices in bfloat16, and add and differentiate
            what autocast leaves in float32; weights, validation and the result are float32.
            Networks in float64 are left as they are.

    Raises:
        ConfigError: a number is out of range, or there is no such schedule or precision.
    """

    steps: int
    lr: float = 1e-3
    weight_decay: float = 1e-2
    clip: float = 5.0
    warmup: float = 0.1
    passes_per_look: int = 1
    schedule: str = "onecycle"
    mixed_precision: str = "none"

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.lr > 0 or self.clip < 0 or self.weight_decay < 0:
            raise ConfigError(
                "a fit needs 1 or more steps and a positive learning rate, not "
                f"{self.steps} and {self.lr} (clip {self.clip} and weight decay "
                f"{self.weight_decay} must not be negative)"
            )
        if self.passes_per_look < 1:
            raise ConfigError(f"passes_per_look must be at least 1, not {self.passes_per_look}")
        if self.schedule not in SCHEDULES:
            known = ", ".join(SCHEDULES)
            raise ConfigError(f"schedule must be one of {known}, not {self.schedule!r}")
        if self.mixed_precision not in ("none", "bf16"):
            raise ConfigError(f"mixed_precision must be none or bf16, not {self.mixed_precision!r}")


class Task(L.LightningModule):
    """What :func:`fit` trains.

    Attributes:
        model: the network.
    """

    model: nn.Module

    def transfer_batch_to_device(self, batch: Any, device: torch.device, number: int) -> Any:
        """Graphs go to a GPU while it computes; Lightning would wait for each of their fields."""
        if isinstance(batch, Data) and device.type == "cuda" and not batch.is_cuda:
            return batch.pin_memory().to(device, non_blocking=True)
        return super().transfer_batch_to_device(batch, device, number)

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip all gradients at once, not weight by weight: the same numbers."""
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        if gradient_clip_algorithm == "value" or not _on_known_devices(weights):
            super().configure_gradient_clipping(
                optimizer, gradient_clip_val, gradient_clip_algorithm
            )
        elif gradient_clip_val:
            nn.utils.clip_grad_norm_(weights, gradient_clip_val, foreach=True)

    def trainer_options(self, batches: int | None) -> dict[str, Any]:
        """Options of Lightning's trainer that say how long the fit lasts.

        Args:
            batches: in a pass over the training data, where that is known.
        """
        raise NotImplementedError


class RegressionTask(Task):
    """Fits a model with AdamW, by default with :func:`graph_losses`.

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
        self._finite, self._passes = FiniteLosses(), 1

    def trainer_options(self, batches: int | None) -> dict[str, Any]:
        """Exactly the steps that were asked for, however many passes over the data they are."""
        self._passes = passes = self.settings.steps // batches if batches else 1
        mixed = self.settings.mixed_precision == "bf16"
        return {
            "precision": "bf16-mixed" if mixed else None,
            "max_steps": self.settings.steps,
            "max_epochs": -1,
            "gradient_clip_val": self.settings.clip,
            "check_val_every_n_epoch": passes_between_looks(passes, self.settings.passes_per_look),
            "inference_mode": False,  # forces are gradients, in validation too
        }

    def training_step(self, batch: Any, number: int) -> Tensor:
        """Mean loss of a batch; a NaN stops the fit."""
        loss = mean_of_all(self.losses(self.model, batch))
        self._finite.check(loss, batch, number)
        return loss

    def on_train_epoch_end(self) -> None:
        """Where the settings leave out a look at the validation split, draw what it would draw.

        The order of the training graphs comes from the same generator: so it does not depend on
        how often is looked.
        """
        trainer, done = self.trainer, self.trainer.current_epoch + 1
        every = trainer.check_val_every_n_epoch
        if every is None or not trainer.limit_val_batches or not trainer.is_last_batch:
            return
        if done % every and done % passes_between_looks(self._passes) == 0:
            draw_as_a_loader()

    def validation_step(self, batch: Data, _: int) -> None:
        """Errors in the target's unit, for the progress bar and the learning curve."""
        # in the precision in which the network will be used, whatever the steps compute in
        with torch.autocast(self.device.type, enabled=False):
            self._look(batch)

    def _look(self, batch: Data) -> None:
        found: Tensor | None = None
        if isinstance(self.losses, ForceLosses):
            prediction, found = energy_and_forces(self.model, batch)
        else:
            prediction = self.model(batch)
        error = (prediction.mean - batch.y).float()
        self._log("val_mae", error.abs())
        self._log("val_mse", error.square())
        if found is not None:
            self._log("val_force_mae", (found - batch.forces).abs().float())

    def _log(self, name: str, errors: Tensor) -> None:
        # all processes see the whole split; what the last digit differs by must not part them
        self.log(name, errors.mean(), batch_size=len(errors), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """AdamW, with a learning rate that is stepped after every batch."""
        s = self.settings
        weights = list(self.parameters())
        # one kernel for a step of all weights, where there is one
        fused = _on_known_devices(weights) or None
        optimiser = torch.optim.AdamW(weights, s.lr, weight_decay=s.weight_decay, fused=fused)
        schedule = SCHEDULES[s.schedule](optimiser, s.lr, s.steps, s.warmup)
        return [optimiser], [{"scheduler": schedule, "interval": "step"}]


def graph_batches(
    graphs: Sequence[Data], batch_size: int, weights: Tensor | None = None
) -> DataLoader:
    """Training graphs in batches of one size (smaller ones where there are fewer graphs).

    Several processes that share a fit get a part of every batch each.

    Args:
        graphs: drawn without replacement, in an order of their own in every pass.
        batch_size: graphs per step.
        weights: ``[len(graphs)]``; graphs are drawn with these probabilities, with replacement.
    """
    sampler: Any = RandomSampler(graphs)
    if weights is not None:
        sampler = WeightedRandomSampler(weights.tolist(), len(graphs))
    size = min(batch_size, len(graphs))
    if size < place()[1]:
        raise ConfigError(
            f"{size} graphs in a batch leave nothing to do for some of {place()[1]} processes; "
            "lower trainer.devices or trainer.nodes"
        )
    return loader(_shared(graphs), size, sampler=ResumableSampler(sampler), drop_last=True)


class _PartOfBatches(Sequence[Data]):
    """Graphs of which a loader gets this process's part of every batch, and reads no others."""

    def __init__(self, graphs: Sequence[Data]) -> None:
        self.graphs = graphs

    def __len__(self) -> int:
        return len(self.graphs)

    def __getitem__(self, row: Any) -> Any:
        return self.graphs[row]

    def __getitems__(self, rows: Sequence[int]) -> list[Data]:
        """What torch's loader makes a batch of."""
        return [self.graphs[row] for row in part_of(rows)]


def _shared(graphs: Sequence[Data]) -> Sequence[Data]:
    return graphs if place()[1] == 1 else _PartOfBatches(graphs)


def mean_of_all(losses: Tensor) -> Tensor:
    """The mean over the samples ``[n]`` of a batch, of which each process has a part.

    DDP takes the mean of the gradients over processes, whose parts differ in size: so this is their
    sum over the number of all samples, times the number of processes.
    """
    count = place()[1]
    return losses.mean() if count == 1 else losses.sum() * (count / total(losses.numel()))


def fit(
    task: Task,
    train: Iterable[Any],
    val: Iterable[Any] | None = None,
    *,
    device: torch.device,
    label: str = "training",
    callbacks: Sequence[Callback] = (),
    checkpoint: FitCheckpoint | None = None,
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
        checkpoint: keeps the state of a fit on :func:`graph_batches` in a file. Where that is there
            the fit goes on from it; it is left behind, so that whoever is killed between this fit
            and the next need not repeat it.

    Returns:
        Wall time of the fit, in seconds, in all processes that worked on it.

    Raises:
        ConfigError: there is nothing to train on, or the loss or a weight became NaN or infinite.
    """
    batches = len(train) if isinstance(train, Sized) else None
    if batches == 0:
        raise ConfigError("there is not a single batch to train on; lower the batch size")
    start = time.perf_counter()
    begun = None if checkpoint is None else checkpoint.prepare(train)
    give_back = signals_as_they_are()
    first: list[Callback] = [LambdaCallback(on_train_start=give_back)]
    first += [] if checkpoint is None else [checkpoint]
    trainer = L.Trainer(
        **_where(device),
        callbacks=[*first, StepBar(label), *callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0 if val is None else 1.0,
        **task.trainer_options(batches),
    )
    rank, processes = place()
    if processes > 1:
        os.environ.pop("PL_GLOBAL_SEED", None)  # Lightning would seed again
    if rank:  # other dropout than the first one's, whose order of the graphs counts
        torch.manual_seed(torch.initial_seed() + rank)
    task.model.train()  # lightning keeps the mode: a loaded model would learn without dropout
    try:
        with warnings.catch_warnings():  # Lightning does not know that these batches go on
            warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before")
            trainer.fit(
                task, train, val if val is not None else [], ckpt_path=begun, weights_only=True
            )
    except SystemExit:  # lightning turns Ctrl-C into an exit code of its own
        raise KeyboardInterrupt from None
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        told = lost_process_sentence(error) or out_of_memory_sentence(error)
        fits = begun is None or isinstance(error, InputError) or told
        if fits or (checkpoint and checkpoint.started):
            raise
        raise InputError(
            f"{begun} is of another fit or another version ({str(error).splitlines()[:1]}); "
            "delete it to begin this fit anew"
        ) from error
    finally:
        give_back()
    task.model.to("cpu").eval()
    agree_on_draws()
    if not all(bool(torch.isfinite(p).all()) for p in task.model.parameters()):
        raise diverged()
    if checkpoint is not None:
        checkpoint.draw_on()
        checkpoint.save(trainer, ended=True)
        if any_of_us(checkpoint.asked):
            raise KeyboardInterrupt
        return checkpoint.seconds
    return time.perf_counter() - start


def _where(device: torch.device) -> dict[str, Any]:
    """Options of Lightning's trainer that say what it computes on, and with whom."""
    count = place()[1]
    if count == 1:
        devices: Any = 1 if device.index is None else [device.index]
        return {"accelerator": device.type, "devices": devices}
    here = int(os.environ.get("LOCAL_WORLD_SIZE", count))
    return {
        "accelerator": device.type,
        "devices": here,
        "num_nodes": count // here,
        # weights that are frozen on the way get no gradients
        "strategy": DDPStrategy(
            cluster_environment=TorchElasticEnvironment(), find_unused_parameters=True
        ),
        "use_distributed_sampler": False,
    }


def _on_known_devices(weights: Sequence[Tensor]) -> bool:
    """Whether torch has its joint kernels for all of the weights."""
    return all(w.device.type in ("cpu", "cuda") and w.is_floating_point() for w in weights)
