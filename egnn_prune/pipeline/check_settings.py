"""Checks of the settings of a job on graphs, before any time is spent."""

from __future__ import annotations

from egnn_prune.configs.settings import Settings, check, loss_name, readout_dropout
from egnn_prune.errors import ConfigError


def validate(settings: Settings) -> None:
    """Refuse settings outside their range, and settings that contradict each other.

    Raises:
        ConfigError: one sentence about the first wrong setting.
    """
    check(settings)
    s, t = settings, settings.training
    processes = s.trainer.devices * s.trainer.nodes
    if processes > t.batch_size:
        raise ConfigError(
            f"training.batch_size={t.batch_size} leaves nothing to do for some of {processes} "
            "processes; lower trainer.devices or trainer.nodes"
        )
    if s.selection.rounds > t.finetune_epochs:
        raise ConfigError(
            f"selection.rounds ({s.selection.rounds}) cannot exceed training.finetune_epochs "
            f"({t.finetune_epochs}): graphs are selected anew between epochs"
        )
    if s.pruning.sparsity is not None and s.pruning.latency is not None:
        raise ConfigError(
            f"pruning.sparsity={s.pruning.sparsity:g} and pruning.latency={s.pruning.latency:g} "
            "are two budgets, and one decides; set the other one to null"
        )
    band = s.selection.band
    if len(band) != 2 or not band[0] < band[1]:
        raise ConfigError(
            f"selection.band needs two quantiles, 0 <= lowest < highest <= 1, not {band}"
        )
    if t.force_weight and loss_name(s) != "faithful":
        raise ConfigError("training.force_weight works with training.loss=faithful only")
    if t.monitor == "val_force_mae" and not t.force_weight:
        raise ConfigError(
            "training.monitor=val_force_mae needs forces: set training.force_weight above 0"
        )
    if s.model.network == "irreps" and s.model.cutoff is None:
        raise ConfigError("model.network=irreps needs a model.cutoff, such as 4.0")
    if s.uncertainty.method == "dropout" and s.model.dropout + readout_dropout(s) == 0:
        raise ConfigError(
            "uncertainty.method=dropout needs model.dropout or model.readout_dropout above 0; "
            "or leave uncertainty.method away"
        )
