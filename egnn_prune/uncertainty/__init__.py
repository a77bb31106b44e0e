"""How sure a model is, and whether that is true. This package knows torch only.

A new method is a subclass of :class:`Estimator` in a file of its own, named in ``ESTIMATORS``
(:mod:`egnn_prune.uncertainty.saved_form`), so that model files can hold it. For the jobs it also
gets a name in ``METHODS`` (:mod:`egnn_prune.configs.settings`) and a branch of ``build_estimator``
(:mod:`egnn_prune.pipeline.build`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from egnn_prune.system.lazy_imports import lazy_names
from egnn_prune.uncertainty.atom_distance import AtomDistance
from egnn_prune.uncertainty.atom_error_bars import AtomErrorBars
from egnn_prune.uncertainty.atom_evidence import AtomEvidence
from egnn_prune.uncertainty.calibration import (
    CALIBRATIONS,
    Calibrated,
    Calibration,
    IsotonicQuantiles,
    MonotoneVariance,
    PowerVariance,
    RobustScaling,
    SplitConformal,
    TemperatureScaling,
    VarianceScaling,
    calibrate,
)
from egnn_prune.uncertainty.dropout import MCDropout, draw_networks, dropout_samples, mc_dropout
from egnn_prune.uncertainty.dropout_modules import ModuleDropout, dropout_modules
from egnn_prune.uncertainty.ensemble import DeepEnsemble
from egnn_prune.uncertainty.estimator import Estimator, SinglePass
from egnn_prune.uncertainty.last_layer import LastLayer, PredictionRigidity
from egnn_prune.uncertainty.metrics import regression_scores
from egnn_prune.uncertainty.noise_and_rigidity import NoiseAndRigidity
from egnn_prune.uncertainty.readout_ensemble import ReadoutEnsemble

thinned = dropout_samples  # its name before

if TYPE_CHECKING:
    from egnn_prune.uncertainty.metrics import (
        classification_scores,
        ood_scores,
        out_of_distribution_scores,
    )
else:
    __getattr__ = lazy_names(
        __name__,
        {"metrics": ("classification_scores", "ood_scores", "out_of_distribution_scores")},
    )

__all__ = [
    "CALIBRATIONS",
    "AtomDistance",
    "AtomErrorBars",
    "AtomEvidence",
    "Calibrated",
    "Calibration",
    "DeepEnsemble",
    "Estimator",
    "IsotonicQuantiles",
    "LastLayer",
    "MCDropout",
    "ModuleDropout",
    "MonotoneVariance",
    "NoiseAndRigidity",
    "PowerVariance",
    "PredictionRigidity",
    "ReadoutEnsemble",
    "RobustScaling",
    "SinglePass",
    "SplitConformal",
    "TemperatureScaling",
    "VarianceScaling",
    "calibrate",
    "classification_scores",
    "draw_networks",
    "dropout_modules",
    "dropout_samples",
    "mc_dropout",
    "ood_scores",
    "out_of_distribution_scores",
    "regression_scores",
    "thinned",
]
