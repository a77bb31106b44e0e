"""Kept channels stand in for removed ones, before anything is trained."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.channels import ChannelGroup, Prunable, evaluating
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.calling import call
from egnn_prune.pruning.criteria.batches import inputs_of
from egnn_prune.pruning.tensors import get_original, get_tensor, is_parameter, owner_of


@torch.no_grad()
def compensate(
    model: Prunable,
    keep: dict[str, Tensor],
    batches: Iterable[Any],
    *,
    ridge: float = 1e-4,
    groups: list[ChannelGroup] | None = None,
) -> Prunable:
    r"""A copy whose linear maps read, through kept channels, what removed ones said.

    For a map :math:`y = V x` whose inputs split into kept :math:`x_k` and removed :math:`x_r`,
    ridge regression on the data gives :math:`x_r \approx A x_k`, and

    .. math:: V_k \leftarrow V_k + V_r A, \qquad
        A = G_{rk} (G_{kk} + \lambda \overline{\operatorname{diag} G_{kk}}\, 1)^{-1}, \quad
        G = \sum x x^T .

    Components of an irrep share A, so equivariance stays. Call it on the dense model, then mask
    and compact the result. It can do harm where the data do not determine A or the network is not
    nearly linear: compare both on structures that were not used here. Source: He et al. 2017
    (channel pruning by reconstruction), Eq. 4; ridge as in Frantar and Alistarh 2022.

    Args:
        model: dense, not masked.
        keep: for each group a boolean ``[n]``, true for channels that stay.
        batches: data of the domain, run through the dense model once.
        ridge: :math:`\lambda`.
        groups: the model's groups, where the caller already has them.

    Returns:
        A changed copy; maps without removed inputs, and maps that mix no channels of their last
        axis, are as they were.

    Raises:
        ConfigError: there is no data, or ridge is not positive.
    """
    if not ridge > 0:
        raise ConfigError(f"ridge must be positive, not {ridge}")
    groups = groups if groups is not None else model.channel_groups()
    gone = _removed_inputs(model, groups, keep)
    grams = _gram_matrices(model, gone, batches)
    changed = copy.deepcopy(model)
    for name, removed in gone.items():
        if name in grams and not bool(removed.all()):
            owner, _ = owner_of(changed, name)
            # the tensor behind a mask, if there is one: the optimiser's
            weight = get_original(changed, name)
            weight.copy_(_compensated(owner, weight, removed, grams[name], ridge))
    return changed


def _removed_inputs(
    model: Prunable, groups: list[ChannelGroup], keep: dict[str, Tensor]
) -> dict[str, Tensor]:
    """For each weight that reads removed channels on its last axis, which of them."""
    gone: dict[str, Tensor] = {}
    for group in groups:
        for member in group.members:
            weight = get_tensor(model, member.name)
            last = member.axis == weight.dim() - 1 and member.view is None and weight.dim() > 1
            if member.reads and last and is_parameter(model, member.name):
                removed = gone.setdefault(
                    member.name, torch.zeros(weight.shape[-1], dtype=torch.bool)
                )
                removed[member.index[~keep[group.name].cpu()].flatten()] = True
    return {name: removed for name, removed in gone.items() if bool(removed.any())}


def _gram_matrices(
    model: nn.Module, names: Iterable[str], batches: Iterable[Any]
) -> dict[str, Tensor]:
    """``[in, in]`` in float64, for every map that was called with rows of its inputs."""
    grams: dict[str, Tensor] = {}
    width = {name: get_tensor(model, name).shape[-1] for name in names}

    def watch(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0]
            if x.shape[-1] == width[name]:
                rows = x.detach().reshape(-1, width[name]).double()
                grams[name] = grams.get(name, 0) + rows.T @ rows

        return hook

    hooks = [owner_of(model, name)[0].register_forward_pre_hook(watch(name)) for name in width]
    seen = False
    try:
        with evaluating(model):
            for batch in batches:
                seen = True
                call(model, inputs_of(batch))
    finally:
        for handle in hooks:
            handle.remove()
    if not seen:
        raise ConfigError("compensation needs data, but there was not a single batch")
    return grams


def _compensated(
    owner: nn.Module, weight: Tensor, removed: Tensor, gram: Tensor, ridge: float
) -> Tensor:
    removed = removed.to(weight.device)
    kept = ~removed
    inner = gram[kept][:, kept]
    inner = inner + ridge * inner.diagonal().mean() * torch.eye(len(inner)).to(inner)
    standing = torch.linalg.solve(inner, gram[kept][:, removed])  # [kept, removed]
    coefficient = getattr(owner, "coefficient", None)  # what the map multiplies its inputs with
    scale = torch.ones(len(removed)).to(gram) if coefficient is None else coefficient.double()
    seen = weight.double() * scale
    changed = seen.clone()
    changed[..., kept] += seen[..., removed] @ standing.T
    return (changed / scale).to(weight)
