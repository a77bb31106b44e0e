"""A student's read-out features drawn to its teacher's, beside energies and forces."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.channels import evaluating
from egnn_prune.errors import ConfigError
from egnn_prune.graphs import graph_pointer
from egnn_prune.training.batch_losses import Losses
from egnn_prune.training.potential_loss import PotentialLosses


class FeatureLosses:
    r"""Another loss, and how far the last layer's features are from the teacher's, ``[B]``.

    .. math::
        L_b + \frac{w}{K} \sum_k \left(\frac{h_{bk} - h^T_{bk}}{\sqrt{N_b}}\right)^2

    with the K features that the read-out's last weights are multiplied with, summed over a graph's
    atoms, in the energy's unit. They say where in the network an error begins, not only its sum
    (Romero et al. 2015, hints). Costs a pass of both networks a step.

    Args:
        teacher: has ``last_layer(batch) -> (features [B, K], prediction)``; its device must be
            where the student is trained.
        weight: w, in 1/eV^2.
        losses: L, by default :class:`~egnn_prune.training.PotentialLosses`.

    Raises:
        ConfigError: the weight is not positive, a network does not show its features, or (in a
            call) the two have different widths.
    """

    def __init__(self, teacher: nn.Module, weight: float, losses: Losses | None = None) -> None:
        if not 0 < weight < float("inf"):
            raise ConfigError(f"the weight of the features must be positive, not {weight}")
        self.teacher, self.weight = teacher, weight
        self.losses = losses or PotentialLosses()
        _last_layer(teacher)

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        """The losses; the teacher gets no gradient."""
        losses = self.losses(model, batch)
        with torch.no_grad(), evaluating(self.teacher):
            wanted, _ = _last_layer(self.teacher)(batch)
        found, _ = _last_layer(model)(batch)
        if found.shape != wanted.shape:
            raise ConfigError(
                f"the student's last layer reads {found.shape[1]} features and the teacher's "
                f"{wanted.shape[1]}; leave out the loss of features, or keep the read-out's width"
            )
        root = graph_pointer(batch).diff().double().sqrt()[:, None]
        wrong = (found.double() - wanted.double()) / root
        return losses + self.weight * wrong.square().mean(1)


def _last_layer(model: Any) -> Any:
    if not callable(getattr(model, "last_layer", None)):
        raise ConfigError(
            f"{type(model).__name__} has no last_layer(batch) that shows its features; leave out "
            "the loss of features"
        )
    return model.last_layer
