"""Lightning modules and callbacks: one step of learning."""

from egnn_prune.training.curve import LearningCurve
from egnn_prune.training.force_loss import ForceLosses
from egnn_prune.training.keep_best import KeepBest
from egnn_prune.training.loss import (
    LOSSES,
    crps_losses,
    graph_losses,
    nll_losses,
    squared_losses,
)
from egnn_prune.training.pruning_callback import IncrementalPruning, Pruning, PruningCallback
from egnn_prune.training.reselection import Reselection
from egnn_prune.training.task import FitSettings, RegressionTask, Task, fit, graph_batches
from egnn_prune.training.unfreezing import GradualUnfreezing
from egnn_prune.training.variance import predictive_variance

__all__ = [
    "LOSSES",
    "FitSettings",
    "ForceLosses",
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
