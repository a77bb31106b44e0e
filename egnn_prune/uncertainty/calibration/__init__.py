"""Calibrated error bars, fitted on validation data and stored with the model."""

from egnn_prune.uncertainty.calibration.base import Calibration, NoCalibration
from egnn_prune.uncertainty.calibration.calibrated import Calibrated, calibrate
from egnn_prune.uncertainty.calibration.conformal import SplitConformal
from egnn_prune.uncertainty.calibration.isotonic import IsotonicQuantiles
from egnn_prune.uncertainty.calibration.methods import CALIBRATIONS, build_calibration
from egnn_prune.uncertainty.calibration.monotone import MonotoneVariance
from egnn_prune.uncertainty.calibration.points import MIN_POINTS
from egnn_prune.uncertainty.calibration.power import PowerVariance
from egnn_prune.uncertainty.calibration.robust import RobustScaling
from egnn_prune.uncertainty.calibration.temperature import TemperatureScaling
from egnn_prune.uncertainty.calibration.variance import VarianceScaling

__all__ = [
    "CALIBRATIONS",
    "MIN_POINTS",
    "Calibrated",
    "Calibration",
    "IsotonicQuantiles",
    "MonotoneVariance",
    "NoCalibration",
    "PowerVariance",
    "RobustScaling",
    "SplitConformal",
    "TemperatureScaling",
    "VarianceScaling",
    "build_calibration",
    "calibrate",
]
