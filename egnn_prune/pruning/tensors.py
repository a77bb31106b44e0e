"""Reading and replacing a module's tensors by dotted name, parametrised or not."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from egnn_prune.channels import ChannelGroup, Member


def owner_of(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a tensor, and the tensor's name in it."""
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf


def get_tensor(model: nn.Module, name: str) -> Tensor:
    """The tensor that the forward pass sees: masks and frozen values are applied."""
    owner, leaf = owner_of(model, name)
    return getattr(owner, leaf)


def chain_of(owner: nn.Module, leaf: str) -> parametrize.ParametrizationList | None:
    """What computes a tensor from the parameter behind it, if it is parametrised."""
    chains = getattr(owner, "parametrizations", {})
    return chains[leaf] if leaf in chains else None


def set_tensor(model: nn.Module, name: str, value: Tensor) -> None:
    """Replace a parameter or buffer by another of any shape, type or device."""
    owner, leaf = owner_of(model, name)
    if leaf in owner._parameters:
        old = owner._parameters[leaf]
        grad = old is None or old.requires_grad
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=grad)
    else:
        owner._buffers[leaf] = value


def tensor_names(model: nn.Module) -> Iterator[str]:
    """Names of all parameters and buffers of a model without parametrisations."""
    yield from (name for name, _ in model.named_parameters())
    yield from (name for name, _ in model.named_buffers())


def parameter_names(model: nn.Module) -> list[str]:
    """Names of all parameters as the layers know them, whether they are parametrised or not."""
    names = [name for name, _ in model.named_parameters()]
    return [n.replace("parametrizations.", "").removesuffix(".original") for n in names]


def spread(member: Member, channels: Tensor, like: Tensor) -> Tensor:
    """A boolean tensor shaped like ``like``, true at the entries of the chosen channels."""
    seen = torch.zeros(like.shape, dtype=torch.bool, device=like.device)
    view = seen.view(member.view) if member.view else seen
    entries = member.index[channels.cpu()].flatten().to(like.device)
    view.index_fill_(member.axis, entries, True)
    return seen


def by_entry(member: Member, tensor: Tensor) -> Tensor:
    """A tensor as ``[entries, rest]``, one row for each entry on the axis of the channels."""
    seen = tensor.reshape(member.view) if member.view else tensor
    return seen.movedim(member.axis, 0).reshape(seen.shape[member.axis], -1)


def is_parameter(model: nn.Module, name: str) -> bool:
    """Whether a name belongs to a parameter (and not to a buffer), parametrised or not."""
    owner, leaf = owner_of(model, name)
    return leaf in owner._parameters or chain_of(owner, leaf) is not None


def weight_members(group: ChannelGroup, model: nn.Module) -> list[tuple[Member, Tensor]]:
    """The group's parameters with their tensors, as the network sees them.

    Buffers (running statistics, path coefficients, indices) shrink with the channels too, but they
    are no weights: they are neither masked nor scored. A held running mean would never be updated.
    """
    return [(m, get_tensor(model, m.name)) for m in group.members if is_parameter(model, m.name)]


def get_original(model: nn.Module, name: str) -> Tensor:
    """The tensor that an optimiser owns: the one behind the parametrisation, if there is one."""
    owner, leaf = owner_of(model, name)
    chain = chain_of(owner, leaf)
    original: Tensor = getattr(owner, leaf) if chain is None else chain.original
    return original
