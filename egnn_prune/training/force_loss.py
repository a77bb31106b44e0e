"""Energies and forces learned together."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from egnn_prune.errors import ConfigError, DataError
from egnn_prune.prediction import members_of
from egnn_prune.training.loss import (
    VARIANCE_WEIGHT,
    likelihood_terms,
    normalised_outputs,
    per_graph,
    weighted,
)

#: Error (in units of the force scale) below which the loss is quadratic: 1 % of the RMS force.
HUBER_BETA = 0.01


class ForceLosses:
    r"""Loss of energies and their gradients, ``losses(model, batch) -> [B]``.

    .. math::
        L_b = \frac1M \sum_m \text{Huber}_\beta\!\left(\frac{E_{mb} - E_b}{s}\right)
            + \frac{w}{3 N_b} \sum_{i \in b} \sum_c
              \text{Huber}_\beta\!\left(\frac{F_{ic} - F_{ic}^\text{ref}}{s}\right)
            + \lambda\, \text{NLL}_b

    F is the exact negative gradient of the members' mean energy, s the model's scale (for force
    training the root mean square of the training forces times one unit of length, as in NequIP,
    Batzner et al. 2022), and the last term fits the variances to the energy's errors without moving
    the means (as in :func:`~egnn_prune.training.graph_losses`). Huber's function grows linearly, so
    a few strained configurations do not dominate.

    Args:
        weight: w, the weight of the forces.

    Raises:
        ConfigError: the weight is not positive; (in a call) the model predicts no energies.
        DataError: (in a call) the batch has no forces.
    """

    def __init__(self, weight: float) -> None:
        if not 0 < weight < float("inf"):
            raise ConfigError(f"training.force_weight must be positive, not {weight}")
        self.weight = weight

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        """The losses; differentiable again where gradients are on."""
        reference = getattr(batch, "forces", None)
        if reference is None or reference.shape != batch.pos.shape:
            raise DataError(
                "training on forces needs forces [atoms, 3] with every structure; set "
                "training.force_weight=0 for data without"
            )
        keep = torch.is_grad_enabled()
        batch = copy.copy(batch)
        batch.pos = batch.pos.detach().requires_grad_(True)
        with torch.enable_grad():
            means, variances, y = normalised_outputs(model, batch)
            if means.shape[-1] != len(y) or means.dim() != 2:
                raise ConfigError("training on forces needs a model of one energy per graph")
            (gradient,) = torch.autograd.grad(
                means.mean(0).sum(), batch.pos, create_graph=keep, materialize_grads=True
            )
            y = y.expand_as(means)
            energy = F.smooth_l1_loss(means, y, beta=HUBER_BETA, reduction="none")
            spread = likelihood_terms(means, variances, y)
            losses = (energy + VARIANCE_WEIGHT * spread).mean(0)
            wanted = (-reference / _scale(model)).to(gradient.dtype)
            force = F.smooth_l1_loss(gradient, wanted, beta=HUBER_BETA, reduction="none")
            losses = losses + self.weight * per_graph(force, batch).to(losses.dtype)
            losses = weighted(losses, batch)
        return losses if keep else losses.detach()


def _scale(model: nn.Module) -> float:
    """The unit of the normalised energy, which the members of an ensemble share."""
    first: Any = members_of(model)[0]
    return first.scale.scale
