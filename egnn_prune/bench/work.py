"""What a pass cannot do without: matrix products, activations, bytes; counted from the widths."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from egnn_prune.bench.cases import FEATURES
from egnn_prune.models import EGNN


class Product(NamedTuple):
    """``[m, k] @ [k, n]``."""

    m: int
    k: int
    n: int

    @property
    def flops(self) -> int:
        """Two for each multiplication with its addition."""
        return 2 * self.m * self.k * self.n

    def backward(self, weights: bool) -> list[Product]:
        """What the gradient of the input takes, and that of the weights where they learn."""
        to_input = Product(self.m, self.n, self.k)
        return [to_input, Product(self.k, self.m, self.n)] if weights else [to_input]


@dataclass(frozen=True)
class Work:
    """Of one pass.

    Attributes:
        products: matrix products, each as often as it occurs.
        activations: SiLUs.
        activation_gradients: SiLUs differentiated.
        bytes: of inputs, weights and outputs, each read or written once.
        other_flops: of products whose shapes are left open.
    """

    products: tuple[Product, ...]
    activations: int = 0
    activation_gradients: int = 0
    bytes: int = 0
    other_flops: int = 0

    @property
    def flops(self) -> int:
        """Of all products."""
        return sum(p.flops for p in self.products) + self.other_flops


def egnn_work(network: EGNN, nodes: int, edges: int, name: str) -> Work:
    """The least that the function of an EGNN takes, whoever computes it.

    The first edge layer is linear in its concatenated input and so belongs to the nodes: the
    textbook, which applies it to the edges, does more than this. Edge-sized tensors need not move
    through memory, so bytes are those of the node features and positions of each layer, the list
    of edges once a layer, and weights, in both directions where gradients are taken.

    Args:
        network: whose widths count.
        nodes: of the batch.
        edges: of the batch.
        name: the pass.
    """
    stream = network.hidden
    products = [Product(nodes, FEATURES, stream)]
    activations = 0
    moved = 4 * nodes * (FEATURES + stream)
    for width in network.widths:
        products += [Product(nodes, stream, width.edge)] * 2
        products.append(Product(edges, width.edge, width.message))
        products.append(Product(edges, width.message, width.position))
        products.append(Product(edges, width.position, 1))
        products.append(Product(nodes, stream + width.message, width.node))
        products.append(Product(nodes, width.node, stream))
        activations += edges * (width.edge + width.message + width.position) + nodes * width.node
        moved += 16 * edges + 2 * 4 * nodes * (stream + 3)
    moved += 4 * sum(p.numel() for p in network.parameters())
    if name == "infer":
        return Work(tuple(products), activations, 0, moved)
    back = [b for p in products[1:] for b in p.backward(weights=name == "train")]
    if name == "train":
        back.append(Product(FEATURES, nodes, stream))
    return Work((*products, *back), activations, activations, 2 * moved)


def recorded_work(run: Callable[[], object]) -> Work:
    """The products and SiLUs that a pass of another network computed, of any shape."""
    with _Counter() as seen:
        run()
    return Work((), seen.count["silu"], seen.count["silu_backward"], other_flops=seen.flops)


class _Counter(TorchDispatchMode):
    """Counts the numbers that go through SiLU, forth and back, and the FLOPs of products."""

    def __init__(self) -> None:
        super().__init__()
        self.count = {"silu": 0, "silu_backward": 0}
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.rstrip("_")
        if formula := flop_registry.get(func.overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        if name in self.count and isinstance(out, Tensor):
            self.count[name] += math.prod(out.shape)
        return out
