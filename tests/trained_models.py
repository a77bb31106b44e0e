"""Small models with error bars, as runs leave them, for tests of their use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule

from egnn_prune.models import EGNNOptions, IrrepsOptions, PropertyModel, TargetScale
from egnn_prune.uncertainty import (
    Calibrated,
    DeepEnsemble,
    Estimator,
    LastLayer,
    MCDropout,
    NoiseAndRigidity,
    SinglePass,
    VarianceScaling,
)

ELEMENTS = (1, 6, 8)
CUTOFF = 3.5
SCALE = TargetScale((-13.0, -1030.0, -2040.0), 0.3, 2.0)


def network(dtype: torch.dtype = torch.float64, seed: int = 0, **keywords: object) -> PropertyModel:
    """An untrained EGNN with a smooth cutoff that reads H, C and O."""
    torch.manual_seed(seed)
    dropout = float(keywords.pop("dropout", 0.0))
    options = EGNNOptions(attention=True, radial=12, cutoff=CUTOFF, dropout=dropout)
    settings = {"hidden": 12, "layers": 2, "options": options, "scale": SCALE, **keywords}
    return PropertyModel.build(ELEMENTS, **settings).to(dtype).eval()


def irreps(dtype: torch.dtype) -> PropertyModel:
    torch.manual_seed(0)
    options = IrrepsOptions(cutoff=CUTOFF, lmax=1)
    model = PropertyModel.build_irreps(
        ELEMENTS, copies=4, layers=2, radial=8, hidden=8, members=2, options=options, scale=SCALE
    )
    return model.to(dtype).eval()


def last_layer(dtype: torch.dtype) -> LastLayer:
    model = LastLayer(network(dtype))
    features = len(model.network.last_layer_weights())
    model.covariance = 0.01 * torch.eye(features, dtype=torch.float64)
    return model


def rigidity(dtype: torch.dtype) -> NoiseAndRigidity:
    model = NoiseAndRigidity(network(dtype))
    features = len(model.network.last_layer_weights())
    model.covariance = 0.01 * torch.eye(features, dtype=torch.float64)
    return model


#: Every uncertainty method that a run may use.
METHODS: dict[str, Callable[[torch.dtype], Estimator]] = {
    "read-out dropout": lambda dtype: MCDropout(network(dtype, readout_dropout=0.2), 5, seed=3),
    "dropout": lambda dtype: MCDropout(network(dtype, dropout=0.2, readout_dropout=0.2), 4, seed=3),
    "shallow": lambda dtype: SinglePass(network(dtype, members=3)),
    "deep": lambda dtype: SinglePass(DeepEnsemble([network(dtype, seed=s) for s in range(3)])),
    "last layer": last_layer,
    "rigidity": rigidity,
    "irreps": lambda dtype: SinglePass(irreps(dtype)),
}


def calibrated(method: Estimator, factor: float = 4.0) -> Calibrated:
    """With error bars twice as long as the method states them (for a factor of 4)."""
    calibration = VarianceScaling()
    calibration.store(torch.zeros(1, dtype=torch.float64), factor=torch.tensor([factor]))
    return Calibrated(method, calibration).eval()


def trained(kind: str = "shallow", dtype: torch.dtype = torch.float64) -> Calibrated:
    return calibrated(METHODS[kind](dtype))


def ethanol(shake: float = 0.05, seed: int = 0) -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.positions += shake * np.random.default_rng(seed).normal(size=(9, 3))
    return atoms
