"""What a criterion may look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from egnn_prune.channels import ChannelGate, ChannelGroup
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.criteria.batches import PerSample, checked
from egnn_prune.pruning.criteria.gate_passes import gate_gradients
from egnn_prune.pruning.movement_recorder import Movement

T = TypeVar("T")


@dataclass
class Context:
    """Everything that an importance may depend on.

    Build a new one after the model has changed: what criteria share (the gate gradients, say) is
    computed once and remembered.

    Attributes:
        model: the network, evaluated without dropout.
        groups: its channel groups.
        batches: data, for criteria that need it.
        loss: ``loss(model, batch) -> [samples]``, one number per graph or image.
        generator: for criteria that draw.
        variance: ``variance(model, batch) -> [samples]``, the predictive variance of each sample,
            for criteria that care about error bars.
        movement: what training has recorded, see :class:`Movement`.
    """

    model: nn.Module
    groups: list[ChannelGroup]
    batches: Iterable[Any] | None = None
    loss: PerSample | None = None
    generator: torch.Generator = field(default_factory=torch.Generator)
    variance: PerSample | None = None
    movement: Movement | None = None
    _known: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def once(self, compute: Callable[[Context], T]) -> T:
        """``compute(self)``, computed at the first call and remembered for the other groups."""
        if compute not in self._known:
            self._known[compute] = compute(self)
        return cast(T, self._known[compute])

    @cached_property
    def data(self) -> Iterable[Any]:
        """The batches, as often as they are asked for.

        Raises:
            ConfigError: there are none.
        """
        if self.batches is None:
            raise ConfigError("this criterion needs data; pass batches=...")
        # a generator can be read only once, and some criteria need two passes
        data = list(self.batches) if isinstance(self.batches, Iterator) else self.batches
        if not any(True for _ in data):
            raise ConfigError("this criterion needs data, but there was not a single batch")
        return data

    @property
    def data_and_loss(self) -> tuple[Iterable[Any], PerSample]:
        """The batches and the loss.

        Raises:
            ConfigError: one of them is missing.
        """
        if self.batches is None or self.loss is None:
            raise ConfigError("this criterion needs data and a loss; pass batches=... and loss=...")
        return self.data, checked(self.loss, "loss")

    @cached_property
    def gate_gradients(self) -> dict[str, Tensor]:
        r"""For each gated group :math:`\partial L_b / \partial g_{bc}`, ``[samples, n]``.

        Every sample b has its own copy of each gate (all equal to one), so one backward pass of
        the summed loss separates the samples. The gradient times -1 is the first-order estimate of
        what removing channel c does to the loss of sample b.

        Raises:
            ConfigError: there is no data or no loss, or the loss is not one number per sample.
        """
        batches, loss = self.data_and_loss
        return gate_gradients(self.model, self.gates, batches, loss)

    @cached_property
    def gates(self) -> dict[str, ChannelGate]:
        """The gates of the groups that have one, by the group's name."""
        return {g.name: self.gate_of(g) for g in self.groups if g.gate is not None}

    def gate_of(self, group: ChannelGroup) -> ChannelGate:
        """The gate of a group.

        Raises:
            ConfigError: it has none.
        """
        if group.gate is None:
            raise ConfigError(
                f"group {group.name} has no gate, where this criterion looks at the channels; "
                "give it one, leave it out (TracedNetwork(network, inputs, ignored=[...])), or "
                "take a criterion that reads weights only, such as magnitude"
            )
        gate = self.model.get_submodule(group.gate)
        if not isinstance(gate, ChannelGate):
            raise ConfigError(
                f"the gate of group {group.name} is a {type(gate).__name__}; make {group.gate} a "
                "ChannelGate"
            )
        return gate
