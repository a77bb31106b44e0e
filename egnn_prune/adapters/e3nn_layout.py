"""Between e3nn's flat weights and the matrices of this package, with every normalisation.

e3nn keeps the blocks of an ``o3.Linear`` one after another in one flat weight, each ``[mul_in,
mul_out]`` and multiplied with ``path_weight`` (one over the square root of the fan-in). Here each
irrep has one matrix ``[out, in]`` and a coefficient for each input copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from egnn_prune.adapters.activations import Activation
from egnn_prune.adapters.element_linear import ElementLinear
from egnn_prune.errors import InputError
from egnn_prune.models.irreps_linear import CopyLinear


class UnknownLayout(InputError):
    """A network of others is not put together as its adapter knows it."""


@contextmanager
def known_layout(kind: str, version: str) -> Iterator[None]:
    """Say in one sentence that a part is missing or of another kind than its reader knows.

    Args:
        kind: of networks.
        version: of the package that the reader was written for.

    Raises:
        UnknownLayout: something below was looked for and not found.
    """
    try:
        yield
    except (AttributeError, KeyError, AssertionError, IndexError, StopIteration) as error:
        raise UnknownLayout(
            f"this {kind} is not put together as egnn_prune knows it ({error!r}); it was written "
            f"for {version}"
        ) from error


@dataclass(frozen=True)
class Matrix:
    """A linear map between copies of one irrep.

    Attributes:
        weight: ``[..., out, in]``.
        coefficient: ``[in]``.
        bias: ``[out]`` or ``None``.
    """

    weight: Tensor
    coefficient: Tensor
    bias: Tensor | None = None

    def rows(self, index: Tensor) -> Matrix:
        """The map to some of the outputs."""
        bias = None if self.bias is None else self.bias[index]
        return Matrix(self.weight[..., index, :], self.coefficient, bias)

    def columns(self, index: Tensor) -> Matrix:
        """The map from some of the inputs."""
        return Matrix(self.weight[..., index], self.coefficient[index], self.bias)


def slots(irreps: Any) -> Iterator[tuple[str, slice]]:
    """For each slot its irrep, and where its copies lie among all copies of that irrep."""
    starts: dict[str, int] = {}
    for mul, ir in irreps:
        start = starts.get(str(ir), 0)
        yield str(ir), slice(start, start + mul)
        starts[str(ir)] = start + mul


def copies_of(irreps: Any) -> dict[str, int]:
    """How many copies of each irrep there are in all slots."""
    counts: dict[str, int] = {}
    for mul, ir in irreps:
        counts[str(ir)] = counts.get(str(ir), 0) + mul
    return counts


def linear_matrices(linear: Any) -> dict[str, Matrix]:
    """The matrix of each irrep of an ``o3.Linear``."""
    inputs, outputs = list(slots(linear.irreps_in)), list(slots(linear.irreps_out))
    wide, made = copies_of(linear.irreps_in), copies_of(linear.irreps_out)
    found: dict[str, Matrix] = {}
    for ir, n in made.items():
        weight = linear.weight.new_zeros(n, wide.get(ir, 0))
        bias = linear.bias.new_zeros(n) if linear.bias.numel() and ir == "0e" else None
        found[ir] = Matrix(weight, linear.weight.new_zeros(wide.get(ir, 0)), bias)
    at = at_bias = 0
    for instruction in linear.instructions:
        ir, rows = outputs[instruction.i_out]
        matrix = found[ir]
        if instruction.i_in == -1:  # a bias
            n = rows.stop - rows.start
            assert matrix.bias is not None
            matrix.bias[rows] += (
                linear.bias.detach()[at_bias : at_bias + n] * instruction.path_weight
            )
            at_bias += n
            continue
        _, columns = inputs[instruction.i_in]
        size = prod(instruction.path_shape)
        block = linear.weight.detach()[at : at + size].view(instruction.path_shape)
        at += size
        _put(matrix, rows, columns, block.T, instruction.path_weight)
    return found


def product_matrices(product: Any) -> dict[str, Matrix]:
    """The matrices ``[scalars, out, in]`` of a ``FullyConnectedTensorProduct`` with scalars.

    The second input has one slot of scalars (one-hot elements, or what a type is embedded in).
    """
    inputs, outputs = list(slots(product.irreps_in1)), list(slots(product.irreps_out))
    wide, made = copies_of(product.irreps_in1), copies_of(product.irreps_out)
    if len(product.irreps_in2) != 1 or product.irreps_in2[0].ir.l:
        raise UnknownLayout(
            "a self connection multiplies features with something else than scalars"
        )
    scalars = product.irreps_in2.dim
    found = {
        ir: Matrix(
            product.weight.new_zeros(scalars, n, wide.get(ir, 0)),
            product.weight.new_zeros(wide.get(ir, 0)),
        )
        for ir, n in made.items()
    }
    at = 0
    for instruction in product.instructions:
        if instruction.connection_mode != "uvw":
            raise UnknownLayout("a self connection is no fully connected tensor product")
        (ir, rows), (_, columns) = outputs[instruction.i_out], inputs[instruction.i_in1]
        size = prod(instruction.path_shape)
        block = product.weight.detach()[at : at + size].view(instruction.path_shape)
        at += size
        # e3nn's Wigner symbol of (l, 0, l) is the identity over sqrt(2l + 1)
        factor = instruction.path_weight / product.irreps_out[instruction.i_out].ir.dim ** 0.5
        _put(found[ir], rows, columns, block.permute(1, 2, 0), factor)
    return found


def _put(matrix: Matrix, rows: slice, columns: slice, block: Tensor, factor: float) -> None:
    """A block ``[..., out, in]`` at its place; a copy has one coefficient, whoever reads it."""
    old = matrix.coefficient[columns]
    common = torch.where(old == 0, torch.full_like(old, factor), old)
    matrix.coefficient[columns] = common
    matrix.weight[..., rows, columns] = block * (factor / common)


@torch.no_grad()
def fill(target: Any, matrix: Matrix) -> None:
    """Give a :class:`CopyLinear` or :class:`ElementLinear` the numbers of a matrix."""
    assert isinstance(target, CopyLinear | ElementLinear)
    if target.weight is None:
        if matrix.weight.shape[-1]:
            raise UnknownLayout("a linear map has inputs where none were expected")
    elif target.weight.shape != matrix.weight.shape:
        raise UnknownLayout(
            f"a linear map is {tuple(matrix.weight.shape)} where {tuple(target.weight.shape)} was "
            "expected"
        )
    else:
        target.weight.copy_(matrix.weight)
        target.coefficient.copy_(matrix.coefficient)
    bias = getattr(target, "bias", None)
    if matrix.bias is not None and bias is None and bool(matrix.bias.any()):
        raise UnknownLayout("a linear map has a bias where none was expected")
    if bias is not None and matrix.bias is not None:
        bias.copy_(matrix.bias)


def network_matrices(network: Any) -> list[Matrix]:
    """The layers of a ``FullyConnectedNet``: weight ``[in, out]`` over the root of the fan-in."""
    found = []
    for k in range(len(network.hs) - 1):
        layer = getattr(network, f"layer{k}")
        if layer.var_in != 1 or layer.var_out != 1:
            raise UnknownLayout("a radial network is normalised by variances other than 1")
        n = layer.weight.shape[0]
        found.append(
            Matrix(layer.weight.detach().T, torch.full((n,), n**-0.5, dtype=layer.weight.dtype))
        )
    return found


def radial_rows(product: Any, last: Matrix) -> dict[str, Matrix]:
    """The last layer of a radial network, by the irrep that its paths lead to."""
    blocks: dict[int, Tensor] = {}
    at = 0
    for instruction in product.instructions:
        ir = product.irreps_out[instruction.i_out].ir
        factor = instruction.path_weight / ir.dim**0.5  # the couplings have the root of 2l + 1
        blocks[instruction.i_out] = last.weight[at : at + instruction.path_shape[0]] * factor
        at += instruction.path_shape[0]
    found: dict[str, list[Tensor]] = {}
    for (ir, _), slot in zip(slots(product.irreps_out), sorted(blocks), strict=True):
        found.setdefault(ir, []).append(blocks[slot])
    return {ir: Matrix(torch.cat(rows), last.coefficient) for ir, rows in found.items()}


def paths_of(product: Any) -> tuple[tuple[str, int, str, bool], ...]:
    """The instructions of a uvu tensor product, by target, as a :class:`LayerShape` lists them."""
    found = []
    for instruction in sorted(product.instructions, key=lambda i: i.i_out):
        if instruction.connection_mode != "uvu" or product.irreps_in2[instruction.i_in2].mul != 1:
            raise UnknownLayout("a convolution is no uvu tensor product with spherical harmonics")
        source = str(product.irreps_in1[instruction.i_in1].ir)
        order = product.irreps_in2[instruction.i_in2].ir.l
        found.append((source, order, str(product.irreps_out[instruction.i_out].ir), True))
    return tuple(found)


def activation_of(module: Any) -> Activation:
    """A function that e3nn has normalised, by its name and constant."""
    function = getattr(module, "f", module)
    name = {torch.nn.functional.silu: "silu", torch.tanh: "tanh"}.get(function)
    if name is None:
        raise UnknownLayout(f"it has the activation {getattr(function, '__name__', function)}")
    return Activation(name, float(getattr(module, "cst", 1.0)))


@dataclass(frozen=True)
class GateWires:
    """Which copies of a gate's input are what: numbers among the copies of their irrep.

    Attributes:
        scalars: by irrep of l = 0, in the order of the output.
        gates: by irrep of l > 0, among the even scalars.
        gated: by irrep of l > 0.
    """

    scalars: dict[str, Tensor]
    gates: dict[str, Tensor]
    gated: dict[str, Tensor]


def gate_wires(gate: Any) -> GateWires:
    """Send numbered copies through an e3nn ``Gate``'s sorter and see where they come out."""
    within = torch.cat(
        [torch.arange(s.start, s.stop) for _, s in slots(gate.irreps_in)] or [torch.zeros(0).long()]
    )
    component = torch.cat(
        [
            torch.arange(n).repeat_interleave(ir.dim) + start
            for (n, ir), start in zip(gate.irreps_in, _starts(gate.irreps_in), strict=True)
        ]
    )
    order = gate.sc(torch.arange(gate.irreps_in.dim, dtype=torch.get_default_dtype()))
    scalars, gates, gated = (within[component[part.long()]] for part in order)
    found = GateWires({}, {}, {})
    for (mul, ir), start in zip(gate.irreps_scalars, _starts(gate.irreps_scalars), strict=True):
        found.scalars[str(ir)] = scalars[start : start + mul]
    at = 0
    for (mul, ir), start in zip(gate.irreps_gated, _starts(gate.irreps_gated), strict=True):
        found.gates[str(ir)] = gates[start : start + mul]
        found.gated[str(ir)] = gated[at : at + mul * ir.dim : ir.dim]
        at += mul * ir.dim
    if any(str(ir) != "0e" for _, ir in gate.irreps_gates):
        raise UnknownLayout("a gate has odd scalars as gates")
    if len(found.scalars) != len(gate.irreps_scalars) or len(found.gated) != len(gate.irreps_gated):
        raise UnknownLayout("a gate has an irrep in two slots")
    return found


def _starts(irreps: Any) -> list[int]:
    starts = [0]
    for mul, _ in irreps:
        starts.append(starts[-1] + mul)
    return starts[:-1]
