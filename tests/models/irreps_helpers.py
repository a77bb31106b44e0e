"""Small irreps networks to test, their outputs, and masked copies of them."""

from __future__ import annotations

import copy

import torch
from torch_geometric.data import Data

from egnn_prune.pruning import apply_masks, choose

FEATURES = 5
SPARSITIES = (0.0, 0.2, 0.4, 0.6, 0.8)


def seen(net):
    """The network with its first vector under the name that the equivariance check knows."""

    def run(batch):
        out = net(batch)
        return Data(x=out.x, vel=out.vec[:, 0]) if net.options.vectors else Data(x=out.x)

    return run


def masked_at(model, sparsity, seed=0, empty=()):
    """A masked copy; whole groups in ``empty`` are gone."""
    groups = model.channel_groups()
    generator = torch.Generator().manual_seed(seed)
    scores = {g.name: torch.rand(g.n, generator=generator) for g in groups}
    keep = choose(scores, sparsity, groups=groups)
    for name in empty:
        keep[name].fill_(False)
    masked = copy.deepcopy(model)
    apply_masks(masked, keep, groups)
    return masked


def numbers(net, batch):
    """All outputs in a row, without the zeros of scalars that were masked."""
    out = net(batch)
    parts = [out.x[:, (out.x != 0).any(0)]] + ([out.vec] if net.options.vectors else [])
    return torch.cat([p.flatten() for p in parts])


def size(model):
    return sum(p.numel() for p in model.parameters())


def slopes(model, batch, step=1e-5):
    """Minus central differences of the energy."""
    out = torch.zeros_like(batch.pos)
    for node in range(len(batch.pos)):
        for axis in range(3):
            energies = []
            for sign in (1, -1):
                moved = copy.copy(batch)
                moved.pos = batch.pos.clone()
                moved.pos[node, axis] += sign * step
                with torch.no_grad():
                    energies.append(model(moved).mean.sum())
            out[node, axis] = -(energies[0] - energies[1]) / (2 * step)
    return out
