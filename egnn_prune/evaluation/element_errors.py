"""Errors of forces, element by element."""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
Errors = dict[str, dict[str, float]]
#: Sums over each group of the absolute and of the squared errors, and how many they are, ``[n]``.
Sums = tuple[Array, Array, Array]


def force_errors_by_element(error: Tensor, z: Tensor) -> Errors:
    """Errors of the force components on the atoms of each element.

    Args:
        error: predicted less true forces, ``[N, 3]``.
        z: atomic numbers, ``[N]``.

    Returns:
        By chemical symbol, in the order of atomic numbers: how many ``atoms``, and ``mae`` and
        ``rmse`` in the unit of the error.
    """
    elements, owner = z.unique(return_inverse=True)
    sums = sums_of(error.double().numpy(), owner.numpy(), len(elements))
    return {
        chemical_symbols[element]: {
            "atoms": round(count / 3),
            "mae": float(absolute / count),
            "rmse": float(np.sqrt(square / count)),
        }
        for element, absolute, square, count in zip(elements.tolist(), *sums, strict=True)
    }


def sums_of(error: Array, owner: NDArray[np.int64], n: int) -> Sums:
    """The sums that errors of groups are made of.

    Args:
        error: ``[K]`` or ``[K, 3]``.
        owner: ``[K]`` the group of each, such as its structure.
        n: groups.
    """
    error = np.asarray(error, dtype=np.float64).reshape(len(owner), -1)

    def added(values: Array) -> Array:
        return np.bincount(owner, values, n).astype(np.float64)

    width = np.full(len(owner), error.shape[1], dtype=np.float64)
    return added(np.abs(error).sum(1)), added((error**2).sum(1)), added(width)
