"""Triton kernel: the gradients of the sums over edges, from what the forward pass was given.

Activations are computed again, tile by tile: nothing edge-sized is stored between the passes. Each
``d_x`` below is the derivative of the loss with respect to x, in the order of the chain rule.
"""

from __future__ import annotations

import triton
import triton.language as tl

from egnn_prune.models.edge_sums import EdgeInputs, EdgeWeights
from egnn_prune.models.kernels.edge_tile import (
    EXACT,
    Gaussians,
    Sizes,
    differences,
    first_layer,
    gate_of,
    product,
    radial_and_attributes,
    rows_of,
    second_layer,
)


@triton.jit
def add_rows(
    x: tl.tensor,
    row: tl.tensor,
    column: tl.tensor,
    width: tl.tensor,
    live: tl.tensor,
    value: tl.tensor,
) -> None:
    """``x[row, column] += value``."""
    inside = live[:, None] & (column < width)[None, :]
    tl.atomic_add(x + row[:, None] * width + column[None, :], value, mask=inside, sem="relaxed")


@triton.jit
def add_vector(x: tl.tensor, column: tl.tensor, width: tl.tensor, value: tl.tensor) -> None:
    """``x[column] += value``."""
    tl.atomic_add(x + column, value, mask=column < width, sem="relaxed")


