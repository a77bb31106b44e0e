"""What gets pruned: the equivariant network, its read-outs, and both together."""

from egnn_prune.models.egnn import EGNN
from egnn_prune.models.egnn_layer import EGNNLayer, EGNNOptions, LayerWidths
from egnn_prune.models.forces import (
    energies_and_member_forces,
    energies_member_forces_stress,
    energy_and_forces,
    energy_forces_stress,
    force_prediction,
    forces,
)
from egnn_prune.models.heads import MeanVarianceHead
from egnn_prune.models.irreps_layer import IrrepsLayer, IrrepsOptions, IrrepsWidths
from egnn_prune.models.irreps_net import IrrepsNet
from egnn_prune.models.position_model import PositionModel
from egnn_prune.models.property_model import PropertyModel, TargetScale
from egnn_prune.system.malloc import keep_freed_memory

__all__ = [
    "EGNN",
    "EGNNLayer",
    "EGNNOptions",
    "IrrepsLayer",
    "IrrepsNet",
    "IrrepsOptions",
    "IrrepsWidths",
    "LayerWidths",
    "MeanVarianceHead",
    "PositionModel",
    "PropertyModel",
    "TargetScale",
    "energies_and_member_forces",
    "energies_member_forces_stress",
    "energy_and_forces",
    "energy_forces_stress",
    "force_prediction",
    "forces",
]

keep_freed_memory()  # or half of a fresh process's time goes into pages for its tensors
