"""The calibrations by the names that settings and files use."""

from __future__ import annotations

from typing import Any

from egnn_prune.errors import ConfigError
from egnn_prune.uncertainty.calibration.base import Calibration, NoCalibration
from egnn_prune.uncertainty.calibration.conformal import SplitConformal
from egnn_prune.uncertainty.calibration.isotonic import IsotonicQuantiles
from egnn_prune.uncertainty.calibration.monotone import MonotoneVariance
from egnn_prune.uncertainty.calibration.power import PowerVariance
from egnn_prune.uncertainty.calibration.robust import RobustScaling
from egnn_prune.uncertainty.calibration.temperature import TemperatureScaling
from egnn_prune.uncertainty.calibration.variance import VarianceScaling

CALIBRATIONS: dict[str, type[Calibration]] = {
    method.name: method
    for method in (
        NoCalibration,
        VarianceScaling,
        RobustScaling,
        MonotoneVariance,
        PowerVariance,
        IsotonicQuantiles,
        SplitConformal,
        TemperatureScaling,
    )
}


def build_calibration(name: str, **settings: Any) -> Calibration:
    """A calibration of this name, not fitted.

    Raises:
        ConfigError: there is no calibration of that name, or a setting is out of range.
    """
    if name not in CALIBRATIONS:
        raise ConfigError(f"calibration must be one of {', '.join(CALIBRATIONS)}, not {name!r}")
    return CALIBRATIONS[name](**settings)
