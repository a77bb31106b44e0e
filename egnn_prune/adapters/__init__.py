"""Other people's networks as prunable modules.

Try :class:`TracedNetwork` first: it finds the channel groups of plain torch and PyG networks. Where
it finds none, write a subclass of :class:`egnn_prune.channels.Prunable` here, which declares
``channel_groups()`` and builds ``resized(keep)``, and test it with
:func:`egnn_prune.testing.assert_prunable`. To be saved and loaded by name it needs an entry in
``BUILDERS`` (:mod:`egnn_prune.deployment.checkpoint`). How a network is called with a batch:
:mod:`egnn_prune.pruning.calling`.
"""

from egnn_prune.adapters.traced import TracedNetwork

__all__ = ["TracedNetwork"]
