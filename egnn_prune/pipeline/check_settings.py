"""Checks of the settings, before any time is spent."""

from __future__ import annotations

import math
import os

from egnn_prune.configs.settings import Settings
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.criteria import CRITERIA
from egnn_prune.pruning.freezing import MODES
from egnn_prune.pruning.schedule import SCHEDULES, sparsities
from egnn_prune.pruning.scope import SCOPES
from egnn_prune.selection import STRATEGIES
from egnn_prune.training.loss import LOSSES
from egnn_prune.uncertainty import CALIBRATIONS

#: Calibrations of a regression.
REGRESSION = [name for name in CALIBRATIONS if name != "temperature"]
#: What a fit can end with the best of, see training.best_by.
MEASURED = ("val_mae", "val_mse", "val_force_mae")
METHODS = ("mean_variance", "dropout", "last_layer", "shallow", "deep", "snapshot", "bootstrap")


def validate(settings: Settings) -> None:
    """Refuse settings outside their range, and settings that contradict each other.

    Raises:
        ConfigError: one sentence about the first wrong setting.
    """
    s = settings
    _one_of("pruning.schedule", s.pruning.schedule, SCHEDULES)
    sparsities(s.pruning.schedule, s.pruning.sparsity, s.pruning.rounds)
    _at_least("pruning.round_to", s.pruning.round_to, 1)
    _one_of("pruning.criterion", s.pruning.criterion, CRITERIA)
    _one_of("pruning.scope", s.pruning.scope, SCOPES)
    _one_of("pruning.freeze", s.pruning.freeze, MODES)
    _one_of("selection.strategy", s.selection.strategy, STRATEGIES)
    _one_of("uncertainty.method", s.uncertainty.method, METHODS)
    _one_of("uncertainty.calibration", s.uncertainty.calibration, REGRESSION)
    _one_of("training.loss", s.training.loss, LOSSES)
    _one_of("model.network", s.model.network, ("egnn", "irreps"))
    _one_of("precision", s.precision, ("float32", "float64"))
    _within("pruning.until", s.pruning.until, 0, 1)
    _within("pruning.freeze_fraction", s.pruning.freeze_fraction, 0, 1)
    _within("selection.replay", s.selection.replay, 0, 0.99)
    _at_least("selection.rounds", s.selection.rounds, 1)
    if s.selection.rounds > s.training.finetune_epochs:
        raise ConfigError(
            f"selection.rounds ({s.selection.rounds}) cannot exceed training.finetune_epochs "
            f"({s.training.finetune_epochs}): graphs are selected anew between epochs"
        )
    band = list(s.selection.band)
    if len(band) != 2 or not 0 <= band[0] < band[1] <= 1:
        raise ConfigError(
            f"selection.band needs two quantiles, 0 <= lowest < highest <= 1, not {band}"
        )
    _within("selection.fraction", s.selection.fraction, 1e-9, 1)
    _within("model.dropout", s.model.dropout, 0, 0.99)
    _within("model.readout_dropout", s.model.readout_dropout, 0, 0.99)
    for name in ("max_epochs", "finetune_epochs", "batch_size"):
        _at_least(f"training.{name}", getattr(s.training, name), 1)
    for name in ("lr", "finetune_lr", "clip"):
        _at_least(f"training.{name}", getattr(s.training, name), 1e-12)
    _at_least("training.force_weight", s.training.force_weight, 0)
    if s.training.force_weight and s.training.loss != "faithful":
        raise ConfigError("training.force_weight works with training.loss=faithful only")
    _one_of("training.best_by", s.training.best_by, (None, *MEASURED))
    if s.training.best_by == "val_force_mae" and not s.training.force_weight:
        raise ConfigError(
            "training.best_by=val_force_mae needs forces: set training.force_weight above 0"
        )
    _at_least("training.weight_decay", s.training.weight_decay, 0)
    _at_least("model.hidden", s.model.hidden, 1)
    _at_least("model.layers", s.model.layers, 1)
    _at_least("model.copies", s.model.copies, 1)
    _within("model.lmax", s.model.lmax, 0, 3)
    _at_least("model.radial", s.model.radial, 0)
    _at_least("uncertainty.members", s.uncertainty.members, 2)
    _at_least("uncertainty.samples", s.uncertainty.samples, 2)
    _within("seed", s.seed, 0, 4_000_000)  # a stage's seed, 1000 times as large, has 32 bits
    if s.model.cutoff is not None:
        _at_least("model.cutoff", s.model.cutoff, 1e-12)
    elif s.model.network == "irreps":
        raise ConfigError("model.network=irreps needs a model.cutoff, such as 4.0")
    if s.threads is not None:
        _within("threads", s.threads, 1, 4 * (os.cpu_count() or 1))
    if s.uncertainty.method == "dropout" and s.model.dropout + s.model.readout_dropout == 0:
        raise ConfigError(
            "uncertainty.method=dropout needs model.dropout or model.readout_dropout above 0; "
            "or choose uncertainty.method=shallow"
        )


def _one_of(name: str, value: object, allowed: object) -> None:
    names = list(allowed)  # type: ignore[call-overload]
    if value not in names:
        shown = ", ".join("null" if known is None else known for known in names)
        raise ConfigError(f"{name} must be one of {shown}, not {value!r}")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} must lie between {low:g} and {high:g}, not {value}")


def _at_least(name: str, value: float, low: float) -> None:
    if not low <= value < math.inf:
        raise ConfigError(f"{name} must be at least {low:g}, not {value}")
