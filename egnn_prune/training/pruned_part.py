"""Which network inside a Lightning module is pruned: what declares its channels, or is traced."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import nn

from egnn_prune.adapters import TracedNetwork
from egnn_prune.channels import Prunable
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.calling import moved
from egnn_prune.pruning.criteria.batches import inputs_of


def pruned_part(pl_module: L.LightningModule, name: str | None = None) -> Prunable:
    """The network that a callback prunes.

    Args:
        pl_module: what is fitted.
        name: dotted name of the network in it; by default the Lightning module itself, its
            ``model``, or the only part of it that declares channel groups.

    Raises:
        ConfigError: there is no such part, or more than one, or it declares no channel groups.
    """
    kind = type(pl_module).__name__
    parts: dict[str, Any] = dict(pl_module.named_modules())
    if name is not None and name not in parts:
        raise ConfigError(f"{kind} has no part {name!r}; see named_modules()")
    for key in (name,) if name is not None else ("", "model"):
        if hasattr(parts.get(key), "channel_groups"):
            return parts[key]
    found = (
        [] if name is not None else [n for n, m in parts.items() if hasattr(m, "channel_groups")]
    )
    outermost = [n for n in found if not any(n.startswith(f"{o}.") for o in found)]
    if len(outermost) == 1:
        return parts[outermost[0]]
    if outermost:
        raise ConfigError(
            f"{kind} has several networks with channel_groups(): {', '.join(outermost)}; name one "
            "with network=..."
        )
    raise ConfigError(
        f"{kind} cannot be pruned: {f'its {name} has no' if name else 'no part of it has'} "
        "channel_groups(); name a network of your own with module=... (and give batches=..., to "
        "find its channels with)"
    )


def name_of(pl_module: L.LightningModule, module: nn.Module) -> str:
    """The dotted name of a network in a Lightning module, ``""`` of the whole.

    Raises:
        ConfigError: it is no part of it.
    """
    for name, part in pl_module.named_modules():
        if part is module:
            return name
    raise ConfigError(
        f"module={type(module).__name__}(...) is no part of {type(pl_module).__name__}; give one "
        "of its own modules, or its name by network=..."
    )


def traced(module: nn.Module, batch: Any) -> TracedNetwork:
    """A network that declares no channel groups, with those that a run on a batch finds.

    The network itself is not changed, and stays where it is.

    Raises:
        ConfigError: nothing of it can be pruned.
    """
    first = next(module.parameters(), None)
    device = torch.device("cpu") if first is None else first.device
    return TracedNetwork(module, inputs_of(moved(batch, device)))
