"""Matrices of this package as e3nn's flat weights: the way back from :mod:`.e3nn_layout`."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.adapters.e3nn_layout import Matrix, slots
from egnn_prune.models.irreps_linear import CopyLinear


def matrix_of(module: nn.Module) -> Matrix:
    """What a :class:`CopyLinear` computes, with its coefficients multiplied in."""
    assert isinstance(module, CopyLinear)
    if module.weight is None:
        return Matrix(torch.zeros(module.copies, 0), torch.zeros(0), module.bias)
    weight = (module.weight * module.coefficient).detach()
    return Matrix(weight, torch.ones_like(module.coefficient), module.bias)


@torch.no_grad()
def write_linear(linear: Any, matrices: dict[str, Matrix]) -> None:
    """Give an ``o3.Linear`` the function of the matrices ``[out, in]`` of each irrep."""
    inputs, outputs = list(slots(linear.irreps_in)), list(slots(linear.irreps_out))
    at = at_bias = 0
    for instruction in linear.instructions:
        ir, rows = outputs[instruction.i_out]
        matrix = matrices[ir]
        if instruction.i_in == -1:  # a bias
            n = rows.stop - rows.start
            own = 0.0 if matrix.bias is None else matrix.bias[rows] / instruction.path_weight
            linear.bias[at_bias : at_bias + n] = own
            at_bias += n
            continue
        _, columns = inputs[instruction.i_in]
        size = prod(instruction.path_shape)
        block = matrix.weight[rows, columns].T / instruction.path_weight
        linear.weight[at : at + size] = block.reshape(-1)
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
