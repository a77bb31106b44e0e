"""The EGNN exactly as the paper writes it, slow and plain: what ours is compared with.

Satorras et al. 2021, Eqs. 3-6, with the differences divided by their (smoothed) length and a
residual connection.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from egnn_prune.models import EGNN


def mlp(wide: int, hidden: int, out: int, *, bias: bool = True) -> nn.Sequential:
    """Two linear layers with SiLU between them."""
    return nn.Sequential(nn.Linear(wide, hidden), nn.SiLU(), nn.Linear(hidden, out, bias=bias))


class TextbookLayer(nn.Module):
    """One round of messages (Eqs. 3-6)."""

    def __init__(self, hidden: int, edge_features: int, eps: float, mean_moves: bool) -> None:
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
        r2 = d.square().sum(-1, keepdim=True)
        parts = [h[i], h[j], r2] + ([] if attr is None else [attr])
        m = self.phi_e(torch.cat(parts, dim=-1))  # Eq. 3
        step = d / (r2 + self.eps**2).sqrt() * self.phi_x(m)
        shift = torch.zeros_like(x).index_add(0, i, step)  # Eq. 4
        if self.mean_moves:
            degree = torch.zeros_like(x[:, :1]).index_add(0, i, torch.ones_like(r2))
            shift = shift / degree.clamp(min=1)
        received = h.new_zeros(len(h), m.shape[1]).index_add(0, i, m)  # Eq. 5
        return h + self.phi_h(torch.cat([h, received], dim=-1)), x + shift  # Eq. 6


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
                options.eps,
                options.position_aggregation == "mean",
            )
            for _ in ours.layers
        )
        self.to(ours.embedding.weight.device, ours.embedding.weight.dtype)
        self.embedding.load_state_dict(ours.embedding.state_dict())
        for theirs, layer in zip(self.layers, ours.layers, strict=True):
            for mlp, name in (("phi_e", "edge"), ("phi_x", "position"), ("phi_h", "node")):
                for index, end in (("0", "in"), ("2", "out")):
                    weights = layer.get_submodule(f"{name}_{end}").state_dict()
                    theirs.get_submodule(f"{mlp}.{index}").load_state_dict(weights)

    def forward(
        self, x: Tensor, pos: Tensor, edge_index: Tensor, attr: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features and positions after the last round."""
        h = self.embedding(x)
        for layer in self.layers:
            h, pos = layer(h, pos, edge_index, attr)
        return h, pos
