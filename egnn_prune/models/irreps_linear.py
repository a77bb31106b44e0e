"""A linear map between copies of one irrep, with path coefficients that pruning carries over."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from egnn_prune.channels import Member


class CopyLinear(nn.Module):
    r"""Mix copies of one irrep, :math:`y_{vm} = \sum_u W_{vu}\, c_u\, x_{um} + b_v`.

    One block of e3nn's ``o3.Linear``, which divides by the square root of the fan-in *that it
    finds*: after pruning it would compute another function. Here the coefficients c are a buffer,
    which is sliced with the copies and never computed again; and the copies lie on the last axis,
    so that it is one matrix product.

    Args:
        copies: number of output copies v.
        parts: numbers of input copies, where several inputs are joined on the last axis. Each
            part has the coefficient :math:`c = 1 / \sqrt{n_\text{part}}`, e3nn's.
        bias: whether to add one number per output copy; for scalars of even parity only.

    Shapes:
        ``x [N, 2l+1, sum(parts)]`` -> ``[N, 2l+1, copies]``.
    """

    coefficient: Tensor

    def __init__(self, copies: int, parts: Sequence[int], bias: bool = False) -> None:
        super().__init__()
        self.copies = copies
        fan_in = [n for n in parts for _ in range(n)]
        # without inputs (all of them pruned) there is nothing but the bias
        self.weight = nn.Parameter(torch.randn(copies, len(fan_in))) if fan_in else None
        self.bias = nn.Parameter(torch.zeros(copies)) if bias else None
        if fan_in:
            self.register_buffer("coefficient", torch.tensor(fan_in).float().rsqrt())

    def forward(self, x: Tensor) -> Tensor:
        """Mix the copies."""
        if self.weight is None:
            zeros = x.new_zeros(*x.shape[:-1], self.copies)
            return zeros if self.bias is None else zeros + self.bias
        return F.linear(x, self.weight * self.coefficient, self.bias)

    def output_members(self, name: str) -> list[Member]:
        """What belongs to the output copies, for a map that is held as ``name``."""
        leaves = [k for k in ("weight", "bias") if getattr(self, k) is not None]
        return [Member.span(f"{name}.{leaf}", 0, self.copies) for leaf in leaves]

    def input_members(self, name: str, n: int, offsets: Sequence[int]) -> list[Member]:
        """What belongs to ``n`` input copies that enter once at each of the offsets."""
        return [
            Member.span(f"{name}.weight", 1, n, *offsets, reads=True),
            Member.span(f"{name}.coefficient", 0, n, *offsets, reads=True),
        ]
