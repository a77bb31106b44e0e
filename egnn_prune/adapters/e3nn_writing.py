"""Matrices of this package back into e3nn's flat weights: the inverse of ``e3nn_layout``."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from egnn_prune.adapters.e3nn_layout import slots


def effective(linear: Any) -> Tensor:
    """What a ``CopyLinear`` or ``ElementLinear`` multiplies with, in float64."""
    if linear.weight is None:
        return torch.zeros(linear.copies, 0, dtype=torch.float64)
    return linear.weight.detach().double() * linear.coefficient.double()


@torch.no_grad()
def write_linear(linear: Any, matrices: dict[str, Tensor]) -> None:
    """Fill an ``o3.Linear`` with ``[out, in]`` of each irrep, zeros where there is none."""
    inputs, outputs = list(slots(linear.irreps_in)), list(slots(linear.irreps_out))
    blocks = []
    for instruction in linear.instructions:
        (ir, rows), (_, columns) = outputs[instruction.i_out], inputs[instruction.i_in]
        if ir in matrices:
            block = matrices[ir][rows, columns].T / instruction.path_weight
        else:
            block = torch.zeros(instruction.path_shape, dtype=torch.float64)
        blocks.append(block.flatten())
    linear.weight.copy_(torch.cat(blocks))


@torch.no_grad()
def write_product(product: Any, matrices: dict[str, Tensor]) -> None:
    """Fill a ``FullyConnectedTensorProduct`` with scalars, ``[scalars, out, in]`` of each irrep."""
    inputs, outputs = list(slots(product.irreps_in1)), list(slots(product.irreps_out))
    blocks = []
    for instruction in product.instructions:
        (ir, rows), (_, columns) = outputs[instruction.i_out], inputs[instruction.i_in1]
        # e3nn's Wigner symbol of (l, 0, l) is the identity over sqrt(2l + 1)
        factor = instruction.path_weight / product.irreps_out[instruction.i_out].ir.dim ** 0.5
        block = matrices[ir][:, rows, columns].permute(2, 0, 1) / factor
        assert block.shape == instruction.path_shape
        blocks.append(block.flatten())
    product.weight.copy_(torch.cat(blocks))


@torch.no_grad()
def radial_columns(product: Any, matrices: dict[str, Tensor]) -> Tensor:
    """Rows ``[weights, hidden]`` that make a uvu product's weights, in the order of instructions.

    Args:
        product: the tensor product.
        matrices: for each target irrep the rows of all paths to it, sorted as the slots are.
    """
    starts = [where.start for _, where in slots(product.irreps_out)]
    rows = []
    for instruction in product.instructions:
        ir = product.irreps_out[instruction.i_out].ir
        at, n = starts[instruction.i_out], prod(instruction.path_shape)
        rows.append(matrices[str(ir)][at : at + n] / (instruction.path_weight / ir.dim**0.5))
    return torch.cat(rows)
