"""From a masked network to a physically smaller one that computes the same function."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

from egnn_prune.channels import Member, Prunable
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.masks import keep_masks
from egnn_prune.pruning.tensors import get_original, get_tensor, owner_of, set_tensor

Cut = Callable[[str, Tensor], Tensor]


@torch.no_grad()
def compact(model: Prunable) -> Prunable:
    """Remove the masked channels for real.

    A pure function: the model is not changed. What ``freeze()`` held is free in the result; every
    module's mode (training or evaluation), ``requires_grad``, tied weights, precision and device
    carry over.

    Args:
        model: usually masked by :func:`egnn_prune.pruning.apply_masks`.

    Returns:
        A module of the same class whose outputs agree with the masked model's to rounding.

    Raises:
        RuntimeError: the model's groups miss a tensor that depends on a removed channel.
    """
    return _compact(model)[0]


@torch.no_grad()
def compact_with_optimizer(model: Prunable, optimizer: Optimizer) -> tuple[Prunable, Optimizer]:
    """Remove the masked channels from a model and from its optimiser's state.

    Call it between fits. A pure function: model and optimiser are not changed. The new optimiser
    has the same settings and owns the small model's parameters; moments of surviving entries are
    sliced, so the next step is the one that the masked model would have taken. Parameters of other
    modules stay in it, with a copy of their state. Step hooks are not carried over, and
    learning-rate schedulers hold on to their optimiser: register and build them anew.

    Args:
        model: as for :func:`compact`.
        optimizer: one from ``torch.optim`` that keeps a number or a tensor like the parameter for
            each of them, as Adam and SGD do; LBFGS and Adafactor do not.

    Returns:
        The smaller model and its optimiser.

    Raises:
        ConfigError: the optimiser's state cannot be cut.
        RuntimeError: as for :func:`compact`.
    """
    own = set(model.parameters())
    if isinstance(optimizer, torch.optim.LBFGS) or any(
        isinstance(value, Tensor) and value.dim() > 0 and value.shape != parameter.shape
        for parameter in own & optimizer.state.keys()
        for value in optimizer.state[parameter].values()
    ):
        raise ConfigError(
            f"the state of {type(optimizer).__name__} cannot be cut, for it is not shaped like the "
            "parameters; use compact() and start a new optimiser"
        )
    small, cut = _compact(model)
    names = list(dict(small.named_parameters()))
    new = {get_original(model, name): (name, get_tensor(small, name)) for name in names}
    twin = copy.copy(optimizer)  # settings, no hooks; its lists are replaced, not changed
    twin.param_groups = [
        {
            **group,
            "params": [
                new[p][1] if p in new else p for p in group["params"] if p in new or p not in own
            ],
        }
        for group in optimizer.param_groups
    ]
    twin.state = type(optimizer.state)(optimizer.state.default_factory)
    for parameter, state in optimizer.state.items():
        if parameter in new:
            name, target = new[parameter]
            twin.state[target] = {
                key: cut(name, value).clone()
                if isinstance(value, Tensor) and value.shape == parameter.shape
                else copy.deepcopy(value)
                for key, value in state.items()
            }
        elif parameter not in own:
            twin.state[parameter] = copy.deepcopy(state)
    return small, twin


def _compact(model: Prunable) -> tuple[Prunable, Cut]:
    """The smaller model, and the function that cuts any tensor shaped like a named one."""
    groups = model.channel_groups()
    masks = keep_masks(model, groups)
    small = model.resized({name: mask.nonzero().flatten() for name, mask in masks.items()})
    shrinking: dict[str, list[tuple[Member, Tensor]]] = {}
    for group in groups:
        for member in group.members:
            shrinking.setdefault(member.name, []).append((member, ~masks[group.name]))

    def cut(name: str, tensor: Tensor) -> Tensor:
        alive: dict[int, Tensor] = {}
        for member, gone in shrinking.get(name, ()):
            tensor = tensor.reshape(member.view) if member.view else tensor
            size = tensor.shape[member.axis]
            kept = alive.setdefault(member.axis, torch.ones(size, dtype=torch.bool))
            kept[member.index[gone].flatten()] = False
        for axis, kept in alive.items():
            tensor = tensor.index_select(axis, kept.nonzero().flatten().to(tensor.device))
        expected = get_tensor(small, name).shape
        if tensor.numel() != expected.numel():
            raise RuntimeError(
                f"{name} should shrink to {tuple(expected)} but its groups leave "
                f"{tuple(tensor.shape)}: the model's channel_groups() are incomplete"
            )
        return tensor.reshape(expected)

    made: dict[Tensor, Tensor] = {}  # a tied tensor has several names, and is made once
    tensors = [
        *small.named_parameters(remove_duplicate=False),
        *small.named_buffers(remove_duplicate=False),
    ]
    for name, _ in tensors:
        original = get_original(model, name)
        set_tensor(small, name, cut(name, get_tensor(model, name).detach()).clone())
        owner, leaf = owner_of(small, name)
        setattr(owner, leaf, made.setdefault(original, get_tensor(small, name)))
        made[original].requires_grad_(original.requires_grad)
    small.train(model.training)
    modules = dict(model.named_modules())
    for name, module in small.named_modules():
        if name in modules:
            module.training = modules[name].training
    return small, cut
