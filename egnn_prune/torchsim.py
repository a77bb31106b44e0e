"""Trained models in TorchSim; importing this needs ``pip install 'egnn_prune[torchsim]'``."""

from egnn_prune.deployment.torch_sim_model import TorchSimModel

__all__ = ["TorchSimModel"]
