"""How sure a model is, and whether that is true. This package knows torch only."""

from egnn_prune.uncertainty.dropout import draw_networks, mc_dropout, thinned
from egnn_prune.uncertainty.ensemble import DeepEnsemble
from egnn_prune.uncertainty.scores import error_uncertainty_spearman, gaussian_nll

__all__ = [
    "DeepEnsemble",
    "draw_networks",
    "error_uncertainty_spearman",
    "gaussian_nll",
    "mc_dropout",
    "thinned",
]
