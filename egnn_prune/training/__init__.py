"""Lightning modules and callbacks: one step of learning."""

from egnn_prune.training.loss import graph_losses
from egnn_prune.training.pruning_callback import IncrementalPruning, PruningCallback
from egnn_prune.training.task import RegressionTask, fit, fit_loader
from egnn_prune.training.unfreezing import GradualUnfreezing
from egnn_prune.training.variance import predictive_variance

__all__ = [
    "GradualUnfreezing",
    "IncrementalPruning",
    "PruningCallback",
    "RegressionTask",
    "fit",
    "fit_loader",
    "graph_losses",
    "predictive_variance",
]
