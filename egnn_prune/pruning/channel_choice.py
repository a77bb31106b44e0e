"""Which channels go: from scores to masks, with exact counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real

import torch
from torch import Tensor

from egnn_prune.channels import ChannelGroup
from egnn_prune.errors import ConfigError

#: What is ranked together: a name of the pool that a group belongs to.
SCOPES: dict[str, Callable[[str, str], str]] = {
    "global": lambda name, kind: "the network",
    "layer": lambda name, kind: name.rpartition(".")[0] or name,
    "kind": lambda name, kind: kind,
    "group": lambda name, kind: name,
}


def choose(
    scores: dict[str, Tensor],
    sparsity: float,
    scope: str = "global",
    keep: dict[str, Tensor] | None = None,
    *,
    groups: Sequence[ChannelGroup] | None = None,
    round_to: int = 1,
) -> dict[str, Tensor]:
    """Keep the highest-scored channels.

    Exactly ``floor(sparsity * n)`` of the n channels in each pool of the scope are removed.
    Channels that an earlier round removed stay removed. Every group keeps at least its best
    channel; groups of one family (the orders l of a layer) keep the best channel among them.

    Args:
        scores: for each group ``[n]``, higher is more important.
        sparsity: the fraction of channels *removed*, in [0, 1), counted from the dense model.
        scope: ``"global"`` ranks all channels together; ``"layer"`` those of groups whose names
            differ in their last part only (a name of one part is a layer by itself); ``"kind"``
            those of one kind in all layers; ``"group"`` each group by itself.
        keep: masks of an earlier round.
        groups: the groups themselves; ``"kind"`` and families need them.
        round_to: widths become multiples of this (of the dense width, where that is none), by
            keeping up to ``round_to - 1`` more channels of a group than were asked for. Where an
            earlier round removed the channels that this would take, up to ``round_to - 1`` fewer
            are kept instead; a group that would be left empty keeps its width.

    Returns:
        For each group a boolean ``[n]``, true for channels that stay.

    Raises:
        ConfigError: the sparsity or the scope is out of range, a score is not finite, an earlier
            round removed more than this one may, or so many channels would go that a group were
            left empty.

    Example:
        >>> scores = {"a": torch.tensor([4.0, 1.0, 3.0]), "b": torch.tensor([2.0, 0.5])}
        >>> choose(scores, 0.4)  # two of the five go
        {'a': tensor([ True, False,  True]), 'b': tensor([ True, False])}
    """
    check_sparsity(sparsity)
    for name, score in scores.items():
        if score.dim() != 1 or len(score) == 0:
            raise ConfigError(f"group {name} needs a score for each of its channels")
        if not torch.isfinite(score).all():
            raise ConfigError(
                f"the importance of group {name} is NaN or infinite; check loss and data"
            )
    result: dict[str, Tensor] = {}
    for pool in _pools(list(scores), scope, groups):
        pooled = {name: scores[name] for name in pool}
        result |= keep_highest(pooled, sparsity, keep or {}, _families(pool, groups))
    round_widths(result, scores, round_to, keep)
    return {name: result[name] for name in scores}


def check_sparsity(sparsity: float) -> None:
    """Raise a ConfigError unless the sparsity is a fraction below one."""
    if not isinstance(sparsity, Real) or not 0 <= sparsity < 1:
        raise ConfigError(f"sparsity is the fraction removed and lies in [0, 1), not {sparsity!r}")


def _pools(names: list[str], scope: str, groups: Sequence[ChannelGroup] | None) -> list[list[str]]:
    if scope not in SCOPES:
        raise ConfigError(f"scope must be one of {', '.join(SCOPES)}, not {scope!r}")
    kinds = {g.name: g.kind for g in groups or ()}
    if scope == "kind" and not set(names) <= set(kinds):
        raise ConfigError('scope "kind" needs the groups that the scores belong to: groups=...')
    pools: dict[str, list[str]] = {}
    for name in names:
        pools.setdefault(SCOPES[scope](name, kinds.get(name, "")), []).append(name)
    return list(pools.values())


def _families(pool: list[str], groups: Sequence[ChannelGroup] | None) -> list[list[str]]:
    """Groups of which one channel must stay, most often a single group each."""
    family = {g.name: g.family for g in groups or ()}
    found: dict[tuple[bool, str], list[str]] = {}
    for name in pool:
        key = family.get(name)
        found.setdefault((key is not None, key or name), []).append(name)
    return list(found.values())


def keep_highest(
    scores: dict[str, Tensor],
    sparsity: float,
    keep: dict[str, Tensor],
    families: list[list[str]],
    what: str = "channels",
    of: str = "groups",
) -> dict[str, Tensor]:
    """Keep the highest-scored entries of tensors that are ranked together.

    Args:
        scores: of any shapes.
        sparsity: exactly ``floor(sparsity * n)`` of all n entries go.
        keep: masks of an earlier round; what it removed stays removed.
        families: tensors of which one entry must stay, unless an earlier round removed all.
        what: name of the entries in messages.
        of: name of the families in messages.

    Returns:
        For each tensor a boolean one, flat, true for entries that stay.

    Raises:
        ConfigError: that many cannot go, or an earlier round removed more.
    """
    sizes = [score.numel() for score in scores.values()]
    total = sum(sizes)
    count = math.floor(sparsity * total + 1e-9)  # 0.29 * 100 is 28.999999999999996
    flat = torch.cat([s.detach().flatten().to("cpu", torch.float64) for s in scores.values()])
    everything = torch.ones(1, dtype=torch.bool)
    kept = [keep.get(k, everything).cpu().flatten().expand(s.numel()) for k, s in scores.items()]
    lost = ~torch.cat(kept)
    flat[lost] = -math.inf  # gone is gone: first in the order of removal
    parts = dict(zip(scores, flat.split(sizes), strict=True))
    reserved = 0
    for family in families:
        found = [parts[name] for name in family if parts[name].numel()]
        best = max(found, key=lambda part: float(part.max()), default=None)
        if best is not None and float(best.max()) > -math.inf:  # else all went in earlier rounds
            best[best.argmax()] = math.inf
            reserved += 1
    if count > total - reserved:
        raise ConfigError(
            f"sparsity {sparsity} would remove {count} of {total} {what}, but each of the "
            f"{len(families)} {of} must keep one; ask for less"
        )
    if int(lost.sum()) > count:
        raise ConfigError(
            f"sparsity {sparsity} removes {count} of {total} {what}, but an earlier round "
            f"removed {int(lost.sum())}, which stay removed; ask for more"
        )
    alive = torch.ones(total, dtype=torch.bool)
    alive[flat.argsort(stable=True)[:count]] = False
    return dict(zip(scores, alive.split(sizes), strict=True))


def round_widths(
    masks: dict[str, Tensor],
    scores: dict[str, Tensor],
    multiple: int,
    keep: dict[str, Tensor] | None = None,
) -> None:
    """Make widths multiples of a number, in place; see ``round_to`` of :func:`choose`."""
    if multiple < 1:
        raise ConfigError(f"round_to is a number of channels, at least 1, not {multiple}")
    for name, mask in masks.items():
        width = int(mask.sum())
        allowed = keep[name].cpu() if keep and name in keep else torch.ones_like(mask)
        target = min(width + -width % multiple, len(mask))
        if target > int(allowed.sum()):
            target = width - width % multiple
        if width and target:
            score = scores[name].detach().double().cpu()
            # first what stays, then what may, each by its score
            order = score.argsort(descending=True, stable=True)
            rank = mask.int() + allowed.int()
            order = order[rank[order].argsort(descending=True, stable=True)]
            mask.zero_()[order[:target]] = True


def shuffle_masks(
    keep: dict[str, Tensor], generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """As many channels in every group, but others: does it matter *which* ones were chosen?

    A sanity check: if shuffled masks do as well, a criterion has only found good widths. Source: Su
    et al. 2020, Section 3 ("layerwise rearrangement").
    """
    return {k: v[torch.randperm(len(v), generator=generator)] for k, v in keep.items()}
