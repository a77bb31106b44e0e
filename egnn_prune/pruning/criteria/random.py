"""Importance by lot: the control that every criterion has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from egnn_prune.channels import ChannelGroup
from egnn_prune.pruning.criteria.context import Context


def random(group: ChannelGroup, context: Context) -> Tensor:
    """Uniform random scores ``[n]`` from the context's generator."""
    return torch.rand(group.n, generator=context.generator, dtype=torch.float64)
