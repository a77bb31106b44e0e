"""Fine-tuning of potentials: so many steps, judged by force errors on a validation split."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor, nn
from torch_geometric.data import Data

from egnn_prune.channels import evaluating
from egnn_prune.data.collation import held
from egnn_prune.errors import ConfigError
from egnn_prune.graphs import graph_pointer
from egnn_prune.models import energy_and_forces
from egnn_prune.training.batch_losses import Losses
from egnn_prune.training.curve import LearningCurve
from egnn_prune.training.fit_checkpoint import FitCheckpoint
from egnn_prune.training.keep_best import KeepBest
from egnn_prune.training.potential_loss import (
    PotentialLosses,
    check_labels,
    check_one_kind,
    reference_labels,
)
from egnn_prune.training.task import FitSettings, RegressionTask, fit, graph_batches
from egnn_prune.training.weight_averaging import AveragedWeights

#: A validation is better than another by at least so much, in meV/Angstrom, for ``patience``.
LEAST_GAIN = 0.1


@dataclass(frozen=True)
class PotentialSettings(FitSettings):
    """How a potential is fine-tuned; two networks with the same ``steps`` had equal chances.

    Attributes:
        steps: optimiser steps in the whole fit.
        lr: highest learning rate; compare several on the validation split.
        weight_decay: AdamW's; pretrained weights are not drawn to zero.
        clip: largest norm of the gradient, in the loss's unit per weight.
        warmup: share of the steps in which the rate of ``onecycle`` rises.
        schedule: how the rate goes, as for :class:`~egnn_prune.training.FitSettings`.
        batch_size: structures per step, and per pass of validation.
        validations: looks at the validation split, evenly spaced, the last one at the last step.
        ema: decay of the averaged weights; 0 trains without an average.
        patience: validations without a better force error after which the fit stops; 0 never
            stops early, so that compared networks get equal steps.
        freeze: submodules whose weights stay as they are, bit for bit, such as ``("network.0",)``,
            or ``"message_passing"`` for those that the model itself names.

    Raises:
        ConfigError: a number is out of range.
    """

    lr: float = 1e-2
    weight_decay: float = 0.0
    clip: float = 10.0
    batch_size: int = 5
    validations: int = 10
    ema: float = 0.999
    patience: int = 0
    freeze: str | tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 1 or self.validations < 1 or self.patience < 0:
            raise ConfigError(
                "a potential is trained on 1 or more structures a step, with 1 or more "
                f"validations and a patience of at least 0, not {self.batch_size}, "
                f"{self.validations} and {self.patience}"
            )


class PotentialTask(RegressionTask):
    """Fits a potential; logs ``val_force_rmse`` (meV/Angstrom), ``val_energy_mae`` (meV/atom).

    Args:
        model: predicts energies in eV, such as :class:`~egnn_prune.models.PropertyModel`.
        settings: how long and how fast.
        losses: ``losses(model, batch) -> [B]``; their mean is minimised.
    """

    settings: PotentialSettings

    def __init__(
        self, model: nn.Module, settings: PotentialSettings, losses: Losses | None = None
    ) -> None:
        super().__init__(model, settings, losses or PotentialLosses())
        self._sums: list[Tensor] = []

    def trainer_options(self, batches: int | None) -> dict[str, Any]:
        """Validation after so many steps, however many passes over the data they are."""
        every = max(1, self.settings.steps // self.settings.validations)
        options = super().trainer_options(batches)
        return {**options, "val_check_interval": every, "check_val_every_n_epoch": None}

    def on_train_batch_end(self, *_: Any) -> None:
        """Look at the validation split after the last step, too.

        Lightning does where a fit stops early, and not where its steps are used up.
        """
        if self.trainer.global_step >= self.settings.steps:
            self.trainer.should_stop = True

    def validation_step(self, batch: Data, _: int) -> None:
        """Sums over a batch, from which :meth:`on_validation_epoch_end` makes the errors."""
        self._sums.append(error_sums(self.model, batch))

    def on_validation_epoch_end(self) -> None:
        """Log the errors over the whole split."""
        self.log_dict(errors_of(self._sums))
        self._sums = []


def error_sums(model: nn.Module, batch: Data) -> Tensor:
    """``[4]``: squared force errors, their number, absolute energy errors per atom, and theirs."""
    energies, forces, _ = reference_labels(batch)
    prediction, found = energy_and_forces(model, batch, history=False)
    wrong = (found.double() - forces.double()).square()
    energy = (prediction.mean.double() - energies).abs() / graph_pointer(batch).diff()
    numbers = (wrong.sum(), wrong.numel(), energy.sum(), energy.numel())
    return torch.tensor([float(number) for number in numbers], dtype=torch.float64)


def errors_of(sums: Sequence[Tensor]) -> dict[str, float]:
    """What validation logs, from the :func:`error_sums` of all batches."""
    squares, components, energy, graphs = torch.stack(list(sums)).sum(0).tolist()
    return {
        "val_force_rmse": 1000 * (squares / components) ** 0.5,
        "val_energy_mae": 1000 * energy / graphs,
    }


@dataclass(frozen=True)
class FitResult:
    """What a fit of a potential did.

    Attributes:
        seconds: wall time.
        steps: optimiser steps that were made.
        best_step: the step whose weights the model has now; 0 where no step made it better.
        force_rmse: their error on the validation split, in meV/Angstrom.
        curve: one row a validation, the first before the first step: ``step``, ``seconds``,
            ``val_force_rmse``, ``val_energy_mae``.
    """

    seconds: float
    steps: int
    best_step: int
    force_rmse: float
    curve: list[dict[str, float]]


def fit_potential(
    model: nn.Module,
    train: Sequence[Data],
    val: Sequence[Data],
    settings: PotentialSettings,
    *,
    losses: Losses | None = None,
    device: torch.device | None = None,
    seed: int = 0,
    label: str = "fine-tuning",
    callbacks: Sequence[Callback] = (),
    weights: Tensor | None = None,
    checkpoint: FitCheckpoint | None = None,
) -> FitResult:
    """Train a potential in place; it ends with the weights that had the lowest force error on val.

    The weights that it begins with count, too: pretrained ones may be as good as they get.
    Channels that masks hold at zero stay zero. Energies are fitted as they are: call
    :func:`~egnn_prune.training.refit_shifts` first where the data come from another method than
    the model's own energies.

    Args:
        model: predicts energies in eV; ends on the CPU, in evaluation mode.
        train: structures with ``y [1]`` in eV, ``forces [N, 3]`` in eV/Angstrom and, where
            stresses are weighted, ``stress [1, 3, 3]`` in eV/Angstrom^3.
        val: structures, labelled alike, that choose the step whose weights are kept.
        settings: how long and how fast.
        losses: what is minimised, :class:`~egnn_prune.training.PotentialLosses` by default.
        device: where to train, by default on the CPU.
        seed: of the order of the structures.
        label: for the progress bar.
        callbacks: more Lightning callbacks, such as one that prunes.
        weights: ``[len(train)]``; structures are drawn with these probabilities, with replacement.
        checkpoint: keeps the state of the fit in a file, from which it goes on.

    Raises:
        ConfigError: nothing is left to train, a name of frozen modules is unknown, or the fit
            diverged.
        DataError: a label is missing, NaN or infinite, or some structures have a cell or a stress
            and others do not.
    """
    for graphs, split in ((train, "training"), (val, "validation")):
        check_labels(graphs, split)
        check_one_kind(graphs, split)
    device = device or torch.device("cpu")
    best, curve = KeepBest("val_force_rmse"), LearningCurve()
    with evaluating(model.to(device)):
        looked_at = held(val, settings.batch_size)
        start = errors_of([error_sums(model, batch.to(device)) for batch in looked_at])
    curve.rows.append({"step": 0, "seconds": 0.0, **start})
    if math.isfinite(start["val_force_rmse"]):
        begun = {f"model.{name}": value.clone() for name, value in model.state_dict().items()}
        best.load_state_dict({"value": start["val_force_rmse"], "step": 0, "weights": begun})
    watching: list[Callback] = [AveragedWeights(settings.ema)] if settings.ema else []
    if settings.patience:
        watching.append(EarlyStopping("val_force_rmse", LEAST_GAIN, settings.patience))
    task = PotentialTask(model, settings, losses)
    with frozen(model, settings.freeze), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        seconds = fit(
            task,
            graph_batches(train, settings.batch_size, weights),
            looked_at,
            device=device,
            label=label,
            callbacks=[*callbacks, *watching, best, curve],
            checkpoint=checkpoint,
        )
    steps = int(curve.rows[-1]["step"])  # the last step is always looked at
    return FitResult(seconds, steps, best.step, best.value, curve.rows)


@contextmanager
def frozen(model: nn.Module, what: str | Sequence[str]) -> Iterator[None]:
    """Within this context the weights of some submodules get no gradient, and so never move.

    Args:
        model: the model.
        what: dotted names of submodules, or ``"message_passing"``.

    Raises:
        ConfigError: there is no submodule of a name, the model does not say what passes its
            messages, or nothing else is left to train.
    """
    if what == "message_passing":
        passing = getattr(model, "message_passing_modules", None)
        if passing is None:
            raise ConfigError(
                f"{type(model).__name__} has no message_passing_modules() to be frozen; give the "
                "names of submodules instead"
            )
        what = passing()
    names = [what] if isinstance(what, str) else list(what)
    known = dict(model.named_modules())
    for name in names:
        if name not in known:
            near = ", ".join(child for child, _ in model.named_children())
            raise ConfigError(f"there is no submodule {name!r} to be frozen; the model has {near}")
    held = [p for name in names for p in known[name].parameters() if p.requires_grad]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        if not any(p.requires_grad for p in model.parameters()):
            raise ConfigError("all weights are frozen; leave something to be trained")
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)
