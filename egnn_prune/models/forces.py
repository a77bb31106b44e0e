"""Forces as gradients of predicted energies, and how far the members disagree on them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from egnn_prune.channels import evaluating, gates
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.prediction import Prediction


def forces(model: nn.Module, batch: Batch | Data) -> Tensor:
    """Forces as the exact negative gradient of the mean energy, ``-dE/dpos [N, n]``.

    Unit: the target's unit per unit of length. Works in training (the graph is kept) and, with
    thinned networks, for one sample as for the mean of several: each is conservative.

    Raises:
        DataError: the batch cannot be used.
    """
    batch, samples = _movable(batch), thinned_networks(model)
    with torch.enable_grad():
        prediction = model(batch, samples=samples) if samples > 1 else model(batch)
        # zeros where nothing reads the positions: pruning may cut the last path to the read-out
        (gradient,) = torch.autograd.grad(
            prediction.mean.sum(),
            batch.pos,
            create_graph=model.training,
            materialize_grads=True,
        )
    return -gradient


def force_prediction(model: nn.Module, batch: Batch | Data) -> Prediction:
    r"""Forces with the disagreement of the members, each member's own exact gradient.

    .. math::
        F_{mi} = -\partial E_m / \partial x_i, \qquad
        F_i = \tfrac1M \sum_m F_{mi}, \qquad
        \sigma^2_{ic} = \tfrac1{M-1} \sum_m (F_{mic} - F_{ic})^2

    The mean is that of :func:`forces`. It turns with the molecule, and so does the covariance of
    the members, but ``epistemic`` holds its diagonal only: single components depend on the axes,
    their sum over an atom does not. The members' energies carry no noise model of their slopes,
    so ``aleatoric`` is zero. Source: Kellner and Ceriotti 2024 (forces of each member).

    Members are those of a shallow or deep ensemble, or the thinned networks of Monte Carlo
    dropout:

        >>> with thinned(model, draw_networks(model, 20, generator)):
        ...     prediction = force_prediction(model, batch)

    An estimator is a model too, but hand over its network where you can: of whatever pools its
    members, every member's gradient walks through all networks of the pool.

    Args:
        model: returns a :class:`Prediction` of energies ``[B]``.
        batch: the graphs.

    Returns:
        Mean and variances ``[N, n]`` and members ``[M, N, n]``, without autograd history, in the
        energy's unit per unit of length (squared).

    Raises:
        ConfigError: there is only one member.
        InputError: a member's forces are NaN or infinite.
        DataError: the batch cannot be used.
    """
    prepare: Any = getattr(model, "prepared", lambda same: same)  # one neighbour list for all
    with evaluating(model):
        members = _member_forces(model, prepare(batch))
    if len(members) < 2:
        raise ConfigError(
            "force uncertainty needs at least two members: an ensemble, or thinned networks (see "
            "egnn_prune.uncertainty.thinned)"
        )
    if not bool(members.isfinite().all()):  # a shared trunk spreads one member's NaN to all
        raise InputError(
            "the members' forces are NaN or infinite; check the input and the weights of the model"
        )
    return Prediction.from_members(members)


def _member_forces(model: nn.Module, batch: Batch | Data) -> Tensor:
    """``[M, N, n]``. What shares no weights runs alone: the gradient of one never sees another."""
    networks = getattr(model, "members", None)
    if isinstance(networks, nn.ModuleList):
        return torch.cat([_member_forces(network, batch) for network in networks])
    # one after another: side by side, the activations of thinned networks leave the caches
    thinned_trunks = thinned_networks(getattr(model, "trunk", model))
    if thinned_trunks > 1:
        parts = []
        for sample in range(thinned_trunks):
            with _one_of(model, sample):
                parts.append(_member_forces(model, batch))
        return torch.cat(parts)
    batch, samples = _movable(batch), thinned_networks(model)
    with torch.enable_grad():
        prediction = model(batch, samples=samples) if samples > 1 else model(batch)
        energies = prediction.members.flatten(1).sum(1)
        # one pass back per member: one that carries all of them (is_grads_batched) is no faster
        slopes = [
            torch.autograd.grad(energy, batch.pos, retain_graph=True, materialize_grads=True)[0]
            for energy in energies
        ]
    return -torch.stack(slopes)


@contextmanager
def _one_of(model: nn.Module, sample: int) -> Iterator[None]:
    """Within this context only one of the thinned networks is left."""
    masks = {gate: gate.thinning for _, gate in gates(model) if gate.thinning is not None}
    try:
        for gate, mask in masks.items():
            gate.thinning = mask[sample : sample + 1]
        yield
    finally:
        for gate, mask in masks.items():
            gate.thinning = mask


def thinned_networks(model: nn.Module) -> int:
    """How many networks a model holds side by side now: 1 where none of its gates is thinned."""
    return max((len(g.thinning) for _, g in gates(model) if g.thinning is not None), default=1)


def _movable(batch: Batch | Data) -> Batch | Data:
    """A copy of the batch whose positions are a leaf of the autograd graph."""
    batch = copy.copy(batch)
    batch.pos = batch.pos.detach().requires_grad_(True)
    return batch
