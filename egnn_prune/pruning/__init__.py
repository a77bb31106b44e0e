"""Which weights go: groups of channels are scored, masked, held still and removed for real.

This package knows torch only: tensors, modules, groups of channels. No graph, no image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from egnn_prune.channels import ChannelGroup, Member
from egnn_prune.pruning.budget import choose_within, latency_of, latency_share_of, macs_of
from egnn_prune.pruning.channel_choice import SCOPES, choose, shuffle_masks
from egnn_prune.pruning.channel_costs import ChannelCosts, channel_costs
from egnn_prune.pruning.compaction import compact, compact_with_optimizer
from egnn_prune.pruning.compensation import compensate
from egnn_prune.pruning.criteria import CRITERIA, Context, Movement, score_channels
from egnn_prune.pruning.effective import effective_masks, effective_sparsity
from egnn_prune.pruning.freezing import freeze
from egnn_prune.pruning.latency_budget import LatencyBudget
from egnn_prune.pruning.ledger import count_macs, ledger
from egnn_prune.pruning.masks import (
    apply_masks,
    keep_masks,
    lift_masks,
    register_masks,
    remove_masks,
    thaw,
)
from egnn_prune.pruning.multiples import best_multiple
from egnn_prune.pruning.schedule import SCHEDULES, incremental, sparsities
from egnn_prune.pruning.sparse_weights import (
    WEIGHT_CRITERIA,
    apply_weight_masks,
    choose_weights,
    n_m_mask,
    score_weights,
)
from egnn_prune.pruning.stopwatch import TakingTurns
from egnn_prune.pruning.weights import reinitialise, rewind, snapshot

#: Their names before.
hold, release = register_masks, remove_masks

if TYPE_CHECKING:
    from egnn_prune.adapters.traced import TracedNetwork

__all__ = [
    "CRITERIA",
    "SCHEDULES",
    "SCOPES",
    "WEIGHT_CRITERIA",
    "ChannelCosts",
    "ChannelGroup",
    "Context",
    "LatencyBudget",
    "Member",
    "Movement",
    "TakingTurns",
    "TracedNetwork",
    "apply_masks",
    "apply_weight_masks",
    "best_multiple",
    "channel_costs",
    "choose",
    "choose_weights",
    "choose_within",
    "compact",
    "compact_with_optimizer",
    "compensate",
    "count_macs",
    "effective_masks",
    "effective_sparsity",
    "freeze",
    "hold",
    "incremental",
    "keep_masks",
    "latency_of",
    "latency_share_of",
    "ledger",
    "lift_masks",
    "macs_of",
    "n_m_mask",
    "register_masks",
    "reinitialise",
    "release",
    "remove_masks",
    "rewind",
    "score_channels",
    "score_weights",
    "shuffle_masks",
    "snapshot",
    "sparsities",
    "thaw",
]


def __getattr__(name: str) -> Any:
    """Hand on ``TracedNetwork``, which lives with the other adapters and imports this package."""
    if name == "TracedNetwork":
        from egnn_prune.adapters.traced import TracedNetwork

        return TracedNetwork
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
