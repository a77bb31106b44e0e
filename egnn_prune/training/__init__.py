"""Lightning modules and callbacks: one step of learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from egnn_prune.system.lazy_imports import lazy_names
from egnn_prune.training.distillation import augmented, label
from egnn_prune.training.feature_loss import FeatureLosses
from egnn_prune.training.force_loss import ForceLosses
from egnn_prune.training.force_probes import ForceProbes
from egnn_prune.training.loss import (
    LOSSES,
    crps_losses,
    graph_losses,
    nll_losses,
    squared_losses,
)
from egnn_prune.training.potential_loss import PotentialLosses
from egnn_prune.training.variance import predictive_variance

if TYPE_CHECKING:
    from egnn_prune.training.curve import LearningCurve
    from egnn_prune.training.fit_checkpoint import FitCheckpoint
    from egnn_prune.training.fit_log import FitLog
    from egnn_prune.training.keep_best import KeepBest
    from egnn_prune.training.potential_task import (
        FitResult,
        PotentialSettings,
        PotentialTask,
        fit_potential,
    )
    from egnn_prune.training.pruning_callback import IncrementalPruning, Pruning, PruningCallback
    from egnn_prune.training.reselection import Reselection
    from egnn_prune.training.shifts import refit_shifts
    from egnn_prune.training.stop_early import StopEarly
    from egnn_prune.training.task import FitSettings, RegressionTask, Task, fit, graph_batches
    from egnn_prune.training.unfreezing import GradualUnfreezing
    from egnn_prune.training.weight_averaging import AveragedWeights
else:  # Lightning, which scoring channels by a loss does not need
    __getattr__ = lazy_names(
        __name__,
        {
            "curve": ("LearningCurve",),
            "fit_checkpoint": ("FitCheckpoint",),
            "fit_log": ("FitLog",),
            "keep_best": ("KeepBest",),
            "potential_task": (
                "FitResult",
                "PotentialSettings",
                "PotentialTask",
                "fit_potential",
            ),
            "pruning_callback": ("IncrementalPruning", "Pruning", "PruningCallback"),
            "reselection": ("Reselection",),
            "shifts": ("refit_shifts",),
            "stop_early": ("StopEarly",),
            "task": ("FitSettings", "RegressionTask", "Task", "fit", "graph_batches"),
            "unfreezing": ("GradualUnfreezing",),
            "weight_averaging": ("AveragedWeights",),
        },
    )

__all__ = [
    "LOSSES",
    "AveragedWeights",
    "FeatureLosses",
    "FitCheckpoint",
    "FitLog",
    "FitResult",
    "FitSettings",
    "ForceLosses",
    "ForceProbes",
    "GradualUnfreezing",
    "IncrementalPruning",
    "KeepBest",
    "LearningCurve",
    "PotentialLosses",
    "PotentialSettings",
    "PotentialTask",
    "Pruning",
    "PruningCallback",
    "RegressionTask",
    "Reselection",
    "StopEarly",
    "Task",
    "augmented",
    "crps_losses",
    "fit",
    "fit_potential",
    "graph_batches",
    "graph_losses",
    "label",
    "nll_losses",
    "predictive_variance",
    "refit_shifts",
    "squared_losses",
]
