"""MACE's products of features of an atom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from egnn_prune.channels import Member
from egnn_prune.errors import ConfigError
from egnn_prune.graphs import has_values


@dataclass(frozen=True)
class Species:
    """Which elements the atoms of a call are.

    A model of 89 elements has weights for each; only those of the elements at hand are touched.

    Attributes:
        index: ``[N]``, the number of each atom's element.
        present: ``[S]``, the elements that occur.
        one_hot: ``[S, N]``, which of them each atom is.
    """

    index: Tensor
    present: Tensor
    one_hot: Tensor

    @classmethod
    def of(cls, index: Tensor, elements: int, dtype: torch.dtype) -> Species:
        """Look which elements occur; where values are not known (export), take them all."""
        present = index.unique() if has_values() else torch.arange(elements, device=index.device)
        return cls(index, present, (present[:, None] == index).to(dtype))


class SymmetricContraction(nn.Module):
    r"""All products of up to three features of an atom that make an irrep.

    .. math::
        B_{kM} = \sum_{\nu=1}^3 \sum_\eta W^{(\nu)}_{z \eta k}
            \sum_{i_1 \dots i_\nu} U^{(\nu)}_{M i_1 \dots i_\nu \eta} \prod_{\xi} A_{k i_\xi}

    Source: Batatia et al. 2022 (MACE), Eqs. 10 and 11. A copy k is multiplied with itself only,
    over all orders at once: here a channel is one copy of *all* orders.

    Written as one form: with a constant 1 beside the features, products of all degrees are those of
    a pair of them (each pair once) and a third, :math:`B_M = \sum_{p q} T_{Mpq}\, (A A)_p A_q`,
    where T joins couplings and weights once for each element.

    Args:
        elements: how many the model knows; 0 where the weights depend on none.
        copies: k.
        components: :math:`\sum_l (2l+1)` of the features.
        order: l of the irrep that is made.
        terms: number of couplings :math:`\eta` for each :math:`\nu = 1, 2, 3`, as far as it goes.

    Shapes:
        ``x [N, components, copies]`` -> ``[N, 2l+1, copies]``.
    """

    coupling: Tensor
    first: Tensor
    second: Tensor

    def __init__(
        self, elements: int, copies: int, components: int, order: int, terms: Sequence[int]
    ) -> None:
        super().__init__()
        if not 1 <= len(terms) <= 3:
            raise ConfigError(f"products have one to three factors, not {len(terms)}")
        self.copies, self.terms = copies, tuple(terms)
        self.shared, kinds = not elements, max(elements, 1)
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(kinds, n, copies) / max(n, 1)) for n in terms
        )
        first, second = torch.triu_indices(components + 1, components + 1)
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("second", second, persistent=False)
        third = components + 1 if len(terms) == 3 else 1
        shape = (sum(terms), third, 2 * order + 1, len(first))
        self.register_buffer("coupling", torch.zeros(shape))

    @torch.no_grad()
    def couple(self, couplings: Sequence[Tensor]) -> None:
        """Set the couplings U, ``[2l+1, components, ..., components, terms]`` for each degree."""
        one = couplings[0].shape[1]  # where the constant lies
        place = {
            pair: p
            for p, pair in enumerate(zip(self.first.tolist(), self.second.tolist(), strict=True))
        }
        self.coupling.zero_()
        start = 0
        for u in couplings:
            rows = self.coupling[start : start + u.shape[-1]]
            start += u.shape[-1]
            factors = u.dim() - 2
            for i in range(one):
                for j in range(one) if factors > 1 else [one]:
                    block = u[:, i] if factors == 1 else u[:, i, j]  # [M, (third,) terms]
                    target = rows[..., place[min(i, j), max(i, j)]]  # [terms, third, M]
                    if factors == 3:
                        target[:, :one] += block.permute(2, 1, 0)
                    else:
                        target[:, -1] += block.T

    def forward(self, x: Tensor, species: Species) -> Tensor:
        """Multiply the features."""
        one_hot = species.one_hot
        weights = [w if self.shared else w.index_select(0, species.present) for w in self.weights]
        if self.shared:
            one_hot = one_hot.new_ones(1, one_hot.shape[1])
        joined = torch.cat(weights, 1).permute(2, 0, 1)  # [copies, S, terms]
        rows = x.permute(2, 1, 0)
        rows = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)  # [copies, components + 1, N]
        third = rows if self.coupling.shape[1] > 1 else rows[:, -1:]
        # the third factor in the rows of the atom's element: one product for all elements
        wide = (one_hot[:, None] * third[:, None]).flatten(1, 2)
        table = joined.reshape(-1, joined.shape[2]) @ self.coupling.flatten(1)
        table = table.view(self.copies, wide.shape[1], -1)  # [copies, S * third, (2l+1) * pairs]
        forms = torch.bmm(table.transpose(1, 2), wide)  # [copies, (2l+1) * pairs, N]
        pairs = rows.index_select(1, self.first) * rows.index_select(1, self.second)
        forms = forms.unflatten(1, self.coupling.shape[2:])
        return (forms * pairs[:, None]).sum(2).permute(2, 1, 0)

    def members(self, name: str) -> list[Member]:
        """What belongs to the copies, for a contraction that is held as ``name``."""
        return [Member.span(f"{name}.weights.{i}", 2, self.copies) for i in range(len(self.terms))]
