"""The predictive variance that uncertainty-aware pruning differentiates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.errors import ConfigError
from egnn_prune.training.loss import per_graph
from egnn_prune.uncertainty.dropout import dropped_gates, mc_dropout

#: Thinned networks from which the variance of a model with dropout is estimated.
SAMPLES = 8


def predictive_variance(model: nn.Module, batch: Any) -> Tensor:
    """Total predictive variance of every sample, ``[B]``, differentiable, in the unit squared.

    A model with dropout is sampled with the same few MC-dropout samples in every call; any other
    model speaks for itself (members, variance output).

    Raises:
        ConfigError: the model is none of this package's predictors.
    """
    if not hasattr(model, "normalised"):
        raise ConfigError(
            f"{type(model).__name__} does not say how sure it is; pass variance=..., a function "
            "(model, batch) -> [samples]"
        )
    if dropped_gates(model):
        generator = torch.Generator().manual_seed(0)
        return per_graph(mc_dropout(model, batch, SAMPLES, generator=generator).variance, batch)
    return per_graph(model(batch).variance, batch)
