"""The sums over neighbours in blocks of edges that stay in a CPU's cache, forth and back.

Of all edges at once, every step of :func:`edge_sums` would write a tensor of edges x channels to
memory and read it again, most of it in pages that the system has to hand out first. The tensors of
a block stay in the cache, and the next block uses them again. For the way back either the
activations and their derivatives are kept, so that no exponential is taken twice, or every block is
computed anew, and nothing of edges x channels is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from egnn_prune.graphs import is_transformed
from egnn_prune.models.edge_sums import (
    EdgeFeatures,
    EdgeInputs,
    EdgeWeights,
    Geometry,
    features_of,
    message_sums,
)

#: Numbers in the widest tensor of a block, for every thread: half a megabyte in float32.
BLOCK = 1 << 17
#: Fewest edges of a block, where the network is very wide.
MIN_EDGES = 256


def block_edges(weights: EdgeWeights) -> int:
    """How many edges a block has."""
    layers = (weights.radial, weights.out, weights.position_in)
    widest = max(w.shape[0] for w in layers if w is not None)
    return max(MIN_EDGES, BLOCK * torch.get_num_threads() // widest)


def pays(inputs: EdgeInputs, weights: EdgeWeights, source: Tensor) -> bool:
    """Whether blocks are faster: on a CPU, with edges for at least two of them."""
    first = inputs.to_target
    return (
        first.device.type == "cpu"
        and first.dtype in (torch.float32, torch.float64)
        and source.shape[0] >= 2 * block_edges(weights)
        and not is_transformed()
    )


class _Block(NamedTuple):
    """The edges of a block."""

    rows: slice
    source: Tensor
    target: Tensor
    features: Tensor
    direction: Tensor
    envelope: Tensor | None


#: For each activation by name itself and its derivative, ``[E, width]`` each.
Kept = dict[str, tuple[Tensor, Tensor]]


class _Pass:
    """What the blocks of a pass share: inputs, weights, and memory that is used again and again.

    Args:
        edges: the inputs.
        weights: of the edge network.
        source: see :func:`edge_sums`.
        target: see there.
        kept: where activations are kept: empty on the way forth, full on the way back.
        slopes: whether derivatives are needed.
    """

    def __init__(
        self,
        edges: EdgeFeatures,
        weights: EdgeWeights,
        source: Tensor,
        target: Tensor,
        kept: Kept | None = None,
        slopes: bool = False,
    ) -> None:
        # a slice of the first layer's weight: strided, which broadcasts slowly
        self.weights = weights._replace(radial=weights.radial.contiguous())
        self.edges, self.source, self.target = edges, source, target
        self.size = max(1, min(block_edges(weights), source.shape[0]))
        self.kept, self.known, self.slopes = kept, bool(kept), slopes
        self._memory: dict[str, Tensor] = {}

    def blocks(self) -> Iterator[_Block]:
        """The edges, block by block."""
        edges, starts = self.edges, range(0, self.source.shape[0], self.size)
        rows = [slice(start, start + self.size) for start in starts]
        tensors = (self.source, self.target, edges.features, edges.direction, edges.envelope)
        parts = [[None] * len(rows) if t is None else t.split(self.size) for t in tensors]
        yield from map(_Block, rows, *parts)

    def buffer(self, name: str, rows: int, width: int) -> Tensor:
        """Memory ``[rows, width]`` by its name; what it held in the last block is lost."""
        if name not in self._memory:
            self._memory[name] = self.edges.to_target.new_empty(self.size, width)
        return self._memory[name][:rows]

    def first(self, block: _Block) -> tuple[Tensor, Tensor]:
        """The first layer's activation ``[rows, edge]``, and its derivative."""

        def layer(out: Tensor) -> Tensor:
            torch.index_select(self.edges.to_target, 0, block.target, out=out)
            other = self.buffer("other", *out.shape)
            out.add_(torch.index_select(self.edges.to_source, 0, block.source, out=other))
            if block.features.shape[1] == 1:
                return out.addcmul_(block.features, self.weights.radial.T)
            return out.addmm_(block.features, self.weights.radial.T)

        return self._active("first", block, self.weights.radial.shape[0], layer)

    def further(
        self, name: str, block: _Block, x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The activation ``[rows, width]`` of a further layer that reads x, and its derivative."""
        assert bias is not None

        def layer(out: Tensor) -> Tensor:
            return torch.addmm(bias, x, weight.T, out=out)

        return self._active(name, block, weight.shape[0], layer)

    def weighted(self, block: _Block, u: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Activations times attention and envelope, ``[rows, message]``, with both, and alone."""
        weights, gate, factor = self.weights, None, block.envelope
        if weights.gate is not None:
            gate = factor = F.linear(u, weights.gate, weights.gate_bias).sigmoid_()
            if block.envelope is not None:
                factor = gate * block.envelope
        if factor is None:
            return u, None, None
        out = self.buffer("weighted", *u.shape) if self.slopes else u
        return torch.mul(u, factor, out=out), factor, gate

    def step(self, block: _Block, message: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How far nodes move ``[rows, 1]``, the activation it is read from, its derivative."""
        weights = self.weights
        assert weights.position_in is not None and weights.position_out is not None
        layer = weights.position_in, weights.position_bias
        active, slope = self.further("third", block, message, *layer)
        return F.linear(active, weights.position_out), active, slope

    def _active(
        self, name: str, block: _Block, width: int, layer: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        rows = block.source.shape[0]
        if not self.known:
            x = layer(self.buffer(name, rows, width))
            if not self.slopes:
                return F.silu(x, inplace=True), x  # nobody asks for the slope
        if self.kept is None:
            active, slope = (self.buffer(f"{name} {k}", rows, width) for k in ("active", "slope"))
        else:
            if name not in self.kept:
                like, edges = self.edges.to_target, self.source.shape[0]
                self.kept[name] = like.new_empty(edges, width), like.new_empty(edges, width)
            active, slope = (tensor[block.rows] for tensor in self.kept[name])
        if not self.known:  # with s = sigmoid(x): x s, and s + x s (1 - s)
            s = torch.sigmoid(x, out=self.buffer(f"sigmoid {width}", rows, width))
            torch.mul(x, s, out=active)
            torch.addcmul(s, active, s, value=-1, out=slope).add_(active)
        return active, slope


def _forward(run: _Pass) -> tuple[Tensor, Tensor | None]:
    """What :func:`edge_sums` returns, without a history."""
    edges, weights = run.edges, run.weights
    nodes, like = edges.to_target.shape[0], edges.to_target
    received = like.new_zeros(nodes, weights.out.shape[0])
    moved = None
    if weights.position_in is not None:
        moved = like.new_zeros(nodes, edges.direction.shape[1])
    for block in run.blocks():
        hidden, _ = run.first(block)
        message, _ = run.further("second", block, hidden, weights.out, weights.out_bias)
        message = run.weighted(block, message)[0]
        received.index_add_(0, block.target, message)
        if moved is not None:
            step = run.step(block, message)[0]
            if block.envelope is not None:
                step = step * block.envelope
            moved.index_add_(0, block.target, block.direction * step)
    return received, moved


class _Gradients:
    """Sums of the gradients that are asked for, by the names of inputs and weights."""

    def __init__(self, tensors: dict[str, Tensor | None], wanted: dict[str, bool]) -> None:
        self.of = {
            name: torch.zeros_like(tensor, memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
            if tensor is not None and wanted[name]
        }

    def __contains__(self, name: str) -> bool:
        return name in self.of

    def linear(self, weight: str, bias: str | None, x: Tensor, slope: Tensor) -> None:
        """Of a layer that read ``x``."""
        if weight in self.of:
            self.of[weight].addmm_(slope.T, x)
        if bias in self.of:
            self.of[bias].add_(slope.sum(0))

    def rows(self, name: str, index: Tensor, slope: Tensor) -> None:
        """Of rows that were gathered."""
        if name in self.of:
            self.of[name].index_add_(0, index, slope)

    def part(self, name: str, rows: slice, slope: Tensor) -> None:
        """Of a block's own rows."""
        if name in self.of:
            self.of[name][rows] += slope


def _backward(run: _Pass, gradients: _Gradients, received: Tensor, moved: Tensor | None) -> None:
    """Add up the gradients, given those of the results."""
    weights = run.weights
    for block in run.blocks():
        c = block.envelope
        hidden, hidden_slope = run.first(block)
        u, u_slope = run.further("second", block, hidden, weights.out, weights.out_bias)
        message, factor, gate = run.weighted(block, u)

        back = run.buffer("back", *message.shape)
        torch.index_select(received, 0, block.target, out=back)
        if moved is not None:
            assert weights.position_in is not None and weights.position_out is not None
            step, active, slope = run.step(block, message)
            pull = moved.index_select(0, block.target)
            gradients.part("direction", block.rows, pull * (step if c is None else step * c))
            push = (pull * block.direction).sum(-1, keepdim=True)
            if c is not None:
                gradients.part("envelope", block.rows, push * step)
                push = push * c
            gradients.linear("position_out", None, active, push)
            inner = torch.mul(slope, push, out=run.buffer("inner", *active.shape))
            inner.mul_(weights.position_out)
            gradients.linear("position_in", "position_bias", message, inner)
            back.addmm_(inner, weights.position_in)

        if factor is not None:
            along = torch.linalg.vecdot(back, u)[:, None]  # what a factor of u is worth
            if c is not None:
                gradients.part("envelope", block.rows, along if gate is None else along * gate)
            back.mul_(factor)
            if gate is not None and weights.gate is not None:
                raw = along * (factor * (1 - gate))
                gradients.linear("gate", "gate_bias", u, raw)
                back.addcmul_(raw, weights.gate)
        back.mul_(u_slope)
        gradients.linear("out", "out_bias", hidden, back)
        back = torch.mm(back, weights.out, out=run.buffer("other", *hidden.shape))
        back.mul_(hidden_slope)
        gradients.linear("radial", None, block.features, back)
        gradients.rows("to_target", block.target, back)
        gradients.rows("to_source", block.source, back)
        if "features" in gradients:
            gradients.part("features", block.rows, back @ weights.radial)


class _BlockedSums(torch.autograd.Function):
    """:func:`blocked_sums` with its way back."""

    @staticmethod
    def forward(
        ctx: Any,
        recompute: bool,
        source: Tensor,
        target: Tensor,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        kept: Kept | None = {} if any(ctx.needs_input_grad) and not recompute else None
        run = _Pass(*_split(tensors), source, target, kept, slopes=kept is not None)
        results = _forward(run)
        ctx.names = list(kept or ())
        flat = [tensor for pair in (kept or {}).values() for tensor in pair]
        ctx.save_for_backward(source, target, *tensors, *flat)
        return results

    @staticmethod
    def backward(ctx: Any, received: Tensor, moved: Tensor | None) -> Any:
        source, target, *tensors = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3:]
        tensors, layers = tensors[: len(wanted)], tensors[len(wanted) :]
        if torch.is_grad_enabled():  # the gradient shall have gradients
            found = _plain_gradients(source, target, tensors, wanted, received, moved)
            return None, None, None, *found
        edges, weights = _split(tensors)
        named = {**edges._asdict(), **weights._asdict()}
        gradients = _Gradients(named, dict(zip(named, wanted, strict=True)))
        pairs = zip(layers[::2], layers[1::2], strict=True)
        kept = dict(zip(ctx.names, pairs, strict=True)) or None
        run = _Pass(edges, weights, source, target, kept, slopes=True)
        _backward(run, gradients, received.contiguous(), moved)
        return None, None, None, *(gradients.of.get(name) for name in named)


def _split(tensors: Any) -> tuple[EdgeFeatures, EdgeWeights]:
    own = len(EdgeFeatures._fields)
    return EdgeFeatures(*tensors[:own]), EdgeWeights(*tensors[own:])


def _plain_gradients(
    source: Tensor,
    target: Tensor,
    tensors: list[Tensor | None],
    wanted: tuple[bool, ...],
    received: Tensor,
    moved: Tensor | None,
) -> list[Tensor | None]:
    """Gradients with a history, by the plain version."""
    # copies: an input may depend on another, and only the direct part is asked for
    copies = [None if t is None else t.view_as(t) for t in tensors]
    outputs = message_sums(*_split(copies), source, target)
    asked = [t for t, want in zip(copies, wanted, strict=True) if want and t is not None]
    both = zip(outputs, (received, moved), strict=True)
    pairs = [(o, g) for o, g in both if o is not None and o.requires_grad]
    results, slopes = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(results, asked, slopes, create_graph=True, allow_unused=True))
    return [next(found) if want else None for want in wanted]


def blocked_sums(
    inputs: EdgeInputs,
    weights: EdgeWeights,
    geometry: Geometry,
    source: Tensor,
    target: Tensor,
    recompute: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """What :func:`edge_sums` returns, block by block.

    Args:
        inputs: of nodes and edges.
        weights: of the edge network.
        geometry: how distances and directions enter.
        source: ``[E]``, the node that a message comes from.
        target: ``[E]``, sorted, the node that it goes to.
        recompute: on the way back compute the blocks anew, for a fraction of the memory.
    """
    features, direction = features_of(inputs, geometry, source, target)
    edges = EdgeFeatures(inputs.to_target, inputs.to_source, features, direction, inputs.envelope)
    if not torch.is_grad_enabled():  # inside a Function nobody can tell
        return _forward(_Pass(edges, weights, source, target))
    return _BlockedSums.apply(recompute, source, target, *edges, *weights)
