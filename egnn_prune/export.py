"""Kept for users' imports; the code is in :mod:`egnn_prune.deployment.export`."""

from egnn_prune.deployment.export import export_onnx, export_program, tensors

__all__ = ["export_onnx", "export_program", "tensors"]
