"""From a masked network to a physically smaller one that computes the same function."""

from __future__ import annotations

import torch
from torch import nn

from egnn_prune.pruning.masks import keep_masks
from egnn_prune.pruning.tensors import get_tensor, set_tensor, tensor_names


@torch.no_grad()
def compact(model: nn.Module) -> nn.Module:
    """Remove the masked channels for real.

    A pure function: the model is not changed. What was frozen is free in the result, and modes
    (training or evaluation), precision and device carry over.

    Args:
        model: a module with ``channel_groups()`` and ``resized(keep)``, usually masked by
            :func:`egnn_prune.pruning.apply_masks`.

    Returns:
        A module of the same class whose outputs agree with the masked model's to rounding.

    Raises:
        RuntimeError: the model's groups miss a tensor that depends on a removed channel.
    """
    groups = model.channel_groups()  # type: ignore[operator]
    keep = {name: mask.nonzero().flatten() for name, mask in keep_masks(model, groups).items()}
    small = model.resized(keep)  # type: ignore[operator]
    shrinking: dict[str, list] = {}
    for group in groups:
        for member in group.members:
            shrinking.setdefault(member.name, []).append((member, keep[group.name]))

    for name in list(tensor_names(small)):
        tensor = get_tensor(model, name).detach()
        kept_entries: dict[int, torch.Tensor] = {}
        for member, channels in shrinking.get(name, ()):
            if member.view:
                tensor = tensor.view(member.view)
            size = tensor.shape[member.axis]
            gone = torch.ones(member.index.shape[0], dtype=torch.bool)
            gone[channels] = False
            alive = kept_entries.setdefault(member.axis, torch.ones(size, dtype=torch.bool))
            alive[member.index[gone].flatten()] = False
        for axis, alive in kept_entries.items():
            index = alive.nonzero().flatten().to(tensor.device)
            tensor = tensor.index_select(axis, index)
        expected = get_tensor(small, name).shape
        if tensor.numel() != expected.numel():
            raise RuntimeError(
                f"{name} should shrink to {tuple(expected)} but its groups leave "
                f"{tuple(tensor.shape)}: the model's channel_groups() are incomplete"
            )
        set_tensor(small, name, tensor.reshape(expected).clone())
    return small.train(model.training)
