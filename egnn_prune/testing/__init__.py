"""Helpers for tests, of this package and of yours: is a model symmetric, and can it be pruned?"""

from egnn_prune.evaluation.equivariance import MAX_SHIFT, equivariance_error, random_transform
from egnn_prune.testing.equivariance import assert_equivariant
from egnn_prune.testing.prunable import assert_prunable

__all__ = [
    "MAX_SHIFT",
    "assert_equivariant",
    "assert_prunable",
    "equivariance_error",
    "random_transform",
]
