"""The sums over edges by Triton kernels, with gradients: what calls them and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from egnn_prune.models.basis import GaussianBasis
from egnn_prune.models.edge_sums import EdgeInputs, EdgeWeights, Geometry
from egnn_prune.models.edge_sums import edge_sums as plain_edge_sums
from egnn_prune.models.kernels.edge_backward import edge_backward
from egnn_prune.models.kernels.edge_forward import edge_forward
from egnn_prune.models.kernels.edge_tile import Gaussians, Sizes

#: Nodes of a program: the fewest rows that a tensor core takes.
NODES = 16
#: Edges of a tile, and hidden channels at a time: more need more registers than there are.
EDGES, STEP = 32, 16
#: Programs of the backward pass for each multiprocessor; each has a copy of the weights' gradients.
PROGRAMS = 2
FIELDS = len(EdgeInputs._fields)


class Setting(NamedTuple):
    """What is no tensor.

    Attributes:
        geometry: see :class:`Geometry`.
        precision: of the products, see :func:`torch_precision`.
        deterministic: the same gradients in every run, to the last digit.
    """

    geometry: Geometry
    precision: str
    deterministic: bool


def torch_precision(x: Tensor) -> str:
    """Of products, as torch's own settings ask: ``"float32"``, ``"tf32"`` or ``"bfloat16"``."""
    autocast = torch.is_autocast_enabled(x.device.type)
    if autocast and torch.get_autocast_dtype(x.device.type) == torch.bfloat16:
        return "bfloat16"
    if x.dtype == torch.bfloat16:
        return "bfloat16"
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "float32"


def edge_sums_cuda(
    inputs: EdgeInputs,
    weights: EdgeWeights,
    geometry: Geometry,
    source: Tensor,
    target: Tensor,
    precision: str | None = None,
    deterministic: bool | None = None,
) -> tuple[Tensor, Tensor | None]:
    """:func:`egnn_prune.models.edge_sums.edge_sums` by kernels that store nothing edge-sized.

    Second derivatives are those of the plain version.

    Args:
        inputs: of nodes and edges.
        weights: of the edge network.
        geometry: how distances and directions enter.
        source: ``[E]``.
        target: ``[E]``, sorted.
        precision: of the products, by default what torch is set to: ``"float32"`` (three TF32
            products each, as exact), ``"tf32"``, ``"bfloat16"``. Sums are float32.
        deterministic: equal gradients in every run, by default what torch is set to; sums of the
            forward pass always are.

    Returns:
        ``[N, message]``, and ``[N, n]`` where nodes move.
    """
    if deterministic is None:
        deterministic = torch.are_deterministic_algorithms_enabled()
    setting = Setting(geometry, precision or torch_precision(inputs.to_target), deterministic)
    received, moved = EdgeSums.apply(setting, source, target, *inputs, *weights)
    return received, moved


class EdgeSums(torch.autograd.Function):
    """Kernels forward and backward; the plain version where gradients need gradients."""

    @staticmethod
    def forward(
        ctx: Any, setting: Setting, source: Tensor, target: Tensor, *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Run the forward kernel."""
        inputs, weights = split(dense(tensors))
        nodes = torch.arange(inputs.to_target.shape[0] + 1, device=target.device)
        begin_of = torch.searchsorted(target, nodes)
        sizes = sizes_of(inputs, weights)
        x = inputs.to_target
        received = x.new_empty(sizes.nodes, sizes.message)
        moved = x.new_empty(sizes.nodes, sizes.dims) if sizes.position else None
        if sizes.nodes:
            with torch.cuda.device_of(x):
                edge_forward[(triton.cdiv(sizes.nodes, NODES),)](
                    received,
                    moved,
                    inputs,
                    weights,
                    gaussians_of(setting.geometry),
                    setting.geometry.eps,
                    source,
                    target,
                    begin_of,
                    sizes,
                    **tile_of(sizes, setting, x.device),
                )
        ctx.set_materialize_grads(False)
        ctx.setting = setting
        ctx.autocast = (
            torch.is_autocast_enabled(x.device.type),
            torch.get_autocast_dtype(x.device.type),
        )
        # as they came: copies would have no history for second derivatives to follow
        ctx.save_for_backward(source, target, begin_of, *tensors)
        return received, moved

    @staticmethod
    def backward(
        ctx: Any, grad_received: Tensor | None, grad_moved: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Run the backward kernel, or differentiate the plain version."""
        wanted = ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():
            found = differentiable(ctx, wanted, grad_received, grad_moved)
        else:
            found = by_kernel(ctx.setting, wanted, ctx.saved_tensors, grad_received, grad_moved)
        return (None, None, None, *found)


def differentiable(
    ctx: Any,
    wanted: Sequence[bool],
    grad_received: Tensor | None,
    grad_moved: Tensor | None,
) -> list[Tensor | None]:
    """Gradients of the plain version that can be differentiated themselves."""
    source, target, _, *tensors = ctx.saved_tensors
    # aliases: one input may depend on another, as the envelope on positions, which is not our part
    fresh = [None if t is None else t.view_as(t) for t in tensors]
    inputs, weights = split(fresh)
    enabled, dtype = ctx.autocast
    with torch.autocast(source.device.type, dtype=dtype, enabled=enabled):
        sums = plain_edge_sums(inputs, weights, ctx.setting.geometry, source, target)
    pairs = [
        (y, grad)
        for y, grad in zip(sums, (grad_received, grad_moved), strict=True)
        if y is not None and grad is not None
    ]
    asked = [t for t, yes in zip(fresh, wanted, strict=True) if yes and t is not None]
    if not pairs or not asked:
        return [None] * len(fresh)
    outputs, grads = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(outputs, asked, grads, create_graph=True, allow_unused=True))
    return [
        next(found) if yes and t is not None else None for t, yes in zip(fresh, wanted, strict=True)
    ]


