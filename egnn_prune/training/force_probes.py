"""What channels do to the forces, asked without any labels."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.graphs import graph_of_node, graph_pointer


class ForceProbes:
    r"""Forces along random directions, a "loss" ``(model, batch) -> [B]`` for scores at gates.

    .. math:: L_b = \sum_{i \in b} v_i \cdot F_i, \qquad v_{ic} \sim N(0, 1)

    With the criterion ``fisher``, half the mean squared gradient by a gate, it is the label-free
    force score :math:`\tfrac12 \mathrm{E}_v (v \cdot \partial F / \partial g_c)^2 = \tfrac12
    \lVert \partial F / \partial g_c \rVert^2`: the Gauss-Newton estimate of how far the forces move
    when channel c goes. Source: ours; Gauss-Newton as in Schraudolph 2002.

    Args:
        seed: of the directions, which are others in every call.

    Example:
        >>> pruned = prune(model, "fisher", 0.5, data=batches, loss=ForceProbes())
    """

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        """One number for each graph, differentiable by gates and weights."""
        batch = copy.copy(batch)
        batch.pos = batch.pos.detach().requires_grad_(True)
        with torch.enable_grad():
            energy = model(batch).mean.sum()
            (slope,) = torch.autograd.grad(energy, batch.pos, create_graph=True)
        noise = torch.randn(slope.shape, generator=self.generator, dtype=torch.float64)
        along = -(slope * noise.to(slope)).sum(1)
        graphs = graph_pointer(batch).shape[0] - 1
        return along.new_zeros(graphs).index_add(0, graph_of_node(batch), along)
