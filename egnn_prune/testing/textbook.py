"""The published EGNN layer, plain and slow: what ours is compared with, in numbers and in time.

The operations are those of the authors' code (Satorras et al. 2021, ``E_GCL`` with an activation
after the second edge layer), in its order: gathered features of both ends are concatenated, and
sums over edges are scattered number by number. "Faster than the reference" means this one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from egnn_prune.models import EGNN


def mlp(wide: int, hidden: int, out: int, *, bias: bool = True) -> nn.Sequential:
    """Two linear layers with SiLU between them."""
    return nn.Sequential(nn.Linear(wide, hidden), nn.SiLU(), nn.Linear(hidden, out, bias=bias))


def segment_sum(values: Tensor, segment: Tensor, segments: int) -> Tensor:
    """``[E, C] -> [segments, C]``, the sum of the rows that belong to each segment."""
    index = segment[:, None].expand(-1, values.shape[1])
    return values.new_zeros(segments, values.shape[1]).scatter_add_(0, index, values)


def segment_mean(values: Tensor, segment: Tensor, segments: int) -> Tensor:
    """The mean of the rows that belong to each segment, zero where there are none."""
    count = segment_sum(torch.ones_like(values), segment, segments)
    return segment_sum(values, segment, segments) / count.clamp(min=1)


class TextbookLayer(nn.Module):
    """One round of messages (Eqs. 3-6).

    Args:
        hidden: width of everything.
        edge_features: columns of the edges' features.
        eps: smoothing length of normalised differences; ``None`` leaves them as they are, as
            Eq. 4 does. (The authors' option divides by the length itself, without gradient.)
        mean_moves: whether displacements are averaged over the neighbours, or summed.
    """

    def __init__(
        self, hidden: int, edge_features: int, eps: float | None, mean_moves: bool
    ) -> None:
        super().__init__()
        self.eps, self.mean_moves = eps, mean_moves
        self.phi_e = mlp(2 * hidden + 1 + edge_features, hidden, hidden).append(nn.SiLU())
        self.phi_x = mlp(hidden, hidden, 1, bias=False)
        self.phi_h = mlp(2 * hidden, hidden, hidden)

    def forward(
        self, h: Tensor, x: Tensor, edge_index: Tensor, attr: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Features and positions after the round."""
        j, i = edge_index
        d = x[i] - x[j]
        r2 = (d**2).sum(1)[:, None]
        parts = [h[i], h[j], r2] + ([] if attr is None else [attr])
        m = self.phi_e(torch.cat(parts, dim=1))  # Eq. 3
        if self.eps is not None:
            d = d / (r2 + self.eps**2).sqrt()
        step = d * self.phi_x(m)
        gather = segment_mean if self.mean_moves else segment_sum
        x = x + gather(step, i, len(x))  # Eq. 4
        received = segment_sum(m, i, len(h))  # Eq. 5
        return h + self.phi_h(torch.cat([h, received], dim=1)), x  # Eq. 6


class TextbookEGNN(nn.Module):
    """The same function as an :class:`EGNN` with sums over messages and no further option."""

    def __init__(self, ours: EGNN) -> None:
        super().__init__()
        options = ours.options
        self.embedding = nn.Linear(ours.in_features, ours.hidden)
        self.layers = nn.ModuleList(
            TextbookLayer(
                ours.hidden,
                options.edge_features,
                options.eps if options.normalise else None,
                options.position_aggregation == "mean",
            )
            for _ in ours.layers
        )
        self.to(ours.embedding.weight.device, ours.embedding.weight.dtype)
        _copy(ours.embedding, self.embedding)
        for theirs, layer in zip(self.layers, ours.layers, strict=True):
            for mlp, name in (("phi_e", "edge"), ("phi_x", "position"), ("phi_h", "node")):
                for index, end in (("0", "in"), ("2", "out")):
                    linear = theirs.get_submodule(f"{mlp}.{index}")
                    _copy(layer.get_submodule(f"{name}_{end}"), linear)

    def forward(
        self, x: Tensor, pos: Tensor, edge_index: Tensor, attr: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features and positions after the last round."""
        h = self.embedding(x)
        for layer in self.layers:
            h, pos = layer(h, pos, edge_index, attr)
        return h, pos


def _copy(ours: nn.Module, theirs: nn.Module) -> None:
    """Weights as they act: those of pruned channels are zero while a mask is on."""
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(getattr(ours, name))
