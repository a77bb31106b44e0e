"""Prune any network in a few lines of Python."""

from egnn_prune.api.pruning import channel_groups, compact, fine_tune, prune
from egnn_prune.api.sparsity_sweep import sparsity_sweep
from egnn_prune.api.speed import break_even

__all__ = ["break_even", "channel_groups", "compact", "fine_tune", "prune", "sparsity_sweep"]
