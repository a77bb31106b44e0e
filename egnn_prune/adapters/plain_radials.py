"""e3nn's radial networks in plain layers, whose channels can be followed."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from egnn_prune.errors import ConfigError

#: Where e3nn keeps its ``FullyConnectedNet``.
FULLY_CONNECTED = ("e3nn.nn._fc", "FullyConnectedNet")


def plain_radials(network: nn.Module) -> nn.Module:
    r"""A copy whose ``e3nn.nn.FullyConnectedNet`` modules are plain ``nn.Linear`` layers.

    It computes the same. e3nn divides by the square root of the number of inputs in every call,
    :math:`x W / \sqrt{n v}`, so a narrower network would compute something else; here that number
    is part of the weights. What :func:`egnn_prune.prune` then removes are hidden channels of
    radial networks; linear maps of irreps and tensor products stay as they are. A
    ``FullyConnectedNet`` that activates its output with a variance other than one stays, too.

    Args:
        network: your own, trained or not; it is not changed.

    Raises:
        ConfigError: it has no such module.
    """
    plain = copy.deepcopy(network)
    inside = [module for module in plain.modules() if module is not plain]
    found = {module: _sequence(module) for module in inside}
    if not any(found.values()):
        raise ConfigError(
            f"{type(network).__name__} has no e3nn.nn.FullyConnectedNet inside that could be "
            "written in plain layers"
        )
    for parent in (plain, *inside):
        for name, child in list(parent._modules.items()):  # what is shared stays shared
            if child is not None and (sequence := found[child]) is not None:
                setattr(parent, name, sequence)
    return plain


def _sequence(module: nn.Module) -> nn.Sequential | None:
    """The same network as ``nn.Sequential``, or nothing where it cannot be that."""
    if (type(module).__module__, type(module).__name__) != FULLY_CONNECTED:
        return None
    layers: list[nn.Module] = []
    steps: list[Any] = list(module.children())
    for step in steps:
        if step.act is not None and step.var_out != 1:
            return None
        n, out = step.weight.shape
        spread = step.h_in * step.var_in / (1 if step.act is not None else step.var_out)
        linear = nn.Linear(n, out, bias=False).to(step.weight.device, step.weight.dtype)
        linear.weight.data.copy_(step.weight.detach().T / spread**0.5)
        linear.weight.requires_grad_(step.weight.requires_grad)
        layers += [linear] if step.act is None else [linear, step.act]
    return nn.Sequential(*layers).train(module.training)
