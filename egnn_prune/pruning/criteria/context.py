"""What a criterion may look at, and the gate gradients that several criteria share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.channels import ChannelGate, ChannelGroup
from egnn_prune.errors import ConfigError


def sample_count(batch: Any) -> int:
    """How many samples (graphs, images) a batch holds."""
    graphs = getattr(batch, "num_graphs", None)
    if graphs is not None:
        return int(graphs)
    return len(batch[0] if isinstance(batch, Sequence) else batch)


@dataclass
class Context:
    """Everything that an importance may depend on.

    Attributes:
        model: the network, evaluated without dropout.
        groups: its channel groups.
        batches: data, for criteria that need it.
        loss: ``loss(model, batch) -> [samples]``, one number per graph or image.
        generator: for criteria that draw.
    """

    model: nn.Module
    groups: list[ChannelGroup]
    batches: Iterable[Any] | None = None
    loss: Callable[[nn.Module, Any], Tensor] | None = None
    generator: torch.Generator = field(default_factory=torch.Generator)

    @cached_property
    def gate_gradients(self) -> dict[str, Tensor]:
        r"""For each gated group :math:`\partial L_b / \partial g_{bc}`, ``[samples, n]``.

        Every sample b has its own copy of each gate (all equal to one), so one backward pass of
        the summed loss separates the samples. The gradient times -1 is the first-order estimate of
        what removing channel c does to the loss of sample b.

        Raises:
            ConfigError: there is no data or no loss, or the loss is not one number per sample.
        """
        if self.batches is None or self.loss is None:
            raise ConfigError("this criterion needs data and a loss; pass batches=... and loss=...")
        gates = {g.name: self._gate(g) for g in self.groups if g.gate}
        found: dict[str, list[Tensor]] = {name: [] for name in gates}
        training = self.model.training
        self.model.eval()
        try:
            for batch in self.batches:
                samples = sample_count(batch)
                for gate in gates.values():
                    like = next(self.model.parameters())
                    gate.opened = like.new_ones(samples, len(gate.kept)).requires_grad_()
                opened = [gate.opened for gate in gates.values()]
                with torch.enable_grad():
                    loss = self.loss(self.model, batch)
                    if loss.shape != (samples,):
                        raise ConfigError(
                            f"the loss must give one number per sample, shape ({samples},), "
                            f"not {tuple(loss.shape)}"
                        )
                    gradients = torch.autograd.grad(
                        loss.sum(), [o for o in opened if o is not None], materialize_grads=True
                    )
                for name, gradient in zip(gates, gradients, strict=True):
                    found[name].append(gradient.detach().cpu())
        finally:
            for gate in gates.values():
                gate.opened = None
            self.model.train(training)
        if any(not parts for parts in found.values()):
            raise ConfigError("this criterion needs data, but there was not a single batch")
        return {name: torch.cat(parts) for name, parts in found.items()}

    def _gate(self, group: ChannelGroup) -> ChannelGate:
        assert group.gate is not None
        gate = self.model.get_submodule(group.gate)
        assert isinstance(gate, ChannelGate)
        return gate
