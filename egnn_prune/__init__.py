"""Smaller equivariant networks whose accuracy, symmetry and error bars stay true.

The parts, in the order in which the main job (:mod:`egnn_prune.pipeline.main_job`) uses them:

* :mod:`egnn_prune.data`: where graphs come from
* :mod:`egnn_prune.models`: the equivariant network
* :mod:`egnn_prune.uncertainty`: how sure it is
* :mod:`egnn_prune.selection`: which training graphs deserve more work
* :mod:`egnn_prune.pruning`: which channels go, and how they are removed for real
* :mod:`egnn_prune.report`: tables, figures, the page
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from egnn_prune.api.pruning import channel_groups, compact, fine_tune, prune
    from egnn_prune.api.sparsity_sweep import sparsity_sweep
    from egnn_prune.deployment.checkpoint import load, load_estimator, save
    from egnn_prune.models import EGNN, IrrepsNet, PropertyModel, forces
    from egnn_prune.prediction import Prediction

__version__ = "0.1.0"

__all__ = [
    "EGNN",
    "IrrepsNet",
    "Prediction",
    "PropertyModel",
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

_HOMES = {
    "EGNN": "models",
    "IrrepsNet": "models",
    "Prediction": "prediction",
    "PropertyModel": "models",
    "channel_groups": "api.pruning",
    "compact": "api.pruning",
    "fine_tune": "api.pruning",
    "forces": "models",
    "load": "deployment.checkpoint",
    "load_estimator": "deployment.checkpoint",
    "prune": "api.pruning",
    "save": "deployment.checkpoint",
    "sparsity_sweep": "api.sparsity_sweep",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds, ``--help`` should not."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
