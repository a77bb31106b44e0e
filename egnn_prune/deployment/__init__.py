"""Trained models outside of training: files, predictions with error bars, other formats."""

from egnn_prune.deployment.checkpoint import load, load_estimator, save
from egnn_prune.deployment.trained_model import TrainedModel

__all__ = ["TrainedModel", "load", "load_estimator", "save"]
