"""What masks remove in effect: channels that nothing feeds or that nobody reads are gone too."""

from __future__ import annotations

import torch
from torch import Tensor

from egnn_prune.channels import ChannelGroup, Prunable
from egnn_prune.pruning.tensors import by_entry, spread, weight_members


@torch.no_grad()
def effective_masks(model: Prunable, groups: list[ChannelGroup] | None = None) -> dict[str, Tensor]:
    """Channels that can still change the output, ``{group name: boolean [n]}``.

    A channel is dead when all entries that make it are zero (weights and bias) or all that read
    it are. Its other entries then count as zero as well, which may kill its neighbours: repeated
    until nothing changes. Finds what unstructured masks leave without a path.

    Args:
        model: any module with ``channel_groups()``, masked or not.
        groups: the model's groups, where the caller already has them.
    """
    groups = groups if groups is not None else model.channel_groups()
    members = {g.name: weight_members(g, model) for g in groups}
    live = {m.name: t.detach() != 0 for pairs in members.values() for m, t in pairs}
    alive = {g.name: torch.ones(g.n, dtype=torch.bool) for g in groups}
    changed = True
    while changed:
        changed = False
        for group in groups:
            sides: dict[bool, Tensor] = {}
            for member, _ in members[group.name]:
                some = by_entry(member, live[member.name]).any(1).cpu()[member.index].any(1)
                sides[member.reads] = sides.get(member.reads, torch.zeros_like(some)) | some
            dead = alive[group.name] & ~torch.stack(list(sides.values())).all(0)
            if dead.any():
                changed = True
                alive[group.name] &= ~dead
                for member, tensor in members[group.name]:
                    live[member.name] &= ~spread(member, dead, tensor)
    return alive


def effective_sparsity(model: Prunable, groups: list[ChannelGroup] | None = None) -> float:
    """The fraction of channels without effect, at least the sparsity that was asked for."""
    alive = effective_masks(model, groups).values()
    return 1 - sum(int(a.sum()) for a in alive) / sum(len(a) for a in alive)
