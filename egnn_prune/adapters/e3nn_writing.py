"""Matrices of this package as e3nn's flat weights: the way back from :mod:`.e3nn_layout`."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.adapters.e3nn_layout import Matrix, slots
from egnn_prune.models.irreps_linear import CopyLinear


def effective(linear: Any) -> Tensor:
    """What a ``CopyLinear`` or ``ElementLinear`` multiplies with, in float64."""
    if linear.weight is None:
        return torch.zeros(linear.copies, 0, dtype=torch.float64)
    return linear.weight.detach().double() * linear.coefficient.double()


def matrix_of(module: nn.Module) -> Matrix:
    """What a :class:`CopyLinear` computes, with its coefficients multiplied in, in float64."""
    assert isinstance(module, CopyLinear)
    weight = effective(module)
    return Matrix(weight, torch.ones(weight.shape[-1], dtype=torch.float64), module.bias)


@torch.no_grad()
def write_linear(linear: Any, matrices: Mapping[str, Matrix | Tensor]) -> None:
    """Give an ``o3.Linear`` the function of matrices ``[out, in]``, zero for an irrep without."""
    inputs, outputs = list(slots(linear.irreps_in)), list(slots(linear.irreps_out))
    at = at_bias = 0
    for instruction in linear.instructions:
        ir, rows = outputs[instruction.i_out]
        found = matrices.get(ir)
        weight = found.weight if isinstance(found, Matrix) else found
        if instruction.i_in == -1:  # a bias
            n = rows.stop - rows.start
            bias = found.bias if isinstance(found, Matrix) else None
            own = 0.0 if bias is None else bias[rows] / instruction.path_weight
            linear.bias[at_bias : at_bias + n] = own
            at_bias += n
            continue
        _, columns = inputs[instruction.i_in]
        size = prod(instruction.path_shape)
        block = 0.0 if weight is None else weight[rows, columns].T / instruction.path_weight
        linear.weight[at : at + size] = block.reshape(-1) if isinstance(block, Tensor) else block
        at += size


@torch.no_grad()
def write_network(network: Any, matrices: list[Matrix]) -> None:
    """Give a ``FullyConnectedNet`` its layers: weight ``[in, out]`` over the root of the fan-in."""
    for k, matrix in enumerate(matrices):
        weight = getattr(network, f"layer{k}").weight
        weight.copy_(matrix.weight.T * weight.shape[0] ** 0.5)


def radial_matrix(product: Any, rows: dict[tuple[str, int, str], Tensor]) -> Matrix:
    """The last layer of a radial network, in the order of a product's instructions.

    Args:
        product: the uvu tensor product.
        rows: for each (source, l, target) the weights ``[copies, in]``.
    """
    parts = []
    for instruction in product.instructions:
        out = product.irreps_out[instruction.i_out].ir
        order = product.irreps_in2[instruction.i_in2].ir.l
        path = (str(product.irreps_in1[instruction.i_in1].ir), order, str(out))
        # the couplings here have the root of 2l + 1
        parts.append(rows[path] * (out.dim**0.5 / instruction.path_weight))
    whole = torch.cat(parts)
    return Matrix(whole, whole.new_ones(whole.shape[1]))


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
