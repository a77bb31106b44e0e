"""A linear map between copies of one irrep with weights for each element."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from egnn_prune.channels import Member


class ElementLinear(nn.Module):
    r"""Mix copies by the element's own matrix, :math:`y_{vm} = \sum_u W^{(z)}_{vu}\, c_u\, x_{um}`.

    What e3nn's ``FullyConnectedTensorProduct`` of features and one-hot elements does (NequIP's and
    MACE's self connection), with its normalisation as a coefficient of the copy, which pruning
    carries over.

    Args:
        species: number of elements.
        copies: number of output copies v.
        inputs: number of input copies u.

    Shapes:
        ``x [N, 2l+1, inputs]``, ``species [N]`` -> ``[N, 2l+1, copies]``.
    """

    coefficient: Tensor

    def __init__(self, species: int, copies: int, inputs: int) -> None:
        super().__init__()
        self.copies = copies
        self.weight = nn.Parameter(torch.randn(species, copies, inputs))
        self.register_buffer("coefficient", torch.full((inputs,), max(inputs, 1) ** -0.5))

    def forward(self, x: Tensor, species: Tensor) -> Tensor:
        """Mix the copies."""
        matrices = (self.weight * self.coefficient).mT.index_select(0, species)
        return torch.bmm(x, matrices)

    def output_members(self, name: str) -> list[Member]:
        """What belongs to the output copies, for a map that is held as ``name``."""
        return [Member.span(f"{name}.weight", 1, self.copies)]

    def input_members(self, name: str, n: int, offsets: Sequence[int]) -> list[Member]:
        """What belongs to ``n`` input copies that enter once at each of the offsets."""
        return [
            Member.span(f"{name}.weight", 2, n, *offsets, reads=True),
            Member.span(f"{name}.coefficient", 0, n, *offsets, reads=True),
        ]
