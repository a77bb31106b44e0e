"""Smaller equivariant networks whose accuracy, symmetry and error bars stay true.

The parts, in the order in which the main job (:mod:`egnn_prune.pipeline.main_job`) uses them:

* :mod:`egnn_prune.data`: where graphs come from
* :mod:`egnn_prune.models`: the equivariant network
* :mod:`egnn_prune.uncertainty`: how sure it is
* :mod:`egnn_prune.selection`: which training graphs deserve more work
* :mod:`egnn_prune.pruning`: which channels go, and how they are removed for real
* :mod:`egnn_prune.training`: losses, fits, pruning in rounds
* :mod:`egnn_prune.evaluation`: error, error bars, cost and symmetry
* :mod:`egnn_prune.report`: tables, figures, the page

and around it: :mod:`~egnn_prune.api` (prune any network), :mod:`~egnn_prune.deployment` and
:mod:`~egnn_prune.ase` (trained models at work), :mod:`~egnn_prune.adapters` (other people's
networks), :mod:`~egnn_prune.studies`, :mod:`~egnn_prune.vision` and :mod:`~egnn_prune.cli`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from egnn_prune.system.lazy_imports import lazy_names

if TYPE_CHECKING:
    from egnn_prune.api.pruning import channel_groups, compact, fine_tune, prune
    from egnn_prune.api.sparsity_sweep import sparsity_sweep
    from egnn_prune.api.speed import break_even
    from egnn_prune.deployment.checkpoint import load, load_estimator, save
    from egnn_prune.models import EGNN, IrrepsNet, PropertyModel, forces
    from egnn_prune.prediction import Prediction
else:  # importing torch takes seconds, and ``--help`` should not
    __getattr__ = lazy_names(
        __name__,
        {
            "api.pruning": ("channel_groups", "compact", "fine_tune", "prune"),
            "api.sparsity_sweep": ("sparsity_sweep",),
            "api.speed": ("break_even",),
            "deployment.checkpoint": ("load", "load_estimator", "save"),
            "models": ("EGNN", "IrrepsNet", "PropertyModel", "forces"),
            "prediction": ("Prediction",),
        },
    )

__version__ = "0.1.0"

__all__ = [
    "EGNN",
    "IrrepsNet",
    "Prediction",
    "PropertyModel",
    "break_even",
    "channel_groups",
    "compact",
    "fine_tune",
    "forces",
    "load",
    "load_estimator",
    "prune",
    "save",
    "sparsity_sweep",
]
