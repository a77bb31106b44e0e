"""Passes through a network that leave no trace: what criteria see in and before its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from egnn_prune.channels import evaluating
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.calling import call
from egnn_prune.pruning.criteria.batches import PerSample, inputs_of
from egnn_prune.pruning.tensors import get_tensor, owner_of, parameter_names


@contextmanager
def effective_weights(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The parameters as the network sees them, ready to be differentiated by.

    A gradient by the tensor *behind* a mask is zero wherever an entry is held, also where it is
    frozen at a value that the network needs. These are the tensors in front of the masks, and the
    network computes with exactly them, so that frozen entries have their gradient, too; pruned
    entries have one that multiplies a weight of zero.
    """
    wanted = [(p, p.requires_grad) for p in model.parameters()]
    try:
        for parameter, _ in wanted:
            parameter.requires_grad_(True)
        with evaluating(model), torch.enable_grad(), parametrize.cached():
            yield {name: get_tensor(model, name) for name in parameter_names(model)}
    finally:
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)


def by_weights(
    total: Tensor, weights: dict[str, Tensor], *, retain: bool = False, differentiable: bool = False
) -> dict[str, Tensor]:
    """Gradient of a number by each weight, zero where it does not depend on it.

    Args:
        total: the number.
        weights: from :func:`effective_weights`.
        retain: keep what a second call with the same number needs.
        differentiable: let the gradient itself be differentiated.
    """
    found = torch.autograd.grad(
        total,
        list(weights.values()),
        retain_graph=retain or differentiable,
        create_graph=differentiable,
        materialize_grads=True,
    )
    return dict(zip(weights, found, strict=True))


def weight_gradients(
    model: nn.Module, batches: Iterable[Any], loss: PerSample
) -> dict[str, Tensor]:
    """Gradient of the mean loss over all samples, by the weights as the network sees them."""
    total: dict[str, Tensor] = {}
    samples = 0
    with effective_weights(model) as weights:
        for batch in batches:
            value = loss(model, batch)
            samples += len(value)
            for name, gradient in by_weights(value.sum(), weights).items():
                total[name] = total.get(name, 0) + gradient
    return {name: value / samples for name, value in total.items()}


def weight_moments(
    model: nn.Module, batches: Iterable[Any], loss: PerSample
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Means over the samples of the absolute and of the squared gradient, by effective weights.

    One backward pass a sample: there is no cheaper way to a sample's gradient by shared weights.
    """
    absolute: dict[str, Tensor] = {}
    square: dict[str, Tensor] = {}
    samples = 0
    with effective_weights(model) as weights:
        for batch in batches:
            values = loss(model, batch)
            samples += len(values)
            for value in values:
                for name, gradient in by_weights(value, weights, retain=True).items():
                    absolute[name] = absolute.get(name, 0) + gradient.abs()
                    square[name] = square.get(name, 0) + gradient.square()
    return (
        {name: value / samples for name, value in absolute.items()},
        {name: value / samples for name, value in square.items()},
    )


@torch.no_grad()
def input_norms(
    model: nn.Module, names: Iterable[str], batches: Iterable[Any]
) -> dict[str, Tensor]:
    """L2 norm of every input of linear and convolutional modules, over all rows and places.

    Args:
        model: the network.
        names: of weights of such modules.
        batches: data.

    Returns:
        For each name the norms, shaped to multiply the weight: ``[1 or out, in, 1 ...]``.

    Raises:
        ConfigError: a name belongs to another kind of module, or the module was never called.
    """
    squares: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(module: Any, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach().double()
            if isinstance(module, nn.Linear):
                square = x.reshape(-1, x.shape[-1]).square().sum(0)
            else:  # [B, C, ...], or [C, ...] without a batch
                places = module.weight.dim() - 2
                square = x.square().flatten(-places).sum(-1).reshape(-1, x.shape[-1 - places])
                square = square.sum(0)
            squares[name] = squares.get(name, 0) + square

        return hook

    hooks, shapes = [], {}
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    try:
        for name in names:
            owner, leaf = owner_of(model, name)
            if not isinstance(owner, kinds) or leaf != "weight":
                raise ConfigError(
                    f"wanda reads the inputs of linear and convolutional modules, which {name} is "
                    "no weight of; leave it out of names=..."
                )
            groups = 1 if isinstance(owner, nn.Linear) else owner.groups
            shapes[name] = (groups, owner.weight.shape)
            hooks.append(owner.register_forward_pre_hook(watch(name)))
        with evaluating(model):
            for batch in batches:
                call(model, inputs_of(batch))
    finally:
        for handle in hooks:
            handle.remove()
    found = {}
    for name, (groups, shape) in shapes.items():
        if name not in squares:
            raise ConfigError(
                f"the module of {name} is never called (its weight is used by hand), so wanda "
                "cannot see its inputs; leave it out of names=..."
            )
        norm = squares[name].sqrt().view(groups, -1)
        norm = norm.repeat_interleave(shape[0] // groups, 0) if groups > 1 else norm
        found[name] = norm.view(*norm.shape, *(1,) * (len(shape) - 2))
    return found
