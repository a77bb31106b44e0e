"""Passes through a network that leave no trace: what criteria see at the gates.

Every pass runs in evaluation mode, touches no ``.grad``, and puts the model back as it was even
when the loss raises an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.channels import ChannelGate, evaluating
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.calling import call
from egnn_prune.pruning.criteria.batches import PerSample, inputs_of, sample_count


@contextmanager
def opened_gates(gates: Iterable[ChannelGate], values: Iterable[Tensor]) -> Iterator[None]:
    """Let gates multiply their channels by ``[samples, n]`` for a while."""
    gates = list(gates)
    try:
        for gate, value in zip(gates, values, strict=True):
            gate.opened = value
        yield
    finally:
        for gate in gates:
            gate.opened = None


def gate_gradients(
    model: nn.Module,
    gates: Mapping[str, ChannelGate],
    batches: Iterable[Any],
    function: PerSample,
) -> dict[str, Tensor]:
    r"""Gradients by gates of every sample's own, :math:`\partial f_b / \partial g_{bc}`.

    Args:
        model: the network.
        gates: by the name under which the gradient is returned.
        batches: data.
        function: ``f(model, batch) -> [samples]``.

    Returns:
        For each gate ``[samples, n]``, on the CPU.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in gates}
    like = next(model.parameters())
    for batch in batches:
        samples = sample_count(batch)
        ones = [like.new_ones(samples, len(g.kept)).requires_grad_() for g in gates.values()]
        with evaluating(model), opened_gates(gates.values(), ones), torch.enable_grad():
            total = function(model, batch).sum()
            gradients = torch.autograd.grad(total, ones, materialize_grads=True)
        for name, gradient in zip(gates, gradients, strict=True):
            found[name].append(gradient.detach().cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}


@torch.no_grad()
def gate_means_of_squares(
    model: nn.Module, gates: Mapping[str, ChannelGate], batches: Iterable[Any]
) -> dict[str, Tensor]:
    """Mean square of what flows through every channel of every gate.

    The mean is over rows (nodes, edges, images), over the axes that belong to a channel, and over
    all the times that a pass goes through the gate (once a layer, at the gate of a residual
    stream).

    Returns:
        For each gate ``[n]`` in float64.
    """
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(gates, 0)

    def watch(name: str) -> Any:
        def hook(_: nn.Module, __: Any, x: Tensor) -> None:
            square = x.detach().cpu().double().square().transpose(0, 1).flatten(1)
            sums[name] = sums.get(name, 0) + square.sum(1)
            counts[name] += square.shape[1]

        return hook

    hooks = [gate.register_forward_hook(watch(name)) for name, gate in gates.items()]
    try:
        with evaluating(model):
            for batch in batches:
                call(model, inputs_of(batch))
    finally:
        for hook in hooks:
            hook.remove()
    never = [name for name, count in counts.items() if count == 0]
    if never:
        raise ConfigError(f"nothing flowed through the gate of group {never[0]}; check the data")
    return {name: sums[name] / counts[name] for name in gates}
