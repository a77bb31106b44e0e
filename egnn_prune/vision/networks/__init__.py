"""Networks that classify images: plain torch modules, which the engine traces and prunes."""

from egnn_prune.vision.networks.registry import NETWORKS, build_network

__all__ = ["NETWORKS", "build_network"]