@triton.jit
def slope(x: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """silu(x) and its derivative."""
    s = tl.sigmoid(x)
    return x * s, s + x * s * (1.0 - s)


@triton.jit
def d_squared_distance(
    gaussians: Gaussians,
    r2: tl.tensor,
    d_features: tl.tensor,
    sizes: Sizes,
    FEATURES: tl.constexpr,
) -> tl.tensor:
    """From the derivatives of the radial functions to that of r^2, ``[EDGES]``."""
    column = tl.arange(0, FEATURES)
    d_radial = tl.where((column < sizes.radial)[None, :], d_features, 0.0)
    if gaussians is None:
        return tl.sum(d_radial, axis=1)
    else:
        r = tl.sqrt(r2 + gaussians.eps * gaussians.eps)
        scaled = r[:, None] / gaussians.unit - (column * gaussians.spacing)[None, :]
        radial = tl.where(scaled * scaled < 40.0, tl.exp(-scaled * scaled), 0.0)
        return tl.sum(-2.0 * scaled * radial * d_radial, axis=1) / (2.0 * gaussians.unit * r)


@triton.jit
def edge_backward(
    grad_received: tl.tensor,
    grad_moved: tl.tensor,
    grads: EdgeInputs,
    weight_grads: EdgeWeights,
    inputs: EdgeInputs,
    weights: EdgeWeights,
    gaussians: Gaussians,
    eps: tl.tensor,
    source: tl.tensor,
    target: tl.tensor,
    order: tl.tensor,
    begin_of: tl.tensor,
    sizes: Sizes,
    BY_SOURCE: tl.constexpr,
    SCATTER: tl.constexpr,
    NODES: tl.constexpr,
    EDGES: tl.constexpr,
    MESSAGE: tl.constexpr,
    DIMS: tl.constexpr,
    FEATURES: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Each program takes every so many-th tile of nodes with its edges, ``EDGES`` at a time.

    By target, a program owns the rows of its nodes as receivers, and adds to the rows of senders,
    which others may share (``SCATTER``): the order of these additions, and with it the last digit,
    differs from run to run. Where that must not be, a second launch takes edges by source and owns
    the senders' rows. Sums over all edges, the gradients of weights, have one copy a program.

    Args:
        grad_received: ``[N, message]``.
        grad_moved: ``[N, n]`` or ``None``.
        grads: out; zeros to add to where several edges meet; ``None`` where nobody asks.
        weight_grads: out, zeros with a leading dimension of programs; or all ``None``.
        inputs: as for the forward pass; so are ``weights``, ``gaussians`` and ``eps``.
        weights: of the edge network.
        gaussians: the radial functions.
        eps: smoothing length of directions.
        source: ``[E]``.
        target: ``[E]``, sorted.
        order: ``[E]``, the edges by source; ``None`` by target.
        begin_of: ``[N + 1]``, the first edge of every node in that order.
        sizes: of the tensors.
        BY_SOURCE: whether ``order`` says so.
        SCATTER: whether to add to the senders' rows.
        NODES: as all that follow, see the forward kernel.
        EDGES: edges of a tile.
        MESSAGE: columns of messages.
        DIMS: columns of differences.
        FEATURES: columns of radial functions.
        STEP: hidden channels at a time.
        PRECISION: of the products.
    """
    program = tl.program_id(0)
    out, axis, feature = tl.arange(0, MESSAGE), tl.arange(0, DIMS), tl.arange(0, FEATURES)

    for tile in range(program, tl.cdiv(sizes.nodes, NODES), tl.num_programs(0)):
        node = tile * NODES + tl.arange(0, NODES)
        exists = node < sizes.nodes
        begin = tl.load(begin_of + tile * NODES)
        end = tl.load(begin_of + tl.minimum((tile + 1) * NODES, sizes.nodes))
        for start in range(begin, end, EDGES):
            edge = start + tl.arange(0, EDGES)
            live = edge < end
            if BY_SOURCE:
                edge = tl.load(order + edge, mask=live, other=0)
            i = tl.load(target + edge, mask=live, other=0)
            j = tl.load(source + edge, mask=live, other=0)
            owner = j if BY_SOURCE else i
            into = ((node[:, None] == owner[None, :]) & live[None, :]).to(tl.float32)

            # what the forward pass knew
            difference = differences(inputs, edge, i, j, live, sizes, DIMS)
            r2 = tl.sum(difference * difference, axis=1)
            features = radial_and_attributes(inputs, gaussians, r2, edge, live, sizes, FEATURES)
            activation, d_silu = slope(
                second_layer(
                    inputs, weights, features, i, j, live, sizes, EDGES, MESSAGE, FEATURES, STEP,
                    PRECISION,
                )
            )  # fmt: skip
            if weights.gate is not None:
                v, gate = gate_of(weights, activation, sizes, MESSAGE)
                gated = activation * gate[:, None]
            else:
                gated = activation
            if inputs.envelope is not None:
                envelope = tl.load(inputs.envelope + edge, mask=live, other=0.0).to(tl.float32)
            else:
                envelope = tl.full((EDGES,), 1.0, tl.float32)

            # from the sums to messages and directions
            d_message = rows_of(grad_received, i, out, sizes.message, live)
            d_envelope = tl.zeros((EDGES,), tl.float32)
            d_difference = tl.zeros((EDGES, DIMS), tl.float32)
            if grad_moved is not None:
                message = gated * envelope[:, None]
                direction = difference
                if eps is not None:
                    length = tl.sqrt(r2 + eps * eps)
                    direction = difference / length[:, None]
                d_moved = rows_of(grad_moved, i, axis, sizes.dims, live)
                along = tl.sum(d_moved * direction, axis=1)
                d_step = along * envelope
                step = tl.zeros((EDGES,), tl.float32)
                for begin_channel in range(0, sizes.position, STEP):
                    channel = begin_channel + tl.arange(0, STEP)
                    inside = channel < sizes.position
                    w3 = rows_of(weights.position_in, channel, out, sizes.message, inside)
                    bias = tl.load(weights.position_bias + channel, mask=inside, other=0.0)
                    third = tl.zeros((EDGES, STEP), tl.float32) + bias.to(tl.float32)[None, :]
                    hidden, d_third = slope(product(message, tl.trans(w3), third, PRECISION))
                    w = tl.load(weights.position_out + channel, mask=inside, other=0.0)
                    w = w.to(tl.float32)
                    step += tl.sum(hidden * w[None, :], axis=1)
                    d_third *= d_step[:, None] * w[None, :]
                    d_message = product(d_third, w3, d_message, PRECISION)
                    if weight_grads.out is not None:
                        here = program * sizes.position
                        none = tl.zeros((STEP, MESSAGE), tl.float32)
                        d_w3 = product(tl.trans(d_third), message, none, PRECISION)
                        rows = here + channel
                        add_rows(weight_grads.position_in, rows, out, sizes.message, inside, d_w3)
                        d_bias = tl.sum(d_third, axis=0)
                        add_vector(
                            weight_grads.position_bias + here, channel, sizes.position, d_bias
                        )
                        d_w = tl.sum(hidden * d_step[:, None], axis=0)
                        add_vector(weight_grads.position_out + here, channel, sizes.position, d_w)
                d_envelope += along * step
                d_difference += d_moved * (envelope * step)[:, None]
                if eps is not None:
                    radially = tl.sum(d_difference * direction, axis=1)
                    d_difference = (d_difference - direction * radially[:, None]) / length[:, None]

            # through envelope and attention to the second layer
            d_envelope += tl.sum(d_message * gated, axis=1)
            d_message *= envelope[:, None]
            if weights.gate is not None:
                d_logit = tl.sum(d_message * activation, axis=1) * gate * (1.0 - gate)
                if weight_grads.out is not None:
                    d_v = tl.sum(activation * d_logit[:, None], axis=0)
                    add_vector(weight_grads.gate + program * sizes.message, out, sizes.message, d_v)
                    tl.atomic_add(
                        weight_grads.gate_bias + program, tl.sum(d_logit, axis=0), sem="relaxed"
                    )
                d_message = d_message * gate[:, None] + d_logit[:, None] * v[None, :]
            d_second = d_message * d_silu

            # to the first layer, in steps of its channels
            d_features = tl.zeros((EDGES, FEATURES), tl.float32)
            for begin_channel in range(0, sizes.edge, STEP):
                channel = begin_channel + tl.arange(0, STEP)
                inside = channel < sizes.edge
                hidden, d_first = slope(
                    first_layer(inputs, weights, features, i, j, live, channel, sizes, FEATURES)
                )
                w2 = rows_of(weights.out, out, channel, sizes.edge, out < sizes.message)
                none = tl.zeros((EDGES, STEP), tl.float32)
                d_first *= product(d_second, w2, none, PRECISION)
                none = tl.zeros((NODES, STEP), tl.float32)
                d_nodes = tl.dot(into, d_first, none, input_precision=EXACT)
                owned = grads.to_source if BY_SOURCE else grads.to_target
                add_rows(owned, node, channel, sizes.edge, exists, d_nodes)
                if SCATTER:
                    add_rows(grads.to_source, j, channel, sizes.edge, live, d_first)
                w1 = rows_of(weights.radial, channel, feature, sizes.features, inside)
                d_features = tl.dot(d_first, w1, d_features, input_precision=EXACT)
                if weight_grads.out is not None:
                    none = tl.zeros((MESSAGE, STEP), tl.float32)
                    d_w2 = product(tl.trans(d_second), hidden, none, PRECISION)
                    rows = program * sizes.message + out
                    add_rows(weight_grads.out, rows, channel, sizes.edge, out < sizes.message, d_w2)
                    none = tl.zeros((STEP, FEATURES), tl.float32)
                    d_w1 = tl.dot(tl.trans(d_first), features, none, input_precision=EXACT)
                    rows = program * sizes.edge + channel
                    add_rows(weight_grads.radial, rows, feature, sizes.features, inside, d_w1)
            if weight_grads.out is not None:
                d_beta = tl.sum(d_second, axis=0)
                add_vector(
                    weight_grads.out_bias + program * sizes.message, out, sizes.message, d_beta
                )

            # to positions and to what belongs to the edge
            d_r2 = d_squared_distance(gaussians, r2, d_features, sizes, FEATURES)
            d_difference += 2.0 * difference * d_r2[:, None]
            if grads.pos is not None:
                none = tl.zeros((NODES, DIMS), tl.float32)
                d_nodes = tl.dot(into, d_difference, none, input_precision=EXACT)
                d_nodes = -d_nodes if BY_SOURCE else d_nodes
                add_rows(grads.pos, node, axis, sizes.dims, exists, d_nodes)
                if SCATTER:
                    add_rows(grads.pos, j, axis, sizes.dims, live, -d_difference)
            if grads.shift is not None:
                place = edge[:, None] * sizes.dims + axis[None, :]
                mask = live[:, None] & (axis < sizes.dims)[None, :]
                tl.store(grads.shift + place, -d_difference, mask=mask)
            if grads.attr is not None:
                own = (feature >= sizes.radial) & (feature < sizes.features)
                place = edge[:, None] * (sizes.features - sizes.radial)
                place += (feature - sizes.radial)[None, :]
                tl.store(grads.attr + place, d_features, mask=live[:, None] & own[None, :])
            if grads.envelope is not None:
                tl.store(grads.envelope + edge, d_envelope, mask=live)
