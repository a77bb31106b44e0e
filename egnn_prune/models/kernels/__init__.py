"""The sums over edges on CUDA devices, by Triton kernels; the plain version everywhere else.

The kernels recompute what they need and store nothing edge-sized. They stand in files of their own,
which are imported when they are first used: where Triton is missing, never.

They have to be asked for (:func:`use`, or ``EGNN_PRUNE_KERNELS=1``): their numbers are tested, but
whether they are faster on a GPU is for ``scripts/check_cuda.py`` to say there.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch
from torch import Tensor

from egnn_prune.models.basis import GaussianBasis, SquaredDistance
from egnn_prune.models.edge_sums import EdgeInputs, EdgeWeights, Geometry
from egnn_prune.models.edge_sums import edge_sums as plain_edge_sums

#: Widest messages, radial functions and dimensions that a tile has room for.
WIDEST = {"message": 128, "features": 64, "dims": 16}
_used: ContextVar[bool] = ContextVar("used", default=os.environ.get("EGNN_PRUNE_KERNELS") == "1")
#: Tensor cores that know TF32 and bfloat16 begin here (Ampere).
CAPABILITY = (8, 0)

__all__ = ["available", "edge_sums", "pays", "suits", "use"]


@cache
def _triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


@contextmanager
def use(yes: bool = True) -> Iterator[None]:
    """Within this context, and this thread, networks take the kernels where they can, or do not.

    Example:
        >>> with kernels.use():  # doctest: +SKIP
        ...     out = network(batch.to("cuda"))
    """
    token = _used.set(yes)
    try:
        yield
    finally:
        _used.reset(token)


def available(device: torch.device, interpreted: bool = False) -> bool:
    """Whether kernels run on a device.

    Args:
        device: where the tensors are.
        interpreted: on the CPU, by Triton's interpreter (``TRITON_INTERPRET=1`` before Triton is
            imported): to test them, thousands of times slower than the plain version.
    """
    if not _triton():
        return False
    if device.type != "cuda":
        return interpreted and device.type == "cpu"
    return torch.version.hip is None and _capability(device) >= CAPABILITY


def suits(inputs: EdgeInputs, weights: EdgeWeights, geometry: Geometry) -> bool:
    """Whether the kernels can compute this: precision, radial functions and widths."""
    widths = {
        "message": weights.out.shape[0],
        "features": weights.radial.shape[1],
        "dims": inputs.pos.shape[1],
    }
    floats = [inputs.to_target, inputs.to_source, *(w for w in weights if w is not None)]
    return (
        isinstance(geometry.radial, (SquaredDistance, GaussianBasis))
        and all(t.dtype in (torch.float32, torch.bfloat16) for t in floats)
        and (inputs.attr is None or inputs.attr.is_floating_point())
        and all(width <= WIDEST[name] for name, width in widths.items())
        and not torch._C._are_functorch_transforms_active()
    )


def pays(
    inputs: EdgeInputs, weights: EdgeWeights, geometry: Geometry, interpreted: bool = False
) -> bool:
    """Whether :func:`edge_sums` takes the kernels: asked for, :func:`available`, :func:`suits`."""
    device = inputs.to_target.device
    return _used.get() and available(device, interpreted) and suits(inputs, weights, geometry)


def edge_sums(
    inputs: EdgeInputs,
    weights: EdgeWeights,
    geometry: Geometry,
    source: Tensor,
    target: Tensor,
    interpreted: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """:func:`egnn_prune.models.edge_sums.edge_sums`, by kernels where they can compute it.

    Args:
        inputs: of nodes and edges.
        weights: of the edge network.
        geometry: how distances and directions enter.
        source: ``[E]``.
        target: ``[E]``, sorted.
        interpreted: see :func:`available`.

    Returns:
        ``[N, message]``, and ``[N, n]`` where nodes move.
    """
    if pays(inputs, weights, geometry, interpreted):
        from egnn_prune.models.kernels.edge_sums_cuda import edge_sums_cuda

        return edge_sums_cuda(inputs, weights, geometry, source, target)
    return plain_edge_sums(inputs, weights, geometry, source, target)
