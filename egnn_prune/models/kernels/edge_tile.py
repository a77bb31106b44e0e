"""What the forward and the backward kernel share: one tile of edges, up to the second layer.

The names are those of :func:`egnn_prune.models.edge_sums.edge_sums`, which the kernels compute.
A tile has a number of rows and columns that Triton can handle, powers of two; masks cut off what
does not exist, as pruned networks have any width.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from egnn_prune.models.edge_sums import EdgeInputs, EdgeWeights

#: How sums over nodes and radial functions are rounded whatever the products' precision: three
#: TF32 products, as exact as float32. A distance in bfloat16 would have three digits.
EXACT = tl.constexpr("tf32x3")


class Sizes(NamedTuple):
    """Numbers of rows and columns of the tensors."""

    nodes: int
    dims: int
    edge: int
    message: int
    position: int
    radial: int
    features: int


class Gaussians(NamedTuple):
    """The numbers of a :class:`GaussianBasis`, distances in units of sqrt(2) Delta."""

    eps: float
    unit: float
    spacing: float


@triton.jit
def silu(x: tl.tensor) -> tl.tensor:
    """The activation, x sigmoid(x)."""
    return x * tl.sigmoid(x)


@triton.jit
def product(a: tl.tensor, b: tl.tensor, total: tl.tensor, PRECISION: tl.constexpr) -> tl.tensor:
    """``total + a @ b``, added up in float32."""
    if PRECISION == "bfloat16":
        return tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), total)
    elif PRECISION == "rounded":  # the same for the interpreter, which multiplies bits
        a, b = a.to(tl.bfloat16).to(tl.float32), b.to(tl.bfloat16).to(tl.float32)
        return tl.dot(a, b, total, input_precision=EXACT)
    else:
        return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
def rows_of(
    x: tl.tensor, row: tl.tensor, column: tl.tensor, width: tl.tensor, live: tl.tensor
) -> tl.tensor:
    """``x[row, column]`` in float32, zero outside."""
    inside = live[:, None] & (column < width)[None, :]
    return tl.load(x + row[:, None] * width + column[None, :], mask=inside, other=0.0).to(
        tl.float32
    )


@triton.jit
def differences(
    inputs: EdgeInputs,
    edge: tl.tensor,
    i: tl.tensor,
    j: tl.tensor,
    live: tl.tensor,
    sizes: Sizes,
    DIMS: tl.constexpr,
) -> tl.tensor:
    """x_i - x_j - shift ``[EDGES, DIMS]``, subtracted in the precision of the positions."""
    axis = tl.arange(0, DIMS)
    inside = live[:, None] & (axis < sizes.dims)[None, :]
    here = tl.load(inputs.pos + i[:, None] * sizes.dims + axis[None, :], mask=inside, other=0.0)
    there = tl.load(inputs.pos + j[:, None] * sizes.dims + axis[None, :], mask=inside, other=0.0)
    difference = here - there
    if inputs.shift is not None:
        difference -= tl.load(
            inputs.shift + edge[:, None] * sizes.dims + axis[None, :], mask=inside, other=0.0
        )
    return difference.to(tl.float32)


@triton.jit
def radial_and_attributes(
    inputs: EdgeInputs,
    gaussians: Gaussians,
    r2: tl.tensor,
    edge: tl.tensor,
    live: tl.tensor,
    sizes: Sizes,
    FEATURES: tl.constexpr,
) -> tl.tensor:
    """[r(d), e] ``[EDGES, FEATURES]``: radial functions, then the edge's own features."""
    column = tl.arange(0, FEATURES)
    if gaussians is None:
        features = tl.where((column == 0)[None, :], r2[:, None], 0.0)
    else:
        r = tl.sqrt(r2 + gaussians.eps * gaussians.eps) / gaussians.unit
        scaled = r[:, None] - (column * gaussians.spacing)[None, :]
        radial = tl.exp(tl.maximum(-scaled * scaled, -40.0))
        features = tl.where((column < sizes.radial)[None, :], radial, 0.0)
    if inputs.attr is not None:
        inside = live[:, None] & ((column >= sizes.radial) & (column < sizes.features))[None, :]
        place = edge[:, None] * (sizes.features - sizes.radial) + (column - sizes.radial)[None, :]
        features += tl.load(inputs.attr + place, mask=inside, other=0.0).to(tl.float32)
    return features


@triton.jit
def first_layer(
    inputs: EdgeInputs,
    weights: EdgeWeights,
    features: tl.tensor,
    i: tl.tensor,
    j: tl.tensor,
    live: tl.tensor,
    channel: tl.tensor,
    sizes: Sizes,
    FEATURES: tl.constexpr,
) -> tl.tensor:
    """a_i + b_j + W_1 [r, e] for some of the channels, ``[EDGES, STEP]``."""
    first = rows_of(inputs.to_target, i, channel, sizes.edge, live)
    first += rows_of(inputs.to_source, j, channel, sizes.edge, live)
    feature = tl.arange(0, FEATURES)
    # [STEP, FEATURES], read the other way round
    w1 = rows_of(weights.radial, channel, feature, sizes.features, channel < sizes.edge)
    return tl.dot(features, tl.trans(w1), first, input_precision=EXACT)


@triton.jit
def second_layer(
    inputs: EdgeInputs,
    weights: EdgeWeights,
    features: tl.tensor,
    i: tl.tensor,
    j: tl.tensor,
    live: tl.tensor,
    sizes: Sizes,
    EDGES: tl.constexpr,
    MESSAGE: tl.constexpr,
    FEATURES: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """W_2 silu(first layer) + beta ``[EDGES, MESSAGE]``, the hidden channels in steps."""
    out = tl.arange(0, MESSAGE)
    bias = tl.load(weights.out_bias + out, mask=out < sizes.message, other=0.0).to(tl.float32)
    second = tl.zeros((EDGES, MESSAGE), tl.float32) + bias[None, :]
    for start in range(0, sizes.edge, STEP):
        channel = start + tl.arange(0, STEP)
        hidden = silu(first_layer(inputs, weights, features, i, j, live, channel, sizes, FEATURES))
        w2 = rows_of(weights.out, out, channel, sizes.edge, out < sizes.message)
        second = product(hidden, tl.trans(w2), second, PRECISION)
    return second


@triton.jit
def gate_of(
    weights: EdgeWeights, activation: tl.tensor, sizes: Sizes, MESSAGE: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """The attention's weights v ``[MESSAGE]`` and sigmoid(v . u + delta) ``[EDGES]``."""
    out = tl.arange(0, MESSAGE)
    v = tl.load(weights.gate + out, mask=out < sizes.message, other=0.0).to(tl.float32)
    delta = tl.load(weights.gate_bias).to(tl.float32)
    return v, tl.sigmoid(tl.sum(activation * v[None, :], axis=1) + delta)
