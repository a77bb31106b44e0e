"""Trained models in ASE: a calculator, dynamics, files of structures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from egnn_prune.ase.calculator import (
    PrunedCalculator,
    UncertaintyExceeded,
    UncertaintyWarning,
)
from egnn_prune.ase.guard import UncertaintyGuard
from egnn_prune.system.lazy_imports import lazy_names

if TYPE_CHECKING:
    from egnn_prune.ase.collection import Collection
    from egnn_prune.ase.exported import ExportedCalculator
    from egnn_prune.ase.many import evaluate_many
    from egnn_prune.ase.specialist import SpecialistCalculator
    from egnn_prune.ase.teacher import Teacher
else:  # what a calculator without a teacher does not need
    __getattr__ = lazy_names(
        __name__,
        {
            "collection": ("Collection",),
            "exported": ("ExportedCalculator",),
            "many": ("evaluate_many",),
            "specialist": ("SpecialistCalculator",),
            "teacher": ("Teacher",),
        },
    )

__all__ = [
    "Collection",
    "ExportedCalculator",
    "PrunedCalculator",
    "SpecialistCalculator",
    "Teacher",
    "UncertaintyExceeded",
    "UncertaintyGuard",
    "UncertaintyWarning",
    "evaluate_many",
]
