"""What can be watched while a model trains: TensorBoard, or Weights & Biases."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from egnn_prune.errors import ConfigError, MissingExtraError
from egnn_prune.training.pruning_callback import PruningCallback

#: What each kind of log needs, and how it is installed; ``"csv"`` and ``"none"`` need nothing.
NEEDS = {
    "tensorboard": ("tensorboard", "pip install 'egnn_prune[train]'"),
    "wandb": ("wandb", "pip install wandb"),
    "csv": None,
    "none": None,
}
#: Steps between two points at most, and points of a short fit at least.
EVERY, POINTS = 50, 20


def require_logger(kind: str) -> None:
    """Make sure that a kind of log can be written: before the work, not after an hour of it.

    Raises:
        ConfigError: there is no such kind.
        MissingExtraError: its library is not installed.
    """
    if kind not in NEEDS:
        raise ConfigError(f"trainer.logger is one of {', '.join(NEEDS)}, not {kind!r}")
    needed = NEEDS[kind]
    if needed is not None and find_spec(needed[0]) is None:
        raise MissingExtraError(
            f"trainer.logger={kind} needs the package {needed[0]}; run `{needed[1]}`, or take "
            "trainer.logger=csv"
        )


class Points(Protocol):
    """Where numbers of a step go."""

    def put(self, numbers: dict[str, float], step: int) -> None:
        """Add them."""

    def flush(self) -> None:
        """Bring what was added to where it is read."""

    def close(self) -> None:
        """Nothing more comes."""


class TensorBoard:
    """Event files, to be seen by ``tensorboard --logdir FOLDER``.

    Args:
        folder: of this fit.
        done: steps that the fit has made already; what files of a killed process say of later
            ones is not shown.
    """

    def __init__(self, folder: Path, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second

        self.writer = SummaryWriter(str(folder), purge_step=done + 1)

    def put(self, numbers: dict[str, float], step: int) -> None:
        """Add them as scalars."""
        for name, number in numbers.items():
            self.writer.add_scalar(name, number, step)

    def flush(self) -> None:
        """Write to the files."""
        self.writer.flush()

    def close(self) -> None:
        """Close the files."""
        self.writer.close()


class WeightsAndBiases:
    """A run at Weights & Biases, which the same fit goes on with when it is begun again.

    The steps between the last save of a killed fit and its end are sent twice, with equal numbers.

    Args:
        folder: of this fit; its local files go there, and its place names the run.
        done: steps that the fit has made already.
    """

    def __init__(self, folder: Path, done: int) -> None:
        from lightning.pytorch.loggers import WandbLogger

        folder.mkdir(parents=True, exist_ok=True)
        run, place = folder.parents[1].resolve(), str(folder.resolve())
        self.logger = WandbLogger(
            name=f"{run.name}/{folder.name}",
            group=run.name,
            project="egnn_prune",
            save_dir=folder,
            id=hashlib.sha256(place.encode()).hexdigest()[:16],
            resume="allow",
        )

    def put(self, numbers: dict[str, float], step: int) -> None:
        """Send them."""
        self.logger.log_metrics(numbers, step)

    def flush(self) -> None:
        """They are sent as they come."""

    def close(self) -> None:
        """End the run, so that the next fit begins another one."""
        self.logger.experiment.finish()


KINDS: dict[str, Callable[[Path, int], Points]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


class FitLog(Callback):
    """Logs a fit every so many steps: loss, learning rate, sparsity, and all validation errors.

    Points are ``train_loss``, ``lr`` (of that step), ``sparsity`` (share of channels that a
    :class:`~egnn_prune.training.PruningCallback` has masked) and the names of
    :class:`~egnn_prune.training.LearningCurve`, by the optimiser steps done. Between them nothing
    waits for a GPU. A fit that goes on from a save repeats no step. What cannot be written is said
    once, and stops nothing.

    Args:
        kind: ``"tensorboard"`` or ``"wandb"``; the others of :data:`NEEDS` log nothing here.
        run: folder of the run; files go to ``<run>/<kind>/<label>``.
        label: of the fit, as part of a path.

    Raises:
        ConfigError: there is no such kind.
        MissingExtraError: its library is not installed.
    """

    def __init__(self, kind: str, run: Path, label: str) -> None:
        require_logger(kind)
        self.kind, self.folder = kind, Path(run) / kind / label
        self._points: Points | None = None
        self._every, self._lr = 1, 0.0

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Begin, or go on behind what a killed process logged."""
        steps = trainer.estimated_stepping_batches
        self._every = int(max(1, min(EVERY, steps // POINTS)))
        if self.kind in KINDS and trainer.is_global_zero:
            try:
                self._points = KINDS[self.kind](self.folder, trainer.global_step)
            except OSError as error:
                self._give_up(error)

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Remember the learning rate of a step that is logged: its end sets the next one's."""
        if (trainer.global_step + 1) % self._every == 0:
            self._lr = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        """Log every so many steps."""
        if self.kind not in KINDS or trainer.global_step % self._every:
            return
        numbers = {"lr": self._lr}
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor):
            numbers["train_loss"] = float(trainer.strategy.reduce(loss.detach(), reduce_op="mean"))
        keep = [keep for c in _pruning(trainer) for keep in c.keep.values()]
        if keep:
            left, all_ = (sum(int(f(k)) for k in keep) for f in (torch.sum, torch.numel))
            numbers["sparsity"] = 1.0 - left / all_
        self._put(numbers, trainer.global_step)

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Log what was found, and bring it to the disk."""
        if self._points is None:
            return
        found = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val_")}
        self._put(found, trainer.global_step)
        self._flush()

    def on_save_checkpoint(self, *_: Any) -> None:
        """Whoever goes on from this save finds all points up to here."""
        self._flush()

    def teardown(self, *_: Any, **__: Any) -> None:
        """Close."""
        points, self._points = self._points, None
        if points is not None:
            try:
                points.close()
            except OSError as error:
                self._give_up(error)

    def on_exception(self, *_: Any) -> None:
        """Close, where a fit is interrupted or fails."""
        self.teardown()

    def _put(self, numbers: dict[str, float], step: int) -> None:
        if self._points is not None:
            try:
                self._points.put(numbers, step)
            except OSError as error:
                self._give_up(error)

    def _flush(self) -> None:
        if self._points is not None:
            try:
                self._points.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._points = None
        warnings.warn(
            f"cannot log to {self.folder}: {error.strerror or error}; the fit goes on without",
            stacklevel=3,
        )


def _pruning(trainer: L.Trainer) -> list[PruningCallback]:
    callbacks = getattr(trainer, "callbacks", [])
    return [callback for callback in callbacks if isinstance(callback, PruningCallback)]
