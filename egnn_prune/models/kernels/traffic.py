"""Bytes and operations of the edge block, counted: with kernels and without, no GPU needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from egnn_prune.models.basis import SquaredDistance
from egnn_prune.models.edge_sums import EdgeInputs, EdgeWeights, Geometry, edge_sums

#: Nodes that share a product with zeros and ones, by which the kernels add up messages.
ROWS = 16


class Traffic(NamedTuple):
    """What one pass costs.

    Attributes:
        read: bytes.
        written: bytes.
        flops: of matrix products, two for each multiplication.
        gathered: bytes that edges read of nodes' rows, or add to them, in the cache.
    """

    read: int
    written: int
    flops: int
    gathered: int = 0

    @property
    def moved(self) -> int:
        """Bytes read and written."""
        return self.read + self.written

    def seconds(self, bytes_per_second: float, flops_per_second: float) -> float:
        """The least that a machine needs: its roofline."""
        return max(self.moved / bytes_per_second, self.flops / flops_per_second)


class TrafficCounter(TorchDispatchMode):
    """Adds up the tensors that every operation reads and writes, as nothing stays in a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.read = self.written = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation and count it, unless it only looks at a tensor in another way."""
        result = func(*args, **(kwargs or {}))
        if not getattr(func, "is_view", False):
            self.read += _bytes((args, kwargs))
            self.written += _bytes(result)
        return result


def _bytes(tree: object) -> int:
    return sum(t.numel() * t.element_size() for t in tree_leaves(tree) if isinstance(t, Tensor))


def plain_traffic(edges: int, nodes: int, hidden: int) -> dict[str, Traffic]:
    """Of the plain version, operation by operation: forward pass and its gradients.

    Counted on tensors without storage, so that any size will do.
    """

    def leaf(*shape: int) -> Tensor:
        return torch.empty(*shape, device="meta", requires_grad=True)

    inputs = EdgeInputs(leaf(nodes, hidden), leaf(nodes, hidden), leaf(nodes, 3))
    weights = EdgeWeights(
        radial=leaf(hidden, 1),
        out=leaf(hidden, hidden),
        out_bias=leaf(hidden),
        position_in=leaf(hidden, hidden),
        position_bias=leaf(hidden),
        position_out=leaf(1, hidden),
    )
    source, target = torch.empty(2, edges, dtype=torch.long, device="meta")
    leaves = [t for t in (*inputs, *weights) if t is not None]
    found = {}
    with TrafficCounter() as forward, FlopCounterMode(display=False) as forward_flops:
        sums = edge_sums(inputs, weights, Geometry(SquaredDistance(), 1e-3), source, target)
    outputs = [y for y in sums if y is not None]
    seeds = [torch.empty_like(y) for y in outputs]
    with TrafficCounter() as backward, FlopCounterMode(display=False) as backward_flops:
        torch.autograd.grad(outputs, leaves, seeds)
    for name, bytes_of, flops in (
        ("forward", forward, forward_flops),
        ("backward", backward, backward_flops),
    ):
        found[name] = Traffic(bytes_of.read, bytes_of.written, flops.get_total_flops())
    return found


def kernel_traffic(edges: int, nodes: int, hidden: int, programs: int = 264) -> dict[str, Traffic]:
    """Of the kernels: inputs and gradients once, products again in the backward pass.

    A node's rows count once: that its edges read them again from the cache is a number of its own.

    Args:
        edges: number of edges.
        nodes: number of nodes.
        hidden: every width.
        programs: of the backward pass, two for every multiprocessor.
    """
    number, index = 4, 8
    rows = nodes * (2 * hidden + 3) * number  # what is known of nodes: two first layers, positions
    sums = nodes * (hidden + 3) * number
    layers = (2 * hidden**2 + 4 * hidden) * number
    lists = 2 * edges * index + nodes * index
    layer = 2 * edges * hidden * hidden
    features = 2 * edges * hidden * ROWS
    rows_of_edges = edges * (2 * hidden + 6) * number
    forward = Traffic(
        read=rows + lists + layers,
        written=sums,
        flops=2 * layer + 2 * features,
        gathered=rows_of_edges,
    )
    tiles = programs * layers
    backward = Traffic(
        read=rows + sums + lists + layers + tiles,
        written=2 * rows + 2 * tiles,  # zeros first
        flops=6 * layer + 5 * features,
        # the sums' gradients, both first layers twice; added to the senders and, tile by tile, to
        # the copies of the weights' gradients
        gathered=2 * rows_of_edges + 2 * edges * hidden * number + edges // 32 * layers,
    )
    return {"forward": forward, "backward": backward}


def counted_traffic(
    edges: int = 10**6, hidden: int = 128, degree: int = 17
) -> dict[str, dict[str, Traffic]]:
    """Plain version and kernels, forward and backward, with moves and nothing optional.

    Args:
        edges: number of edges.
        hidden: every width.
        degree: edges of a node.
    """
    nodes = max(edges // degree, 1)
    return {
        "plain": plain_traffic(edges, nodes, hidden),
        "kernels": kernel_traffic(edges, nodes, hidden),
    }
