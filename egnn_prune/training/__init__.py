"""Lightning modules and callbacks: one step of learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from egnn_prune.system.lazy_imports import lazy_names
from egnn_prune.training.force_loss import ForceLosses
from egnn_prune.training.force_probes import ForceProbes
from egnn_prune.training.loss import (
    LOSSES,
    crps_losses,
    graph_losses,
    nll_losses,
    squared_losses,
)
from egnn_prune.training.variance import predictive_variance

if TYPE_CHECKING:
    from egnn_prune.training.curve import LearningCurve
    from egnn_prune.training.keep_best import KeepBest
    from egnn_prune.training.pruning_callback import IncrementalPruning, Pruning, PruningCallback
    from egnn_prune.training.reselection import Reselection
    from egnn_prune.training.task import FitSettings, RegressionTask, Task, fit, graph_batches
    from egnn_prune.training.unfreezing import GradualUnfreezing
else:  # Lightning, which scoring channels by a loss does not need
    __getattr__ = lazy_names(
        __name__,
        {
            "curve": ("LearningCurve",),
            "keep_best": ("KeepBest",),
            "pruning_callback": ("IncrementalPruning", "Pruning", "PruningCallback"),
            "reselection": ("Reselection",),
            "task": ("FitSettings", "RegressionTask", "Task", "fit", "graph_batches"),
            "unfreezing": ("GradualUnfreezing",),
        },
    )

__all__ = [
    "LOSSES",
    "FitSettings",
    "ForceLosses",
    "ForceProbes",
    "GradualUnfreezing",
    "IncrementalPruning",
    "KeepBest",
    "LearningCurve",
    "Pruning",
    "PruningCallback",
    "RegressionTask",
    "Reselection",
    "Task",
    "crps_losses",
    "fit",
    "graph_batches",
    "graph_losses",
    "nll_losses",
    "predictive_variance",
    "squared_losses",
]
