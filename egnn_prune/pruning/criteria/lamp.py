"""Importance by magnitude, in proportion to what would still be left."""

from __future__ import annotations

import torch
from torch import Tensor

from egnn_prune.channels import ChannelGroup
from egnn_prune.pruning.criteria.channel_sums import weight_sums
from egnn_prune.pruning.criteria.context import Context


@torch.no_grad()
def lamp(group: ChannelGroup, context: Context) -> Tensor:
    r"""Layer-adaptive magnitude: a channel's square over the squares at least as large, ``[n]``.

    .. math:: s_c = \frac{\|w_c\|^2}{\sum_{c':\, \|w_{c'}\| \ge \|w_c\|} \|w_{c'}\|^2}

    with :math:`w_c` all weights of channel c in the group. The largest channel of each group
    scores exactly 1, so a global ranking empties no group, and no further normalisation is due.
    Channels of equal size are ordered by their number. Source: Lee et al. 2021, Eq. 3, there for
    single weights.
    """
    return lamp_of(weight_sums(group, context.model, torch.square))


def lamp_of(square: Tensor) -> Tensor:
    """LAMP scores of squared sizes, ``[n] -> [n]``."""
    ascending, order = square.sort(stable=True)
    left = ascending.flip(0).cumsum(0).flip(0)
    score = torch.zeros_like(square)
    score[order] = ascending / left.clamp(min=torch.finfo(square.dtype).tiny)
    return score
