"""Prune any network in a few lines of Python."""

from egnn_prune.api.pruning import channel_groups, compact, fine_tune, prune
from egnn_prune.api.sparsity_sweep import sparsity_sweep

__all__ = ["channel_groups", "compact", "fine_tune", "prune", "sparsity_sweep"]
