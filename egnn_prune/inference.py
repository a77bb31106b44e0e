"""Kept for users' imports; the code is in :mod:`egnn_prune.ase.predict_file`."""

from egnn_prune.ase.predict_file import (
    Predicted,
    checked_folder,
    predict_structures,
    write_predictions,
)

__all__ = ["Predicted", "checked_folder", "predict_structures", "write_predictions"]
