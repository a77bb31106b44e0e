"""Other people's networks as prunable modules."""

from egnn_prune.adapters.traced import TracedNetwork

__all__ = ["TracedNetwork"]
