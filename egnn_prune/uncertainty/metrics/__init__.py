"""Scores of uncertainty as functions and as torchmetrics classes with ``plot()``.

They take tensors, NumPy arrays and lists alike, and compute in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from egnn_prune.system.lazy_imports import lazy_names
from egnn_prune.uncertainty.metrics.coverage import (
    coverage_curve,
    interval_coverage,
    miscalibration_area,
    rms_calibration,
)
from egnn_prune.uncertainty.metrics.likelihood import crps, crps_terms, nll, nll_terms
from egnn_prune.uncertainty.metrics.regression import regression_scores
from egnn_prune.uncertainty.metrics.sparsification import (
    Sparsification,
    ause,
    sparsification_curve,
)
from egnn_prune.uncertainty.metrics.spread import ence, sharpness, spearman

if TYPE_CHECKING:
    from egnn_prune.uncertainty.metrics.classification import (
        Brier,
        ClassNLL,
        brier_terms,
        class_nll_terms,
        classification_scores,
    )
    from egnn_prune.uncertainty.metrics.gaussian_metrics import (
        AUSE,
        CRPS,
        ENCE,
        ErrorUncertaintySpearman,
        GaussianNLL,
        IntervalCoverage,
        MiscalibrationArea,
        RMSCalibration,
        Sharpness,
    )
    from egnn_prune.uncertainty.metrics.out_of_distribution import (
        OutOfDistributionAUPR,
        OutOfDistributionAUROC,
        OutOfDistributionFPR,
        ood_scores,
        out_of_distribution_scores,
    )
    from egnn_prune.uncertainty.metrics.reliability import (
        ECE,
        UCE,
        EqualMassECE,
        ReliabilityDiagram,
    )
else:  # torchmetrics brings matplotlib and torchvision, which predicting does not need
    __getattr__ = lazy_names(
        __name__,
        {
            "classification": (
                "Brier",
                "ClassNLL",
                "brier_terms",
                "class_nll_terms",
                "classification_scores",
            ),
            "gaussian_metrics": (
                "AUSE",
                "CRPS",
                "ENCE",
                "ErrorUncertaintySpearman",
                "GaussianNLL",
                "IntervalCoverage",
                "MiscalibrationArea",
                "RMSCalibration",
                "Sharpness",
            ),
            "out_of_distribution": (
                "OutOfDistributionAUPR",
                "OutOfDistributionAUROC",
                "OutOfDistributionFPR",
                "ood_scores",
                "out_of_distribution_scores",
            ),
            "reliability": ("ECE", "UCE", "EqualMassECE", "ReliabilityDiagram"),
        },
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
