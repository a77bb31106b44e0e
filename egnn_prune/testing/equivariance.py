"""Check the symmetries of any model of 3D graphs: hand over your module and a PyG batch.

What must turn and what must stay: :mod:`egnn_prune.evaluation.equivariance`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from egnn_prune.evaluation.equivariance import HINTS, symmetry_errors


def assert_equivariant(
    model: Callable[[Any], Any],
    batch: Batch | Data,
    *,
    tolerance: float | None = None,
    scale: float | None = None,
    transforms: int = 5,
    seed: int = 0,
) -> None:
    """Fail, and say which symmetry is broken, unless a model is equivariant to rounding.

    Args:
        model: maps a PyG batch to a ``Prediction``, a tensor or a PyG batch. To check other
            vectors, such as forces, wrap the model in a function that returns
            ``Data(vel=forces)``.
        batch: graphs with ``pos [N, n]``.
        tolerance: the largest deviation over the scale; by default 1e-10 where both the model and
            the positions are in float64, 1e-5 otherwise.
        scale: see :func:`equivariance_error`.
        transforms: how many changes of view.
        seed: of the random draws.

    Raises:
        AssertionError: a symmetry is broken; says which, in which output and by how much.
    """
    if tolerance is None:
        tolerance = default_tolerance(model, batch)
    combined = symmetry_errors(model, batch, tuple(HINTS)[-1], scale, transforms, seed)
    if max(combined.values()) <= tolerance:
        return
    if max(combined.values()) == math.inf:
        names = ", ".join(k for k, v in combined.items() if v == math.inf)
        raise AssertionError(f"{model_name(model)} returns NaN or infinite numbers in {names}")
    lines, broken = [], []
    for symmetry in HINTS:
        errors = symmetry_errors(model, batch, symmetry, scale, transforms, seed)
        output = max(errors, key=lambda k: errors[k])
        if errors[output] > tolerance:
            broken.append(symmetry)
            lines.append(f"  {symmetry}: {output} deviates by {errors[output]:.1e} of its scale")
    raise AssertionError(
        f"{model_name(model)} is not equivariant; allowed are {tolerance:.0e}, but under\n"
        + "\n".join(lines)
        + f"\n{HINTS[broken[0]]}"
    )


def default_tolerance(model: Callable[[Any], Any], batch: Batch | Data | Tensor) -> float:
    """1e-10 where both the model and its input are in float64, 1e-5 otherwise."""
    dtypes = {getattr(batch, "pos", batch).dtype}
    if isinstance(model, nn.Module):
        dtypes |= {p.dtype for p in model.parameters() if p.is_floating_point()}
    return 1e-10 if dtypes == {torch.float64} else 1e-5


def model_name(model: Callable[[Any], Any]) -> str:
    """What to call a model in a message."""
    return getattr(model, "__name__", type(model).__name__)
