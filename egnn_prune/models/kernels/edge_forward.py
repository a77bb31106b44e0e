"""Triton kernel: messages of all edges and their sums in nodes; nothing edge-sized is stored."""

from __future__ import annotations

import triton
import triton.language as tl

from egnn_prune.models.edge_sums import EdgeInputs, EdgeWeights
from egnn_prune.models.kernels.edge_tile import (
    EXACT,
    Gaussians,
    Sizes,
    differences,
    gate_of,
    product,
    radial_and_attributes,
    rows_of,
    second_layer,
    silu,
)


@triton.jit
def edge_forward(
    received: tl.tensor,
    moved: tl.tensor,
    inputs: EdgeInputs,
    weights: EdgeWeights,
    gaussians: Gaussians,
    eps: tl.tensor,
    source: tl.tensor,
    target: tl.tensor,
    begin_of: tl.tensor,
    sizes: Sizes,
    NODES: tl.constexpr,
    EDGES: tl.constexpr,
    MESSAGE: tl.constexpr,
    DIMS: tl.constexpr,
    FEATURES: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """One program sums the incoming edges of ``NODES`` nodes, ``EDGES`` at a time.

    No two programs write to the same node, so that the sums are the same in every run.

    Args:
        received: out, ``[N, message]``.
        moved: out, ``[N, n]``, or ``None`` where nodes do not move.
        inputs: see :class:`EdgeInputs`.
        weights: see :class:`EdgeWeights`.
        gaussians: the radial functions, ``None`` for the squared distance.
        eps: smoothing length of directions, ``None`` for differences as they are.
        source: ``[E]``.
        target: ``[E]``, sorted.
        begin_of: ``[N + 1]``, the first incoming edge of every node.
        sizes: of the tensors.
        NODES: nodes of a program; as all in capitals, a power of two.
        EDGES: edges of a tile.
        MESSAGE: columns of a tile of messages.
        DIMS: columns of a tile of differences.
        FEATURES: columns of a tile of radial functions.
        STEP: hidden channels at a time.
        PRECISION: of the products, ``"tf32x3"`` (float32), ``"tf32"`` or ``"bfloat16"``.
    """
    first = tl.program_id(0) * NODES
    node = first + tl.arange(0, NODES)
    out, axis = tl.arange(0, MESSAGE), tl.arange(0, DIMS)
    begin = tl.load(begin_of + first)
    end = tl.load(begin_of + tl.minimum(first + NODES, sizes.nodes))
    messages = tl.zeros((NODES, MESSAGE), tl.float32)
    moves = tl.zeros((NODES, DIMS), tl.float32)

    for start in range(begin, end, EDGES):
        edge = start + tl.arange(0, EDGES)
        live = edge < end
        i = tl.load(target + edge, mask=live, other=0)
        j = tl.load(source + edge, mask=live, other=0)
        into = ((node[:, None] == i[None, :]) & live[None, :]).to(tl.float32)

        difference = differences(inputs, edge, i, j, live, sizes, DIMS)
        r2 = tl.sum(difference * difference, axis=1)
        features = radial_and_attributes(inputs, gaussians, r2, edge, live, sizes, FEATURES)
        message = silu(
            second_layer(
                inputs, weights, features, i, j, live, sizes, EDGES, MESSAGE, FEATURES, STEP,
                PRECISION,
            )
        )  # fmt: skip
        if weights.gate is not None:
            _, gate = gate_of(weights, message, sizes, MESSAGE)
            message *= gate[:, None]
        if inputs.envelope is not None:
            envelope = tl.load(inputs.envelope + edge, mask=live, other=0.0).to(tl.float32)
            message *= envelope[:, None]
        messages = tl.dot(into, message, messages, input_precision=EXACT)

        if moved is not None:
            step = tl.zeros((EDGES,), tl.float32)
            for begin_channel in range(0, sizes.position, STEP):
                channel = begin_channel + tl.arange(0, STEP)
                exists = channel < sizes.position
                w3 = rows_of(weights.position_in, channel, out, sizes.message, exists)
                bias = tl.load(weights.position_bias + channel, mask=exists, other=0.0)
                third = tl.zeros((EDGES, STEP), tl.float32) + bias.to(tl.float32)[None, :]
                hidden = silu(product(message, tl.trans(w3), third, PRECISION))
                w = tl.load(weights.position_out + channel, mask=exists, other=0.0)
                step += tl.sum(hidden * w.to(tl.float32)[None, :], axis=1)
            if inputs.envelope is not None:
                step *= envelope
            if eps is not None:
                difference /= tl.sqrt(r2 + eps * eps)[:, None]
            moves = tl.dot(into, difference * step[:, None], moves, input_precision=EXACT)

    exists = node < sizes.nodes
    place = node[:, None] * sizes.message + out[None, :]
    tl.store(received + place, messages, mask=exists[:, None] & (out < sizes.message)[None, :])
    if moved is not None:
        place = node[:, None] * sizes.dims + axis[None, :]
        tl.store(moved + place, moves, mask=exists[:, None] & (axis < sizes.dims)[None, :])
