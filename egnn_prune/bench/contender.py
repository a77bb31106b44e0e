"""What a network is in a comparison: a function of graphs, with what is measured of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.bench.inputs import Inputs
from egnn_prune.models import EGNN


class Unavailable(Exception):
    """A network that cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Contender:
    """A network on graphs.

    Attributes:
        outputs: node features first, and new positions where the network moves nodes; or energies.
        parameters: what a training step changes.
        first_weight: of the embedding, whose gradient is compared.
        module: the network, to be told whether it is trained.
        expected: the textbook with the same weights, where there is one.
        columns: the node features of ``expected`` that this network still has.
        twin: ours that computes the same function, for what it takes at least.
    """

    outputs: Callable[[Inputs], Sequence[Tensor]]
    parameters: list[nn.Parameter]
    first_weight: Tensor
    module: nn.Module
    expected: Contender | None = field(default=None, repr=False)
    columns: Tensor | None = field(default=None, repr=False)
    twin: EGNN | None = field(default=None, repr=False)


def program(function: Callable[..., Any], compiled: bool) -> Callable[..., Any]:
    """The function, compiled for the one shape that it will see."""
    return torch.compile(function, dynamic=False) if compiled else function
