r"""Tensor products with spherical harmonics, summed over neighbours in cache-sized blocks.

.. math::
    m_{i,kc} = \sum_j R_c(r_{ij}) \sum_a M_{ka}(\hat r_{ij})\, x_{j,ac}
             = \sum_{(j,a)} M_{ka}(\hat r_{ij}) \, \bigl( R_c(r_{ij})\, x_{j,ac} \bigr)

The right-hand side is one matrix product for each node, whose inner axis runs over neighbours and
components at once. So a message is never written before it is summed, and what is written instead
lives for one block of nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from egnn_prune.models.irreps_terms import Terms
from egnn_prune.models.neighbour_rows import Block, NeighbourRows

T = TypeVar("T")

#: Bytes that the rows of a block may take: between the caches of the second and third level.
#: Smaller blocks spend their time on starting operations.
CACHE = 2**21


@dataclass(frozen=True)
class Product:
    """What is summed, and over which neighbours."""

    terms: Terms
    rows: NeighbourRows

    def blocks(self, features: Sequence[Tensor]) -> list[Block]:
        """Blocks of nodes that stay in the cache."""
        width = self.terms.width + max(x.shape[1] * x.shape[2] for x in features)
        return list(self.rows.blocks(max(CACHE // (width * features[0].element_size()), 1)))

    def block(
        self,
        block: Block,
        hidden: Tensor,
        weight: Tensor,
        matrices: Sequence[Tensor],
        features: Sequence[Tensor],
    ) -> list[Tensor]:
        """The sums of all terms at the nodes of a block, ``[nodes, 2 l3 + 1, copies]``."""
        strength = F.linear(hidden.index_select(0, self.rows.edge[block.rows]), weight)
        source, sums = self.rows.source[block.rows], []
        for order, x in zip(self.terms.orders, features, strict=True):
            carried = x.index_select(0, source)
            if carried.requires_grad or strength.requires_grad:
                carried = carried * strength[:, None, order.rows]
            else:
                carried.mul_(strength[:, None, order.rows])
            carried = _by_node(carried, block)
            for k, columns in order.terms:
                matrix = _by_node(matrices[k][block.rows], block)
                sums.append(torch.bmm(matrix.mT, carried[..., columns]))
        return sums


def _by_node(rows: Tensor, block: Block) -> Tensor:
    """``[rows, components, columns]`` -> ``[nodes, neighbours and components, columns]``."""
    nodes = block.nodes.stop - block.nodes.start
    return rows.view(nodes, block.degree * rows.shape[1], rows.shape[2])


def summed(
    product: Product,
    hidden: Tensor,
    weight: Tensor,
    matrices: Sequence[Tensor],
    features: Sequence[Tensor],
) -> list[Tensor]:
    """Each term's sum over neighbours, ``[N, 2 l3 + 1, copies]``.

    Args:
        product: what is summed.
        hidden: ``[E, radial]``, the last hidden channels of the radial network.
        weight: ``[copies of all terms, radial]``, the radial network's last layer.
        matrices: for each term the couplings of every row ``[R, 2 l1 + 1, 2 l3 + 1]``.
        features: for each order ``[N, 2 l1 + 1, copies]``, see :meth:`Terms.spread`.
    """
    sums = _BlockSums.apply(product, hidden, weight, *matrices, *features)
    return [total.index_select(0, product.rows.place) for total in sums]


def _plainly(
    product: Product,
    hidden: Tensor,
    weight: Tensor,
    matrices: Sequence[Tensor],
    features: Sequence[Tensor],
) -> list[Tensor]:
    """The sums at the sorted nodes, with all that autograd needs to differentiate them twice."""
    # without any edge still a function of all that it could depend on
    blocks = product.rows.groups or [Block(slice(0, 0), slice(0, 0), 1)]
    parts = [product.block(block, hidden, weight, matrices, features) for block in blocks]
    lonely = [
        hidden.new_zeros(product.rows.lonely, m.shape[2], size)
        for m, size in zip(matrices, product.terms.sizes, strict=True)
    ]
    return [torch.cat(each) for each in zip(lonely, *parts, strict=True)]


class _BlockSums(torch.autograd.Function):
    """Block by block, forth and back: what a block needs is computed again on the way back."""

    @staticmethod
    def forward(
        ctx: Any, product: Product, hidden: Tensor, weight: Tensor, *others: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.product = product
        ctx.save_for_backward(hidden, weight, *others)
        matrices, features = _parted(product, others)
        nodes, lonely = features[0].shape[0], product.rows.lonely
        out = [
            hidden.new_empty(nodes, m.shape[2], size)
            for m, size in zip(matrices, product.terms.sizes, strict=True)
        ]
        for whole in out if lonely else ():
            whole[:lonely] = 0.0
        for block in product.blocks(features):
            parts = product.block(block, hidden, weight, matrices, features)
            for whole, part in zip(out, parts, strict=True):
                whole[block.nodes] = part
        return tuple(out)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        saved = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            # as new tensors: features come from the matrices too, in the layers before
            saved = [x.view_as(x) for x in saved]
        hidden, weight, *others = saved
        matrices, features = _parted(ctx.product, others)
        if torch.is_grad_enabled():
            wanted = [x for x, n in zip(saved, needed, strict=True) if n]
            out = _plainly(ctx.product, hidden, weight, matrices, features)
            pairs = [(o, g) for o, g in zip(out, slopes, strict=True) if o.requires_grad]
            found = iter(
                torch.autograd.grad(
                    [o for o, _ in pairs],
                    wanted,
                    [g for _, g in pairs],
                    create_graph=True,
                    materialize_grads=True,
                )
            )
            return None, *(next(found) if n else None for n in needed)
        asked = [n and _is_asked(ctx, i) for i, n in enumerate(needed)]
        return None, *_slopes(ctx.product, slopes, hidden, weight, matrices, features, asked)


def _parted(product: Product, others: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    """The matrices of all terms, and the features of all orders."""
    terms = len(product.terms.terms)
    return others[:terms], others[terms:]


def _is_asked(ctx: Any, i: int) -> bool:
    """Whether this pass back goes on to an input: forces ask for no slopes of the weights."""
    node = ctx.next_functions[i][0]  # of tensors alone
    if node is None or "AccumulateGrad" in node.name():  # of leaves, torch does not tell
        return True
    return bool(torch._C._will_engine_execute_node(node))


def _slopes(
    product: Product,
    slopes: Sequence[Tensor],
    hidden: Tensor,
    weight: Tensor,
    matrices: Sequence[Tensor],
    features: Sequence[Tensor],
    asked: Sequence[bool],
) -> list[Tensor | None]:
    """The slopes of hidden channels, weights, matrices and features, block by block."""
    rows, terms = product.rows, product.terms
    to_matrices, to_features = _parted(product, asked[2:])
    of_rows = hidden.new_empty(len(rows.edge), hidden.shape[1]) if asked[0] else None
    of_weight = torch.zeros_like(weight) if asked[1] else None
    of_matrices = [
        torch.empty_like(m) if a else None for m, a in zip(matrices, to_matrices, strict=True)
    ]
    of_features = [
        torch.zeros_like(x) if a else None for x, a in zip(features, to_features, strict=True)
    ]
    for block in product.blocks(features):
        h, source = hidden.index_select(0, rows.edge[block.rows]), rows.source[block.rows]
        strength = F.linear(h, weight)
        of_strength = torch.empty_like(strength) if asked[0] or asked[1] else None
        for o, order in enumerate(terms.orders):
            x, w = features[o].index_select(0, source), strength[:, None, order.rows]
            of_messages = torch.empty_like(x)
            weighted = None
            for k, columns in order.terms:
                matrix, slope = matrices[k][block.rows], slopes[k][block.nodes]
                part = _by_node(of_messages, block)[..., columns]
                torch.bmm(_by_node(matrix, block), slope, out=part)
                whole = of_matrices[k]
                if whole is not None:
                    weighted = x * w if weighted is None else weighted
                    part = _by_node(weighted, block)[..., columns]
                    torch.bmm(part, slope.mT, out=_by_node(whole[block.rows], block))
            if of_strength is not None:
                torch.sum(x.mul_(of_messages), 1, out=of_strength[:, order.rows])
            total = of_features[o]
            if total is not None:
                total.index_add_(0, source, of_messages.mul_(w))
        if of_strength is not None and of_rows is not None:
            torch.mm(of_strength, weight, out=of_rows[block.rows])
        if of_strength is not None and of_weight is not None:
            of_weight.addmm_(of_strength.T, h)
    of_hidden = None if of_rows is None else of_rows.index_select(0, rows.row)
    return [of_hidden, of_weight, *of_matrices, *of_features]
