"""The three things one does with a network, as calls that can be timed and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from egnn_prune.bench.contender import Contender
from egnn_prune.bench.inputs import Inputs


def call(name: str, contender: Contender, inputs: Inputs) -> Callable[[], object]:
    """One call of what is timed.

    Args:
        name: ``infer``, ``train`` (forward, backward and AdamW on the squares of all outputs)
            or ``forces`` (the sum of the first output, and its gradient with respect to positions).
        contender: whose network.
        inputs: on which graphs.
    """
    contender.module.train(name == "train")
    if name == "infer":
        return torch.no_grad()(lambda: contender.outputs(inputs))
    if name == "forces":
        moved, pos = _movable(contender, inputs)
        return lambda: energy_and_forces(contender.outputs(moved), pos)
    optimiser = torch.optim.AdamW(contender.parameters, lr=1e-6)

    def step() -> None:
        optimiser.zero_grad()
        loss(contender.outputs(inputs)).backward()
        optimiser.step()

    return step


def results(name: str, contender: Contender, inputs: Inputs) -> list[Tensor]:
    """What the pass computes, for comparison: outputs; loss and a gradient; energy and forces."""
    contender.module.train(name == "train")
    if name == "infer":
        with torch.no_grad():
            return list(contender.outputs(inputs))
    if name == "forces":
        moved, pos = _movable(contender, inputs)
        return list(energy_and_forces(contender.outputs(moved), pos))
    error = loss(contender.outputs(inputs))
    (gradient,) = torch.autograd.grad(error, contender.first_weight)
    return [error.detach(), gradient]


def _movable(contender: Contender, inputs: Inputs) -> tuple[Inputs, Tensor]:
    """Inputs whose positions take gradients, which the weights, once trained, do not."""
    for parameter in contender.parameters:
        parameter.requires_grad_(False)
    pos = inputs.pos.clone().requires_grad_()
    return inputs.at(pos), pos


def loss(outputs: Sequence[Tensor]) -> Tensor:
    """Squares of all outputs, averaged over rows: removed channels, being zero, add nothing."""
    return torch.stack([out.square().sum() / len(out) for out in outputs]).sum()


def energy_and_forces(outputs: Sequence[Tensor], pos: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the first output, and minus its gradient."""
    energy = outputs[0].sum()
    (gradient,) = torch.autograd.grad(energy, pos)
    return energy.detach(), -gradient
