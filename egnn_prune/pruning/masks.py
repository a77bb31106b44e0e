"""Holding entries still: at zero (pruned) or at their value (frozen), while the rest learns.

An optimiser with momentum or weight decay moves every entry of the tensors it owns. So entries are
not re-zeroed after each step; the network sees ``where(held, 0 or value, weight)`` instead (a
``torch.nn.utils.parametrize`` parametrisation), whatever the optimiser does to the weight behind
it, and the gradient of a held entry is exactly zero. The masks are buffers: they follow
``deepcopy``, ``state_dict``, device moves and DDP.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from egnn_prune.channels import ChannelGroup, Prunable
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.tensors import (
    by_entry,
    chain_of,
    get_original,
    owner_of,
    parameter_names,
    spread,
    weight_members,
)

#: The share of its old weights from which a pruned channel grows back once its mask is lifted; the
#: channel's effect, a product of two of them, starts at the square.
REGROWTH = 1e-2


class MaskParametrization(nn.Module):
    r"""Zero where pruned, else :math:`v` where frozen, else the parameter :math:`w_0`.

    Attributes:
        pruned: all zeros, of channels and of single weights.
        single: those that single-weight masks made; they outlast the masks of channels.
        frozen: entries that stay at ``value``, but for the pruned ones.
        value: what entries were when they were frozen.
    """

    pruned: Tensor
    single: Tensor
    frozen: Tensor
    value: Tensor

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.register_buffer("pruned", torch.zeros_like(tensor, dtype=torch.bool))
        self.register_buffer("single", torch.zeros_like(tensor, dtype=torch.bool))
        self.register_buffer("frozen", torch.zeros_like(tensor, dtype=torch.bool))
        self.register_buffer("value", torch.zeros_like(tensor))

    def forward(self, original: Tensor) -> Tensor:
        """The tensor that the network sees."""
        return torch.where(self.pruned, 0.0, torch.where(self.frozen, self.value, original))


def mask_of(model: nn.Module, name: str) -> MaskParametrization | None:
    """The :class:`MaskParametrization` of a tensor, if there is one."""
    return next(
        (p for p in chain_of(*owner_of(model, name)) or () if isinstance(p, MaskParametrization)),
        None,
    )


def register_masks(model: nn.Module, names: Iterable[str]) -> None:
    """Make tensors holdable; nothing is held yet. Parameter objects stay the same."""
    for name in names:
        if mask_of(model, name) is None:
            owner, leaf = owner_of(model, name)
            _own_class(owner)
            tensor = getattr(owner, leaf).detach()
            parametrize.register_parametrization(
                owner, leaf, MaskParametrization(tensor), unsafe=True
            )
            type(owner).__reduce_ex__ = _reduced  # type: ignore[method-assign, assignment]


def _reduced(module: nn.Module, _protocol: Any) -> tuple[Any, ...]:
    """How a parametrised module is pickled: by its own class, which torch made in this process.

    A pickle of objects in memory, for other processes and ``torch.save``; no file of a user is
    ever unpickled by this package.
    """
    state = {k: v for k, v in vars(module).items() if k != "_compiled_call_impl"}
    leaves = [leaf for leaf, _ in module.get_submodule("parametrizations").named_children()]
    return _parametrised, (type(module).__bases__[0], leaves), state


def _parametrised(base: type[nn.Module], leaves: list[str]) -> nn.Module:
    """An empty module of a class whose named tensors are parametrised."""
    pattern = nn.Module()  # let torch make the properties
    for leaf in leaves:
        pattern.register_parameter(leaf, nn.Parameter(torch.zeros(1)))
        parametrize.register_parametrization(pattern, leaf, nn.Identity(), unsafe=True)
    attributes = {
        k: v for k, v in vars(type(pattern)).items() if k not in ("__dict__", "__weakref__")
    }
    made = type(f"Parametrized{base.__name__}", (base,), attributes)
    made.__reduce_ex__ = _reduced  # type: ignore[assignment]
    return object.__new__(made)


def _own_class(module: nn.Module) -> None:
    """Give a parametrised module a class of its own.

    Torch keeps the parametrised attributes as properties of a class made for one module, but a
    ``deepcopy`` shares that class: changing the copy would break the original.
    """
    if parametrize.is_parametrized(module):
        shared = type(module)
        attributes = {k: v for k, v in vars(shared).items() if k not in ("__dict__", "__weakref__")}
        module.__class__ = type(shared.__name__, shared.__bases__, attributes)


def remove_masks(model: nn.Module) -> None:
    """Remove all masks; the tensors keep the values that the network saw."""
    for module in list(model.modules()):
        _own_class(module)
        for leaf in list(getattr(module, "parametrizations", {})):
            if any(isinstance(p, MaskParametrization) for p in chain_of(module, leaf) or ()):
                parametrize.remove_parametrizations(module, leaf, leave_parametrized=True)


def weight_names(model: nn.Module, groups: Iterable[ChannelGroup]) -> list[str]:
    """Every floating-point tensor that has entries in some group, once."""
    names = (m.name for g in groups for m, _ in weight_members(g, model))
    return list(dict.fromkeys(names))


@torch.no_grad()
def apply_masks(
    model: Prunable, keep: dict[str, Tensor], groups: list[ChannelGroup] | None = None
) -> None:
    """Zero the channels that are not kept, and hold them there.

    Channels that an earlier call removed come back if ``keep`` has them; single weights that
    :func:`.apply_weight_masks` removed stay zero.

    Args:
        model: declares its groups.
        keep: for each group name a boolean ``[n]``, true for channels that stay.
        groups: the model's groups, where the caller already has them.

    Raises:
        ConfigError: a mask is missing, has the wrong length, or keeps nothing.
    """
    groups = groups if groups is not None else model.channel_groups()
    for group in groups:
        mask = keep.get(group.name)
        if mask is None or mask.shape != (group.n,) or mask.dtype != torch.bool:
            raise ConfigError(f"group {group.name} needs a boolean mask of {group.n} channels")
    for name in {g.family or g.name for g in groups}:
        if not any(keep[g.name].any() for g in groups if (g.family or g.name) == name):
            raise ConfigError(f"group {name} would lose all of its channels")
    names = weight_names(model, groups)
    register_masks(model, names)
    for name in names:
        _required_mask(model, name).pruned.copy_(_required_mask(model, name).single)
    for group in groups:
        for member, tensor in weight_members(group, model):
            _required_mask(model, member.name).pruned |= spread(member, ~keep[group.name], tensor)


@torch.no_grad()
def lift_masks(model: nn.Module) -> None:
    """Let all that is pruned grow again (frozen entries stay at the value they were frozen at).

    They start from :data:`REGROWTH` of the weights behind the mask. From exact zeros on both sides
    of a channel nothing could ever grow: each side's gradient is proportional to the other side.
    """
    for module in model.modules():
        for chain in getattr(module, "parametrizations", {}).values():
            for state in chain:
                if isinstance(state, MaskParametrization):
                    original = chain.original
                    original.copy_(torch.where(state.pruned, REGROWTH * original, original))
                    state.pruned.zero_()
                    state.single.zero_()


@torch.no_grad()
def freeze_entries(model: nn.Module, name: str, entries: Tensor | None = None) -> None:
    """Hold entries of a tensor at their present value, bit for bit; pruned ones stay zero.

    Args:
        model: the module.
        name: dotted name of the tensor.
        entries: boolean, shaped like the tensor; ``None`` freezes all of it.
    """
    register_masks(model, [name])
    state, original = _required_mask(model, name), get_original(model, name)
    entries = torch.ones_like(state.frozen) if entries is None else entries
    # not what the network sees: a pruned entry is to come back at its own value
    state.value.copy_(torch.where(entries & ~state.frozen, original, state.value))
    state.frozen |= entries


@torch.no_grad()
def thaw(model: nn.Module, names: Iterable[str] | None = None) -> None:
    """Let frozen tensors learn again, from the value at which they were frozen.

    Args:
        model: the module.
        names: dotted names of tensors; ``None`` thaws all. Pruned entries stay pruned.
    """
    for name in list(names) if names is not None else parameter_names(model):
        state = mask_of(model, name)
        if state is not None:
            original = get_original(model, name)
            # weight decay went on behind the mask
            original.copy_(torch.where(state.frozen, state.value, original))
            state.frozen.zero_()


def keep_masks(model: Prunable, groups: list[ChannelGroup] | None = None) -> dict[str, Tensor]:
    """Which channels the masks on a model keep, ``{group name: boolean [n]}``.

    Derived from the masks themselves: a channel is gone when all of its entries are.
    """
    groups = groups if groups is not None else model.channel_groups()
    keep = {}
    for group in groups:
        alive = torch.zeros(group.n, dtype=torch.bool)
        for member, _ in weight_members(group, model):
            state = mask_of(model, member.name)
            if state is None:
                alive.fill_(True)
                continue
            alive |= ~by_entry(member, state.pruned.cpu()).all(1)[member.index].all(1)
        keep[group.name] = alive
    return keep


def _required_mask(model: nn.Module, name: str) -> MaskParametrization:
    state = mask_of(model, name)
    assert state is not None
    return state
