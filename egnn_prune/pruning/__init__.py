"""Which weights go: groups of channels are scored, masked, held still and removed for real.

This package knows torch only: tensors, modules, groups of channels. No graph, no image.
"""

from egnn_prune.channels import ChannelGroup, Member
from egnn_prune.pruning.compaction import compact
from egnn_prune.pruning.criteria import CRITERIA, Context, score_channels
from egnn_prune.pruning.freezing import freeze
from egnn_prune.pruning.ledger import count_macs, ledger
from egnn_prune.pruning.masks import apply_masks, hold, keep_masks, lift_masks, release
from egnn_prune.pruning.schedule import iterative
from egnn_prune.pruning.scope import choose

__all__ = [
    "CRITERIA",
    "ChannelGroup",
    "Context",
    "Member",
    "apply_masks",
    "choose",
    "compact",
    "count_macs",
    "freeze",
    "hold",
    "iterative",
    "keep_masks",
    "ledger",
    "lift_masks",
    "release",
    "score_channels",
]