def by_kernel(
    setting: Setting,
    wanted: Sequence[bool],
    saved: Sequence[Tensor],
    grad_received: Tensor | None,
    grad_moved: Tensor | None,
) -> list[Tensor | None]:
    """Gradients of all tensors that are wanted."""
    source, target, begin_of, *tensors = saved
    inputs, weights = split(dense(tensors))
    sizes = sizes_of(inputs, weights)
    if grad_received is None:
        grad_received = inputs.to_target.new_zeros(sizes.nodes, sizes.message)
    grad_received = grad_received.contiguous()
    grad_moved = None if grad_moved is None else grad_moved.contiguous()
    programs = programs_of(sizes, target.device)

    def zeros(t: Tensor | None, *copies: int) -> Tensor | None:
        return None if t is None else t.new_zeros(*copies, *t.shape, dtype=torch.float32)

    # what the kernel passes through on its way is always there; the rest on demand
    some = any(wanted[FIELDS:])
    grads, weight_grads = split(
        [
            zeros(t) if yes or name.startswith("to_") else None
            for name, t, yes in zip(EdgeInputs._fields, inputs, wanted[:FIELDS], strict=True)
        ]
        + [zeros(t, programs) if some else None for t in weights]
    )

    def launch(
        grads: EdgeInputs,
        weight_grads: EdgeWeights,
        order: Tensor | None,
        begin_of: Tensor,
        scatter: bool,
    ) -> None:
        with torch.cuda.device_of(target):
            edge_backward[(programs,)](
                grad_received,
                grad_moved,
                grads,
                weight_grads,
                inputs,
                weights,
                gaussians_of(setting.geometry),
                setting.geometry.eps,
                source,
                target,
                order,
                begin_of,
                sizes,
                BY_SOURCE=order is not None,
                SCATTER=scatter,
                **tile_of(sizes, setting, target.device),
            )

    if sizes.nodes:
        launch(grads, weight_grads, None, begin_of, not setting.deterministic)
    if sizes.nodes and setting.deterministic:
        senders, order = source.sort(stable=True)
        nodes = torch.arange(sizes.nodes + 1, device=source.device)
        rows = grads._replace(shift=None, attr=None, envelope=None)
        _, no_weights = split([None] * len(tensors))
        launch(rows, no_weights, order, torch.searchsorted(senders, nodes), False)
    found = [*grads, *(None if g is None else g.sum(0) for g in weight_grads)]
    return [
        g.to(t.dtype) if yes and g is not None and t is not None else None
        for g, t, yes in zip(found, tensors, wanted, strict=True)
    ]


def dense(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Row after row in memory, as the kernels read."""
    return [None if t is None else t.contiguous() for t in tensors]


def split(tensors: Any) -> tuple[EdgeInputs, EdgeWeights]:
    """Inputs and weights of one list of both."""
    return EdgeInputs(*tensors[:FIELDS]), EdgeWeights(*tensors[FIELDS:])


def sizes_of(inputs: EdgeInputs, weights: EdgeWeights) -> Sizes:
    """Numbers of rows and columns."""
    own = 0 if inputs.attr is None else inputs.attr.shape[1]
    features = weights.radial.shape[1]
    return Sizes(
        nodes=inputs.to_target.shape[0],
        dims=inputs.pos.shape[1],
        edge=inputs.to_target.shape[1],
        message=weights.out.shape[0],
        position=0 if weights.position_in is None else weights.position_in.shape[0],
        radial=features - own,
        features=features,
    )


def gaussians_of(geometry: Geometry) -> Gaussians | None:
    """The kernel's numbers of a :class:`GaussianBasis`, ``None`` for the squared distance."""
    basis = geometry.radial
    if not isinstance(basis, GaussianBasis):
        return None
    unit = 2**0.5 * basis.stop / basis.size
    return Gaussians(basis.eps, unit, basis.stop / unit / max(basis.size - 1, 1))


def programs_of(sizes: Sizes, device: torch.device) -> int:
    """Programs of the backward pass."""
    tiles: int = triton.cdiv(sizes.nodes, NODES)
    if device.type != "cuda":  # the interpreter
        return max(1, min(tiles, PROGRAMS))
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, min(tiles, PROGRAMS * processors))


def columns(width: int) -> int:
    """Of the tile that holds so many."""
    return max(16, int(triton.next_power_of_2(width)))


def tile_of(sizes: Sizes, setting: Setting, device: torch.device) -> dict[str, Any]:
    """The shapes of tiles, and how many threads share one: chosen by the registers they need."""
    interpreted = device.type != "cuda"
    precision = {"float32": "tf32x3", "bfloat16": "rounded" if interpreted else "bfloat16"}
    return {
        "NODES": NODES,
        "EDGES": EDGES,
        "MESSAGE": columns(sizes.message),
        "DIMS": columns(sizes.dims),
        "FEATURES": columns(sizes.features),
        "STEP": STEP,
        "PRECISION": precision.get(setting.precision, setting.precision),
        "num_warps": 8,
        "num_stages": 1,
    }
