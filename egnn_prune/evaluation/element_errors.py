"""Errors of forces, element by element."""

from __future__ import annotations

from ase.data import chemical_symbols
from torch import Tensor

Errors = dict[str, dict[str, float]]


def force_errors_by_element(error: Tensor, z: Tensor) -> Errors:
    """Errors of the force components on the atoms of each element.

    Args:
        error: predicted less true forces, ``[N, 3]``.
        z: atomic numbers, ``[N]``.

    Returns:
        By chemical symbol, in the order of atomic numbers: how many ``atoms``, and ``mae`` and
        ``rmse`` in the unit of the error.
    """
    found: Errors = {}
    for element in z.unique().tolist():
        own = error[z == element].double()
        found[chemical_symbols[int(element)]] = {
            "atoms": len(own),
            "mae": float(own.abs().mean()),
            "rmse": float(own.square().mean().sqrt()),
        }
    return found
