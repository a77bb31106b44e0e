"""What the layers of a network on irreps share about the edges of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from egnn_prune.graphs import has_values, is_transformed
from egnn_prune.models.irreps_paths import Couplings, Orders, Path
from egnn_prune.models.irreps_product import Product, summed
from egnn_prune.models.irreps_terms import Terms
from egnn_prune.models.neighbour_rows import NeighbourRows, neighbour_rows


class LazyMatrices(Mapping[Orders, Tensor]):
    """Matrices for each (l1, l2, l3), computed when they are first asked for.

    Args:
        orders: those that there are.
        make: computes one.
    """

    def __init__(self, orders: Sequence[Orders], make: Callable[[Orders], Tensor]) -> None:
        self._orders, self._make = orders, make
        self._made: dict[Orders, Tensor] = {}

    def __getitem__(self, orders: Orders) -> Tensor:
        if orders not in self._made:
            self._made[orders] = self._make(orders)
        return self._made[orders]

    def __iter__(self) -> Iterator[Orders]:
        return iter(self._orders)

    def __len__(self) -> int:
        return len(self._orders)


@dataclass(frozen=True)
class IrrepsEdges:
    """What the layers share about the edges of a batch.

    Attributes:
        source: ``[E]``, the node that a message comes from.
        target: ``[E]``, the node that it goes to.
        graph: ``[E]``, the graph of the edge.
        radial: ``[E, bessel]``, the radial functions.
        couplings: for each (l1, l2, l3) in use ``[E, 2 l3 + 1, 2 l1 + 1]``, see
            :class:`~egnn_prune.models.irreps_paths.Couplings`.
        rows: the edges of each node side by side, on a CPU; ``None`` while torch is tracing.
        turned: with rows, for each (l1, l2, l3) their matrices ``[R, 2 l1 + 1, 2 l3 + 1]``.
    """

    source: Tensor
    target: Tensor
    graph: Tensor
    radial: Tensor
    couplings: Mapping[Orders, Tensor]
    rows: NeighbourRows | None = None
    turned: Mapping[Orders, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        edge_index: Tensor,
        graph: Tensor,
        radial: Tensor,
        harmonics: Tensor,
        couplings: Couplings,
    ) -> IrrepsEdges:
        """The edges of a batch.

        Args:
            edge_index: ``[2, E]``, source and target.
            graph: ``[N]``, the graph of each node.
            radial: ``[E, bessel]``.
            harmonics: ``[E, (lmax + 1)^2]``, with whatever they are multiplied with.
            couplings: of the network.
        """
        source, target = edge_index
        shared = source, target, graph.index_select(0, target), radial
        if not has_values():
            return cls(*shared, couplings(harmonics))
        lazy = LazyMatrices(couplings.orders, partial(couplings.matrices, harmonics))
        if harmonics.device.type != "cpu" or is_transformed():
            return cls(*shared, lazy)
        rows = neighbour_rows(source, target, graph.shape[0])
        spread = rows.spread(harmonics)
        turned = LazyMatrices(couplings.orders, partial(couplings.turned, spread))
        return cls(*shared, lazy, rows, turned)

    def summed(
        self,
        terms: Terms,
        hidden: Tensor,
        weight: Tensor,
        features: Mapping[str, Tensor],
        training: bool,
    ) -> dict[Path, Tensor]:
        """Each path's sum over neighbours, ``[N, 2 l3 + 1, copies]``.

        Args:
            terms: the paths.
            hidden: ``[E, radial]``, the last hidden channels of the radial network.
            weight: ``[copies of all terms, radial]``, the radial network's last layer.
            features: of each irrep ``[N, 2l+1, copies]``.
            training: whether slopes by the geometry are differentiated again, as losses of forces
                do.
        """
        if not terms.terms:
            return {}
        if self.rows is None:
            return self.coupled(terms, F.linear(hidden, weight), features)
        matrices = [self.turned[term.orders] for term in terms.terms]
        if training and any(matrix.requires_grad for matrix in matrices):
            # blocks would be computed a third time to be differentiated twice
            return self.coupled(terms, F.linear(hidden, weight), features)
        product = Product(terms, self.rows)
        sums = summed(product, hidden, weight, matrices, terms.spread(features))
        return terms.by_path(sums)

    def coupled(
        self, terms: Terms, weights: Tensor, features: Mapping[str, Tensor]
    ) -> dict[Path, Tensor]:
        """The same from the weights ``[E, copies of all terms]``, with a message on every edge."""
        if not terms.terms:
            return {}
        sums: list[Tensor] = []
        nodes = next(iter(features.values())).shape[0]
        for order, x in zip(terms.orders, terms.joined(features), strict=True):
            mine = [terms.terms[k] for k, _ in order.terms]
            l1 = mine[0].orders[0]
            used = sorted({term.orders for term in mine})
            carried = x.index_select(0, self.source)
            matrices = [self.couplings[orders] for orders in used]
            if l1:  # one product for all couplings: the time is in small matrices
                joint = torch.bmm(torch.cat(matrices, dim=1), carried)
                matrices = list(joint.split([m.shape[1] for m in matrices], dim=1))
            products = dict(zip(used, matrices, strict=True))
            for term in mine:
                weight, product = weights[:, None, term.rows], products[term.orders]
                if l1:
                    message = weight * product[..., term.copies]
                else:  # scalars are weighted before they are spread over components
                    message = weight * carried[..., term.copies] * product
                total = message.new_zeros(nodes, *message.shape[1:])
                sums.append(total.index_add(0, self.target, message))
        return terms.by_path(sums)
