"""The label-free score of a channel: how far the forces move along random directions."""

import torch
from small_adopted import potential, structures

from egnn_prune.models import energy_and_forces
from egnn_prune.pruning import Context, score_channels
from egnn_prune.pruning.criteria.gate_passes import opened_gates
from egnn_prune.training import ForceProbes


def test_they_are_the_forces_along_the_drawn_directions():
    model, batch = potential(), structures(4, 6)
    _, forces = energy_and_forces(model, batch)
    noise = torch.randn(10, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    along = (forces * noise).sum(1)
    wanted = torch.stack([along[:4].sum(), along[4:].sum()])
    assert torch.allclose(ForceProbes(3)(model, batch), wanted, atol=1e-10)


def test_fisher_of_probes_is_the_squared_change_of_the_forces():
    """Over many directions: half the squared norm of the derivative of all forces by a gate."""
    model, batch = potential(), structures(5)
    groups = [g for g in model.channel_groups() if g.name == "network.layers.1.conv.1e"]
    context = Context(model, groups, [batch] * 200, ForceProbes(0))
    (scores,) = score_channels("fisher", context).values()
    gate = model.network.layers[1].conv_gate["1e"]
    step, moved = 1e-4, []
    for channel in range(groups[0].n):
        pair = []
        for sign in (1, -1):
            value = torch.ones(1, groups[0].n, dtype=torch.float64)
            value[0, channel] += sign * step
            with opened_gates([gate], [value]):
                pair.append(energy_and_forces(model, batch)[1])
        moved.append(((pair[0] - pair[1]) / (2 * step)).square().sum())
    wanted = 0.5 * torch.stack(moved)
    assert torch.allclose(scores, wanted, rtol=0.4)  # a mean of 200 squares: 10 % each
