"""Scores of uncertainty as functions and as torchmetrics classes with ``plot()``.

They take tensors, NumPy arrays and lists alike, and compute in float64.
"""

from egnn_prune.uncertainty.metrics.classification import (
    Brier,
    ClassNLL,
    brier_terms,
    class_nll_terms,
    classification_scores,
)
from egnn_prune.uncertainty.metrics.coverage import (
    IntervalCoverage,
    MiscalibrationArea,
    RMSCalibration,
    coverage_curve,
    interval_coverage,
    miscalibration_area,
    rms_calibration,
)
from egnn_prune.uncertainty.metrics.likelihood import (
    CRPS,
    GaussianNLL,
    crps,
    crps_terms,
    nll,
    nll_terms,
)
from egnn_prune.uncertainty.metrics.out_of_distribution import (
    OutOfDistributionAUPR,
    OutOfDistributionAUROC,
    OutOfDistributionFPR,
    ood_scores,
    out_of_distribution_scores,
)
from egnn_prune.uncertainty.metrics.regression import regression_scores
from egnn_prune.uncertainty.metrics.reliability import (
    ECE,
    UCE,
    EqualMassECE,
    ReliabilityDiagram,
)
from egnn_prune.uncertainty.metrics.sparsification import (
    AUSE,
    Sparsification,
    ause,
    sparsification_curve,
)
from egnn_prune.uncertainty.metrics.spread import (
    ENCE,
    ErrorUncertaintySpearman,
    Sharpness,
    ence,
    sharpness,
    spearman,
)

__all__ = [
    "AUSE",
    "CRPS",
    "ECE",
    "ENCE",
    "UCE",
    "Brier",
    "ClassNLL",
    "EqualMassECE",
    "ErrorUncertaintySpearman",
    "GaussianNLL",
    "IntervalCoverage",
    "MiscalibrationArea",
    "OutOfDistributionAUPR",
    "OutOfDistributionAUROC",
    "OutOfDistributionFPR",
    "RMSCalibration",
    "ReliabilityDiagram",
    "Sharpness",
    "Sparsification",
    "ause",
    "brier_terms",
    "class_nll_terms",
    "classification_scores",
    "coverage_curve",
    "crps",
    "crps_terms",
    "ence",
    "interval_coverage",
    "miscalibration_area",
    "nll",
    "nll_terms",
    "ood_scores",
    "out_of_distribution_scores",
    "regression_scores",
    "rms_calibration",
    "sharpness",
    "sparsification_curve",
    "spearman",
]
