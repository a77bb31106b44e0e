"""What the surviving weights start from after pruning: kept, rewound, or drawn again."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from egnn_prune.channels import Prunable
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.masks import mask_of
from egnn_prune.pruning.tensors import get_original, parameter_names


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters, to be rewound to: at initialisation, or after a few epochs.

    Of frozen entries the value at which they are held; of pruned ones what lies behind the mask.
    """
    weights = {}
    for name in parameter_names(model):
        weights[name], state = get_original(model, name).detach().clone(), mask_of(model, name)
        if state is not None:  # weight decay goes on behind what is frozen
            weights[name] = torch.where(state.frozen, state.value, weights[name])
    return weights


@torch.no_grad()
def rewind(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Set the surviving weights, in place, to what they were; pruned and frozen ones stay held.

    To initialisation: the lottery ticket (Frankle and Carbin 2019); to an early epoch: its
    stabilised form (Frankle et al. 2020). The moments of an optimiser belong to the old weights:
    start a new one.

    Raises:
        ConfigError: names or shapes differ, such as for a :func:`snapshot` of another model.
    """
    names = parameter_names(model)
    for name in names:
        now = get_original(model, name)
        if name not in weights or weights[name].shape != now.shape:
            raise ConfigError(
                f"the snapshot has no {name} of shape {tuple(now.shape)}; rewind a masked model, "
                "before it is made compact, to a snapshot of the same dense model"
            )
    for name in names:
        get_original(model, name).copy_(weights[name])


def reinitialise(model: Prunable, seed: int) -> None:
    """Draw the surviving weights again, in place: the control that a lottery ticket has to beat.

    Running statistics of normalisations start anew as well: they belong to the old weights.

    Args:
        model: a masked model; ``resized`` draws fresh weights, as a constructor does, and layers
            of third-party networks draw theirs by ``reset_parameters``.
        seed: of the draw; the global generator is left as it was.
    """
    like = next(model.parameters())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        everything = {g.name: torch.arange(g.n) for g in model.channel_groups()}
        fresh = model.resized(everything).to(like)
        if getattr(fresh, "resized_copies", False):  # nobody knows its constructor's arguments
            for module in fresh.modules():
                getattr(module, "reset_parameters", lambda: None)()
    rewind(model, snapshot(fresh))
    for module in model.modules():
        if isinstance(module, _NormBase):
            module.reset_running_stats()
