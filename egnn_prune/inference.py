"""Another name for :mod:`egnn_prune.ase.predict_file`."""

from egnn_prune.ase.predict_file import predict_structures, write_predictions

__all__ = ["predict_structures", "write_predictions"]
