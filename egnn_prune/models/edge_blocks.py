"""The sums over neighbours in blocks of edges that stay in a CPU's cache, forth and back.

Of all edges at once, every step of :func:`edge_sums` would write a tensor of edges x channels to
memory and read it again, most of it in pages that the system has to hand out first. The tensors of
a block stay in the cache, and the next block uses them again. For the way back either what the
layers of the edge network have before their activations is kept, and nothing else, or every block
is computed anew, and nothing of edges x channels is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from egnn_prune.graphs import edge_vectors
from egnn_prune.models.edge_sums import EdgeInputs, EdgeWeights, Geometry, edge_sums

#: Numbers in the widest tensor of a block: half a megabyte in float32.
BLOCK = 1 << 17
#: Fewest edges of a block, where the network is very wide.
MIN_EDGES = 256

_silu, _silu_back = torch.ops.aten.silu.out, torch.ops.aten.silu_backward.grad_input


def block_edges(weights: EdgeWeights) -> int:
    """How many edges a block has."""
    layers = (weights.radial, weights.out, weights.position_in)
    return max(MIN_EDGES, BLOCK // max(w.shape[0] for w in layers if w is not None))


def pays(inputs: EdgeInputs, weights: EdgeWeights, source: Tensor) -> bool:
    """Whether blocks are faster: on a CPU, with edges for at least two of them."""
    first = inputs.to_target
    return (
        first.device.type == "cpu"
        and first.dtype in (torch.float32, torch.float64)
        and source.shape[0] >= 2 * block_edges(weights)
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()  # they cannot look inside
    )


class _Block(NamedTuple):
    """The edges of a block."""

    rows: slice
    source: Tensor
    target: Tensor
    difference: Tensor
    attr: Tensor | None
    envelope: Tensor | None


class _Pass:
    """What the blocks of a pass share: inputs, weights, and memory that is used again and again."""

    def __init__(
        self,
        inputs: EdgeInputs,
        weights: EdgeWeights,
        geometry: Geometry,
        source: Tensor,
        target: Tensor,
        kept: dict[str, Tensor] | None = None,
        back: bool = False,
    ) -> None:
        # a slice of the first layer's weight: strided, which broadcasts slowly
        self.weights = weights._replace(radial=weights.radial.contiguous())
        self.inputs, self.geometry, self.source, self.target = inputs, geometry, source, target
        self.size = max(1, min(block_edges(weights), source.shape[0]))
        self._memory: dict[str, Tensor] = {}
        self.kept, self.back = kept, back

    def buffer(self, name: str, rows: int, width: int) -> Tensor:
        """Memory ``[rows, width]`` by its name; what it held in the last block is lost."""
        if name not in self._memory:
            self._memory[name] = self.inputs.to_target.new_empty(self.size, width)
        return self._memory[name][:rows]

    def layer(self, name: str, block: _Block, width: int) -> Tensor:
        """Where a layer's numbers before its activation are: kept for all edges, or a buffer."""
        if self.kept is None:
            return self.buffer(name, block.source.shape[0], width)
        if name not in self.kept:
            self.kept[name] = self.inputs.to_target.new_empty(self.source.shape[0], width)
        return self.kept[name][block.rows]

    @property
    def known(self) -> bool:
        """Whether the layers were computed on the way forth."""
        return self.back and self.kept is not None

    def blocks(self) -> Iterator[_Block]:
        """The edges, block by block."""
        attr, envelope, shift = self.inputs.attr, self.inputs.envelope, self.inputs.shift
        for start in range(0, self.source.shape[0], self.size):
            rows = slice(start, start + self.size)
            ends = self.source[rows], self.target[rows]
            difference = edge_vectors(
                self.inputs.pos, ends, None if shift is None else shift[rows]
            ).to(self.inputs.to_target.dtype)
            yield _Block(
                rows,
                *ends,
                difference,
                None if attr is None else attr[rows],
                None if envelope is None else envelope[rows],
            )

    def first(self, block: _Block, radial: Tensor) -> Tensor:
        """The first layer, before its activation, ``[rows, edge]``."""
        n, width = block.source.shape[0], self.weights.radial.shape[0]
        out = self.layer("first", block, width)
        if self.known:
            return out
        torch.index_select(self.inputs.to_target, 0, block.target, out=out)
        other = self.buffer("other", n, width)
        out.add_(torch.index_select(self.inputs.to_source, 0, block.source, out=other))
        if radial.shape[1] == 1:
            return out.addcmul_(radial, self.weights.radial.T)
        return out.addmm_(radial, self.weights.radial.T)

    def linear(self, name: str, block: _Block, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """A further layer, before its activation, ``[rows, width]``."""
        out = self.layer(name, block, weight.shape[0])
        return out if self.known else torch.addmm(bias, x, weight.T, out=out)

    def active(self, name: str, x: Tensor) -> Tensor:
        """SiLU, in place where nobody needs what was there."""
        if self.kept is None and not self.back:
            return F.silu(x, inplace=True)
        return _silu(x, out=self.buffer(f"{name} active", *x.shape))


def _joined(radial: Tensor, attr: Tensor | None) -> Tensor:
    return radial if attr is None else torch.cat([radial, attr], dim=-1)


def _forward(run: _Pass) -> tuple[Tensor, Tensor | None]:
    """What :func:`edge_sums` returns, without a history."""
    inputs, weights = run.inputs, run.weights
    nodes, like = inputs.to_target.shape[0], inputs.to_target
    received = like.new_zeros(nodes, weights.out.shape[0])
    moved = None
    if weights.position_in is not None:
        moved = like.new_zeros(nodes, inputs.pos.shape[1])
    for block in run.blocks():
        radial, direction = run.geometry(block.difference)
        hidden = run.active("first", run.first(block, _joined(radial, block.attr)))
        second = run.linear("second", block, hidden, weights.out, weights.out_bias)
        message = run.active("second", second)
        if weights.gate is not None:
            message.mul_(F.linear(message, weights.gate, weights.gate_bias).sigmoid_())
        if block.envelope is not None:
            message.mul_(block.envelope)
        received.index_add_(0, block.target, message)
        if moved is not None:
            layer = (weights.position_in, weights.position_bias)
            third = run.linear("third", block, message, *layer)
            step = F.linear(run.active("third", third), weights.position_out)
            if block.envelope is not None:
                step = step * block.envelope
            moved.index_add_(0, block.target, direction * step)
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

    def rows(self, name: str, index: Tensor, slope: Tensor, sign: int = 1) -> None:
        """Of rows that were gathered."""
        if name in self.of:
            self.of[name].index_add_(0, index, slope.to(self.of[name].dtype), alpha=sign)

    def part(self, name: str, rows: slice, slope: Tensor) -> None:
        """Of a block's own rows."""
        if name in self.of:
            self.of[name][rows] += slope


def _backward(run: _Pass, gradients: _Gradients, received: Tensor, moved: Tensor | None) -> None:
    """Add up the gradients, given those of the results."""
    weights = run.weights
    geometric = any(name in gradients for name in ("pos", "shift"))
    for block in run.blocks():
        c = block.envelope
        with torch.set_grad_enabled(geometric):
            difference = block.difference.requires_grad_(geometric)
            radial, direction = run.geometry(difference)
        slopes: list[tuple[Tensor, Tensor]] = []  # results of the geometry, and their gradients
        features = _joined(radial.detach(), block.attr)
        first = run.first(block, features)
        hidden = run.active("first", first)
        second = run.linear("second", block, hidden, weights.out, weights.out_bias)
        message = u = run.active("second", second)
        gate = None
        if weights.gate is not None:
            gate = F.linear(u, weights.gate, weights.gate_bias).sigmoid_()
            message = torch.mul(u, gate, out=run.buffer("message", *u.shape))
        if c is not None:
            message = torch.mul(message, c, out=run.buffer("message", *u.shape))

        slope = run.buffer("slope", *message.shape)
        torch.index_select(received, 0, block.target, out=slope)
        if moved is not None:
            layer = (weights.position_in, weights.position_bias)
            third = run.linear("third", block, message, *layer)
            active = run.active("third", third)
            step = F.linear(active, weights.position_out)
            pull = moved.index_select(0, block.target)
            slopes.append((direction, pull * (step if c is None else step * c)))
            push = (pull * direction.detach()).sum(-1, keepdim=True)
            if c is not None:
                gradients.part("envelope", block.rows, push * step)
                push = push * c
            gradients.linear("position_out", None, active, push)
            torch.mul(push, weights.position_out, out=active)
            back = _silu_back(active, third, grad_input=active)
            gradients.linear("position_in", "position_bias", message, back)
            slope.addmm_(back, weights.position_in)

        if gate is not None or c is not None:
            along = torch.linalg.vecdot(slope, u)[:, None]  # what a factor of u is worth
            factor = c if gate is None else gate if c is None else gate * c
            if c is not None:
                gradients.part("envelope", block.rows, along if gate is None else along * gate)
            slope.mul_(factor)
            if gate is not None:
                raw = along * (factor * (1 - gate))
                gradients.linear("gate", "gate_bias", u, raw)
                slope.addcmul_(raw, weights.gate)
        back = _silu_back(slope, second, grad_input=slope)
        gradients.linear("out", "out_bias", hidden, back)
        back = torch.mm(back, weights.out, out=hidden)
        back = _silu_back(back, first, grad_input=back)
        gradients.linear("radial", None, features, back)
        gradients.rows("to_target", block.target, back)
        gradients.rows("to_source", block.source, back)
        if not geometric and "attr" not in gradients:
            continue
        back = back @ weights.radial
        width = radial.shape[1]
        gradients.part("attr", block.rows, back[:, width:])
        if not geometric:
            continue
        slopes.append((radial, back[:, :width]))
        outputs, along = zip(*[s for s in slopes if s[0].requires_grad], strict=True)
        (slope,) = torch.autograd.grad(outputs, difference, along)
        gradients.rows("pos", block.target, slope)
        gradients.rows("pos", block.source, slope, -1)
        gradients.part("shift", block.rows, -slope)


class _BlockedSums(torch.autograd.Function):
    """:func:`blocked_sums` with its way back."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        geometry: Geometry,
        recompute: bool,
        source: Tensor,
        target: Tensor,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        kept: dict[str, Tensor] | None = None
        if not recompute and any(ctx.needs_input_grad):
            kept = {}
        results = _forward(_Pass(*_split(tensors), geometry, source, target, kept))
        ctx.geometry, ctx.kept = geometry, None if kept is None else list(kept)
        ctx.save_for_backward(source, target, *tensors, *(kept or {}).values())
        return results

    @staticmethod
    def backward(ctx: Any, received: Tensor, moved: Tensor | None) -> Any:  # type: ignore[override]
        source, target, *tensors = ctx.saved_tensors
        wanted = ctx.needs_input_grad[4:]
        tensors, layers = tensors[: len(wanted)], tensors[len(wanted) :]
        if torch.is_grad_enabled():  # the gradient shall have gradients
            found = _plain_gradients(ctx.geometry, source, target, tensors, wanted, received, moved)
            return None, None, None, None, *found
        inputs, weights = _split(tensors)
        named = {**inputs._asdict(), **weights._asdict()}
        gradients = _Gradients(named, dict(zip(named, wanted, strict=True)))
        kept = None if ctx.kept is None else dict(zip(ctx.kept, layers, strict=True))
        run = _Pass(inputs, weights, ctx.geometry, source, target, kept, back=True)
        _backward(run, gradients, received.contiguous(), moved)
        return None, None, None, None, *(gradients.of.get(name) for name in named)


def _split(tensors: Any) -> tuple[EdgeInputs, EdgeWeights]:
    inputs = len(EdgeInputs._fields)
    return EdgeInputs(*tensors[:inputs]), EdgeWeights(*tensors[inputs:])


def _plain_gradients(
    geometry: Geometry,
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
    outputs = edge_sums(*_split(copies), geometry, source, target)
    asked = [t for t, want in zip(copies, wanted, strict=True) if want and t is not None]
    pairs = [(o, g) for o, g in zip(outputs, (received, moved), strict=True) if o is not None]
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
    return _BlockedSums.apply(geometry, recompute, source, target, *inputs, *weights)
