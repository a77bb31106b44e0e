"""Criteria: how much a channel matters, higher is more. One small file each."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from egnn_prune.channels import ChannelGroup
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.criteria.activation_norm import activation_norm
from egnn_prune.pruning.criteria.context import Context
from egnn_prune.pruning.criteria.fisher import fisher
from egnn_prune.pruning.criteria.grasp import grasp
from egnn_prune.pruning.criteria.lamp import lamp
from egnn_prune.pruning.criteria.magnitude import group_norm, magnitude, magnitude_l1
from egnn_prune.pruning.criteria.movement import movement
from egnn_prune.pruning.criteria.random import random
from egnn_prune.pruning.criteria.snip import snip
from egnn_prune.pruning.criteria.synflow import synflow
from egnn_prune.pruning.criteria.taylor import taylor
from egnn_prune.pruning.criteria.uncertainty import uncertainty
from egnn_prune.pruning.criteria.wanda import wanda
from egnn_prune.pruning.movement_recorder import Movement

Criterion = Callable[[ChannelGroup, Context], Tensor]

CRITERIA: dict[str, Criterion] = {
    "activation_norm": activation_norm,
    "fisher": fisher,
    "grasp": grasp,
    "group_norm": group_norm,
    "lamp": lamp,
    "magnitude": magnitude,
    "magnitude_l1": magnitude_l1,
    "movement": movement,
    "random": random,
    "snip": snip,
    "synflow": synflow,
    "taylor": taylor,
    "uncertainty": uncertainty,
    "wanda": wanda,
}
#: Criteria that look at weights alone.
DATA_FREE = {"group_norm", "lamp", "magnitude", "magnitude_l1", "random"}


def score_channels(criterion: str | Criterion, context: Context) -> dict[str, Tensor]:
    """Score every group: ``{group name: [n]}``.

    Args:
        criterion: a name in :data:`CRITERIA`, or any function ``(group, context) -> [n]``.
        context: what the criterion may look at.

    Raises:
        ConfigError: there is no criterion of that name, it needs what the context lacks, or it
            gives a group something else than one score per channel.
    """
    if isinstance(criterion, str):
        if criterion not in CRITERIA:
            raise ConfigError(f"criterion must be one of {', '.join(CRITERIA)}, not {criterion!r}")
        criterion = CRITERIA[criterion]
    scores = {}
    for group in context.groups:
        found = criterion(group, context)
        if not isinstance(found, Tensor) or found.shape != (group.n,):
            given = (
                f"a tensor of shape {tuple(found.shape)}"
                if isinstance(found, Tensor)
                else f"a {type(found).__name__}"
                if found is not None
                else "nothing (None)"
            )
            raise ConfigError(
                f"the criterion gave group {group.name} {given}; it must give a tensor of shape "
                f"({group.n},), one score per channel"
            )
        scores[group.name] = found
    return scores


__all__ = [
    "CRITERIA",
    "DATA_FREE",
    "Context",
    "Criterion",
    "Movement",
    *CRITERIA,
    "score_channels",
]
