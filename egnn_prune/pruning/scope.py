"""Which channels go: from scores to masks, with exact counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from egnn_prune.errors import ConfigError

SCOPES = ("global", "group")


def choose(
    scores: dict[str, Tensor],
    sparsity: float,
    scope: str = "global",
    keep: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Keep the highest-scored channels.

    Exactly ``floor(sparsity * n)`` of the n channels in the scope are removed. Channels that an
    earlier round removed stay removed, and every group keeps at least its best channel.

    Args:
        scores: for each group ``[n]``, higher is more important.
        sparsity: the fraction of channels *removed*, in [0, 1), counted from the dense model.
        scope: ``"global"`` ranks all channels together, ``"group"`` each group by itself.
        keep: masks of an earlier round.

    Returns:
        For each group a boolean ``[n]``, true for channels that stay.

    Raises:
        ConfigError: the sparsity or the scope is out of range, a score is not finite, an earlier
            round removed more than this one may, or so many channels would go that a group were
            left empty.
    """
    if not 0 <= sparsity < 1:
        raise ConfigError(f"sparsity is the fraction removed and lies in [0, 1), not {sparsity}")
    if scope not in SCOPES:
        raise ConfigError(f"scope must be one of {', '.join(SCOPES)}, not {scope!r}")
    for name, score in scores.items():
        if score.dim() != 1 or len(score) == 0:
            raise ConfigError(f"group {name} needs a score for each of its channels")
        if not torch.isfinite(score).all():
            raise ConfigError(
                f"the importance of group {name} is NaN or infinite; check loss and data"
            )
    pools = [list(scores)] if scope == "global" else [[name] for name in scores]
    result: dict[str, Tensor] = {}
    for pool in pools:
        result |= _choose_in_pool({k: scores[k] for k in pool}, sparsity, keep or {})
    return result


def _choose_in_pool(
    scores: dict[str, Tensor], sparsity: float, keep: dict[str, Tensor]
) -> dict[str, Tensor]:
    total = sum(len(s) for s in scores.values())
    count = math.floor(sparsity * total + 1e-9)  # 0.29 * 100 is 28.999999999999996
    if count > total - len(scores):
        raise ConfigError(
            f"sparsity {sparsity} would remove {count} of {total} channels, but each of the "
            f"{len(scores)} groups must keep one; ask for less"
        )
    gone = sum(int((~keep[name]).sum()) for name in scores if name in keep)
    if gone > count:
        raise ConfigError(
            f"sparsity {sparsity} removes {count} of {total} channels, but an earlier round "
            f"removed {gone}, which stay removed; ask for more"
        )
    ranked = []
    for name, score in scores.items():
        score = score.detach().double().cpu().clone()
        if name in keep:  # gone is gone: first in the order of removal
            score[~keep[name].cpu()] = -math.inf
        score[score.argmax()] = math.inf  # never empty a group
        ranked.append(score)
    flat = torch.cat(ranked)
    alive = torch.ones(total, dtype=torch.bool)
    alive[flat.argsort(stable=True)[:count]] = False
    return dict(zip(scores, alive.split([len(s) for s in ranked]), strict=True))
