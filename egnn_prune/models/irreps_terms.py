"""The paths of a layer, gathered so that few large operations compute all of them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from egnn_prune.models.irreps_paths import Orders, Path


@dataclass(frozen=True)
class Term:
    """Paths of the same orders, whose sources lie side by side.

    Attributes:
        orders: (l1, l2, l3).
        copies: the range of the sources' copies among all of order l1.
        rows: the range of their weights among those of all terms.
        paths: the paths, in the sources' order.
        sizes: the copies of each.
    """

    orders: Orders
    copies: slice
    rows: slice
    paths: tuple[Path, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Order:
    """The terms that read features of one order.

    Attributes:
        sources: the irreps of this order that are read, side by side.
        rows: the range of the weights of its terms.
        terms: the number of each term, and its columns among :meth:`Terms.spread` features.
    """

    sources: tuple[str, ...]
    rows: slice
    terms: tuple[tuple[int, slice], ...]


@dataclass(frozen=True)
class Terms:
    """What a layer sums over neighbours.

    Attributes:
        terms: all terms, those of one order l1 one after another.
        orders: what they read.
    """

    terms: tuple[Term, ...]
    orders: tuple[Order, ...]

    @classmethod
    def of(cls, paths: Sequence[Path], copies: Mapping[str, int]) -> Terms:
        """Gather the paths of a layer, from features of so many copies."""
        terms: list[Term] = []
        orders: list[Order] = []
        for l1 in sorted({path.orders[0] for path in paths}):
            mine = [path for path in paths if path.orders[0] == l1]
            sources = [ir for ir in copies if any(path.source == ir for path in mine)]
            first, start = len(terms), terms[-1].rows.stop if terms else 0
            for used in sorted({path.orders for path in mine}):
                reads = {path.source: path for path in mine if path.orders == used}
                for run in _runs(sources, reads):
                    before = sum(copies[ir] for ir in sources[: sources.index(run[0])])
                    sizes = tuple(copies[ir] for ir in run)
                    row = terms[-1].rows.stop if terms else 0
                    terms.append(
                        Term(
                            used,
                            slice(before, before + sum(sizes)),
                            slice(row, row + sum(sizes)),
                            tuple(reads[ir] for ir in run),
                            sizes,
                        )
                    )
            columns = (
                (k, slice(terms[k].rows.start - start, terms[k].rows.stop - start))
                for k in range(first, len(terms))
            )
            orders.append(Order(tuple(sources), slice(start, terms[-1].rows.stop), tuple(columns)))
        return cls(tuple(terms), tuple(orders))

    @property
    def paths(self) -> list[Path]:
        """All paths, in the order of their weights."""
        return [path for term in self.terms for path in term.paths]

    @property
    def sizes(self) -> list[int]:
        """The copies of each term."""
        return [sum(term.sizes) for term in self.terms]

    @property
    def width(self) -> int:
        """The copies of all terms."""
        return sum(self.sizes)

    def joined(self, x: Mapping[str, Tensor]) -> list[Tensor]:
        """The features of each order side by side, ``[N, 2 l1 + 1, copies]``."""
        parts = ([x[ir] for ir in order.sources] for order in self.orders)
        return [each[0] if len(each) == 1 else torch.cat(each, -1) for each in parts]

    def spread(self, x: Mapping[str, Tensor]) -> list[Tensor]:
        """The same once for every term that reads them: nodes are few, edges are many."""
        found = []
        for order, features in zip(self.orders, self.joined(x), strict=True):
            parts = [features[..., self.terms[k].copies] for k, _ in order.terms]
            found.append(torch.cat(parts, -1))
        return found

    def by_path(self, sums: Sequence[Tensor]) -> dict[Path, Tensor]:
        """Each path's part of the terms' results."""
        found: dict[Path, Tensor] = {}
        for term, total in zip(self.terms, sums, strict=True):
            parts = [total] if len(term.paths) == 1 else total.split(term.sizes, dim=-1)
            found |= zip(term.paths, parts, strict=True)
        return found


def _runs(sources: Sequence[str], read: Container[str]) -> list[list[str]]:
    """The sources that are read, those that lie side by side together."""
    groups = groupby(sources, key=lambda ir: ir in read)
    return [list(run) for inside, run in groups if inside]
