"""How far the features of an atom lie from those of the atoms that a network was trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from egnn_prune.errors import ConfigError, InputError

#: Share of the mean eigenvalue that is added to all of them: directions in which the training
#: atoms do not differ would make every other atom infinitely far.
RIDGE = 1e-4


class FullPrecision(nn.Module):
    """A module whose numbers stay as they were fitted where the network around it is cast.

    ``model.to(torch.float32)`` moves them and keeps float64: inverse covariances span more orders
    of magnitude than float32 has digits.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Take the device of what ``fn`` makes of a tensor, and no more."""
        move: Any = lambda tensor: tensor.to(fn(tensor).device)  # noqa: E731
        return super()._apply(move, recurse)


class AtomDistance(FullPrecision):
    r"""Mahalanobis distance to the training atoms of the same element.

    With features :math:`\phi_i` of F numbers, and mean and covariance of those of the training
    atoms of the element z,

    .. math::
        d_i^2 = \tfrac1F (\phi_i - \mu_z)^T
                \Bigl(\Sigma_z + \lambda \tfrac{\text{tr} \Sigma_z}{F} I\Bigr)^{-1} (\phi_i - \mu_z)

    so that training atoms have about 1. The covariance of an element with few atoms is drawn to
    the one of all atoms about their elements' means, with the weight of F atoms. It costs one
    product of the features and no further pass. Source: Lee et al. 2018, Eq. 2, there with one
    covariance for all classes.

    Shapes:
        ``features [N, F]``, ``z [N]`` -> ``[N]`` in float64, infinite for elements without
        training atoms; computed where the buffers are, and returned where the features are.
    """

    elements: Tensor
    centre: Tensor
    whitening: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("elements", torch.empty(0, dtype=torch.long))
        self.register_buffer("centre", torch.empty(0, 0, dtype=torch.float64))
        self.register_buffer("whitening", torch.empty(0, 0, 0, dtype=torch.float64))

    def fit(self, features: Tensor, z: Tensor) -> Self:
        """Means and covariances of training atoms.

        Args:
            features: ``[N, F]``.
            z: ``[N]``, their elements.

        Raises:
            ConfigError: there are none, or a feature is NaN or infinite.
        """
        features = features.detach().double()
        if not len(features) or not bool(features.isfinite().all()):
            raise ConfigError(
                "distances are measured from training atoms; there are none, or the network's "
                "features of them are NaN or infinite"
            )
        elements, kind = z.unique(return_inverse=True)
        width = features.shape[1]
        centre = torch.stack([features[kind == k].mean(0) for k in range(len(elements))])
        away = features - centre[kind]
        shared = away.T @ away / len(away)
        parts = []
        for k in range(len(elements)):
            own = away[kind == k]
            covariance = (own.T @ own + width * shared) / (len(own) + width)
            values, vectors = torch.linalg.eigh(covariance)
            values = values.clamp(min=0)
            ridge = RIDGE * values.mean().clamp(min=torch.finfo(values.dtype).tiny)
            parts.append(vectors / ((values + ridge) * width).sqrt())
        self.elements, self.centre, self.whitening = elements, centre, torch.stack(parts)
        return self

    def forward(self, features: Tensor, z: Tensor) -> Tensor:
        """The distance of every atom.

        Raises:
            ConfigError: nothing was fitted.
            InputError: it was fitted to another network.
        """
        if not len(self.elements):
            raise ConfigError("fit the distance on training atoms before measuring it")
        if features.shape[1] != self.centre.shape[1]:
            raise InputError(
                f"distances of atoms were fitted to {self.centre.shape[1]} features, but the "
                f"network has {features.shape[1]}: fit its error bars again"
            )
        here = features.to(self.centre)
        kinds = z.to(here.device)
        found = here.new_full((len(z),), torch.inf)
        for k, element in enumerate(self.elements.tolist()):
            own = (kinds == element).nonzero().flatten()
            away = here.index_select(0, own) - self.centre[k]
            found = found.index_copy(0, own, (away @ self.whitening[k]).norm(dim=1))
        return found.to(features.device)
