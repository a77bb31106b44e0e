"""Lightning modules and callbacks: one step of learning."""

from egnn_prune.training.loss import graph_losses
from egnn_prune.training.task import AtSteps, RegressionTask, fit

__all__ = ["AtSteps", "RegressionTask", "fit", "graph_losses"]
