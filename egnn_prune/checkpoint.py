"""Kept for users' imports; the code is in :mod:`egnn_prune.deployment.checkpoint`."""

from egnn_prune.deployment.checkpoint import load, load_estimator, read_header, save

__all__ = ["load", "load_estimator", "read_header", "save"]
