"""Criteria: how much a channel matters, higher is more. One small file each."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from egnn_prune.channels import ChannelGroup
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.criteria.context import Context
from egnn_prune.pruning.criteria.magnitude import magnitude
from egnn_prune.pruning.criteria.random import random
from egnn_prune.pruning.criteria.taylor import taylor

Criterion = Callable[[ChannelGroup, Context], Tensor]

CRITERIA: dict[str, Criterion] = {"magnitude": magnitude, "random": random, "taylor": taylor}


def score_channels(criterion: str | Criterion, context: Context) -> dict[str, Tensor]:
    """Score every group: ``{group name: [n]}``.

    Args:
        criterion: a name in :data:`CRITERIA`, or any function ``(group, context) -> [n]``.
        context: what the criterion may look at.

    Raises:
        ConfigError: there is no criterion of that name, or it needs what the context lacks.
    """
    if isinstance(criterion, str):
        if criterion not in CRITERIA:
            raise ConfigError(f"criterion must be one of {', '.join(CRITERIA)}, not {criterion!r}")
        criterion = CRITERIA[criterion]
    return {group.name: criterion(group, context) for group in context.groups}


__all__ = ["CRITERIA", "Context", "Criterion", "magnitude", "random", "score_channels", "taylor"]
