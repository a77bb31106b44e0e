"""The members of a committee: networks of the small one's shape, each trained on its own draw."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from egnn_prune.pipeline.run_context import Outputs, say
from egnn_prune.pipeline.specialise_context import CUT, PRUNED, SpecialiseContext, about_fit

#: How far apart members begin, as a share of the weights: far less than a fit moves them.
JITTER = 0.05


def committee(job: SpecialiseContext, first: nn.Module) -> nn.Module:
    """The small network and others of its shape, each trained on a draw of the structures.

    Every member is a stage of its own, so that an interrupted run goes on with the next one.

    Args:
        job: of which the members are.
        first: the small network, trained on all structures.
    """
    from egnn_prune.adapters import Committee

    paths = []
    for number in range(1, job.settings.uncertainty.members):
        paths.append(f"stages/member_{number}.safetensors")
        work = partial(train_member, job, number, paths[-1])
        job.folder.stage(f"member_{number}", CUT, (paths[-1],), work)
    return Committee([first, *map(job.load, paths)])


def train_member(job: SpecialiseContext, number: int, path: str) -> Outputs:
    """A member other than the first."""
    say(f"  member {number + 1} of {job.settings.uncertainty.members} of the committee")
    model = jittered(job.load(PRUNED), job.settings.seed + number)
    found = job.fit(f"member {number + 1}", model, draw=number)
    job.save(model, path)
    return about_fit(found)


def jittered(model: nn.Module, seed: int) -> nn.Module:
    """The network with its weights moved a little, each tensor by :data:`JITTER` of its size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            weight.add_(JITTER * weight.square().mean().sqrt() * noise)
    return model
