"""Trained models in ASE: a calculator, dynamics, files of structures."""

from egnn_prune.ase.calculator import (
    PrunedCalculator,
    UncertaintyExceeded,
    UncertaintyGuard,
    UncertaintyWarning,
)

__all__ = ["PrunedCalculator", "UncertaintyExceeded", "UncertaintyGuard", "UncertaintyWarning"]
