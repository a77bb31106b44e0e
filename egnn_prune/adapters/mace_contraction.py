"""MACE's products of features of an atom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from egnn_prune.channels import Member
from egnn_prune.graphs import has_values


@dataclass(frozen=True)
class Species:
    """Which elements the atoms of a call are.

    A model of 89 elements has weights for each; only those of the elements at hand are touched.

    Attributes:
        index: ``[N]``, the number of each atom's element.
        present: ``[S]``, the elements that occur.
        one_hot: ``[N, S]``, which of them each atom is.
    """

    index: Tensor
    present: Tensor
    one_hot: Tensor

    @classmethod
    def of(cls, index: Tensor, elements: int, dtype: torch.dtype) -> Species:
        """Look which elements occur; where values are not known (export), take them all."""
        present = index.unique() if has_values() else torch.arange(elements, device=index.device)
        return cls(index, present, (index[:, None] == present).to(dtype))


class SymmetricContraction(nn.Module):
    r"""All products of up to :math:`\nu` features of an atom that make an irrep.

    .. math::
        B_{kM} = \sum_{\nu} \sum_\eta W^{(\nu)}_{z \eta k}
            \sum_{i_1 \dots i_\nu} U^{(\nu)}_{M i_1 \dots i_\nu \eta} \prod_{\xi} A_{k i_\xi}

    Source: Batatia et al. 2022 (MACE), Eqs. 10 and 11. A copy k is multiplied with itself only,
    over all orders at once: here a channel is one copy of *all* orders. Couplings and weights are
    joined first, once per element, and then one factor is contracted after the other.

    Args:
        elements: how many the model knows; 0 where the weights depend on none.
        copies: k.
        components: :math:`\sum_l (2l+1)` of the features.
        order: l of the irrep that is made.
        terms: number of couplings :math:`\eta` for each :math:`\nu = 1, 2, \dots`.

    Shapes:
        ``x [N, components, copies]`` -> ``[N, 2l+1, copies]``.
    """

    def __init__(
        self, elements: int, copies: int, components: int, order: int, terms: Sequence[int]
    ) -> None:
        super().__init__()
        self.copies, self.components, self.terms = copies, components, tuple(terms)
        self.shared, kinds = not elements, max(elements, 1)
        for nu, n in enumerate(terms, start=1):
            shape = (2 * order + 1, *[components] * nu, n)
            self.register_buffer(f"coupling_{nu}", torch.zeros(shape))
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(kinds, n, copies) / max(n, 1)) for n in terms
        )

    def forward(self, x: Tensor, species: Species) -> Tensor:
        """Multiply the features."""
        rows = x.permute(2, 0, 1)  # [copies, N, components]
        one_hot = species.one_hot
        if self.shared:
            one_hot = one_hot.new_ones(one_hot.shape[0], 1)
        # the components of an atom in the columns of its element: one product for all elements
        wide = (one_hot[:, :, None] * rows[:, :, None]).flatten(2)
        highest, *lower = (self._table(nu, species) for nu in range(len(self.terms), 0, -1))
        inner = highest.unflatten(2, (-1, self.components)).transpose(2, 3).flatten(1, 2)
        out = torch.bmm(wide, inner)  # [copies, N, (2l+1) * components^(nu-1)]
        for table in lower:
            out = out + torch.matmul(one_hot, table)
            out = (out.unflatten(2, (-1, self.components)) * rows[:, :, None]).sum(-1)
        return out.permute(1, 2, 0)

    def _table(self, nu: int, species: Species) -> Tensor:
        r""":math:`\sum_\eta U W` for each element that occurs, ``[copies, S, (2l+1) D^\nu]``."""
        coupling: Tensor = getattr(self, f"coupling_{nu}")
        weight = self.weights[nu - 1]
        weight = weight if self.shared else weight.index_select(0, species.present)
        return weight.permute(2, 0, 1) @ coupling.flatten(0, -2).T

    def members(self, name: str) -> list[Member]:
        """What belongs to the copies, for a contraction that is held as ``name``."""
        return [Member.span(f"{name}.weights.{i}", 2, self.copies) for i in range(len(self.terms))]
