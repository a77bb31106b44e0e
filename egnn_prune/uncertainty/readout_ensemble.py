"""An ensemble of read-outs that nobody has to train: draws from the last layer's posterior."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from egnn_prune.errors import ConfigError
from egnn_prune.uncertainty.estimator import Estimator, Predicted
from egnn_prune.uncertainty.last_layer import PredictionRigidity, linear_out


class ReadoutEnsemble(Estimator):
    r"""Members whose read-outs are drawn from the last layer's posterior (LLPR ensemble).

    With the features :math:`\phi_b` that the network's mean is linear in and the covariance
    :math:`\Sigma` of :class:`~egnn_prune.uncertainty.PredictionRigidity`,

    .. math::
        \mu_m(x) = \mu(x) + \delta_m^T \phi(x), \qquad \delta_m \sim N(0, \Sigma),
        \qquad \sum_m \delta_m = 0,

    so that the members' variance is an unbiased estimate of the rigidity's
    :math:`\phi^T \Sigma \phi` and their mean is the network's own. Unlike that closed form it
    carries through whatever is computed of the members, such as forces
    (:func:`~egnn_prune.models.energies_and_member_forces`: one pass forth, and one back for each
    member). Nothing is trained, and the draws are made once, in :meth:`fit`. As there, the scale
    is arbitrary: calibrate before you read the numbers. Sources: Bigi et al. 2024, Section 3;
    Kellner and Ceriotti 2024.

    Args:
        network: one with :meth:`LinearOut.last_layer`, such as a PropertyModel.
        members: number of read-outs, at least two.
        seed: of the draws.

    Raises:
        ConfigError: the network has no linear last layer, or there are fewer than two members.
    """

    deviations: Tensor

    def __init__(self, network: nn.Module, members: int = 16, seed: int = 0) -> None:
        super().__init__(network)
        linear_out(network)
        if members < 2:
            raise ConfigError(f"an ensemble of read-outs needs at least 2 members, not {members}")
        self.members, self.seed = members, seed
        self.register_buffer("deviations", torch.zeros(0, 0, dtype=torch.float64))

    def fit(self, batches: Iterable[Any]) -> Self:
        """Draw the members' weights, ``[M, features]``, from one pass over the training batches.

        Raises:
            ConfigError: there are no batches, or a feature is not finite.
        """
        covariance = PredictionRigidity(self.network).fit(batches).covariance
        values, vectors = torch.linalg.eigh(covariance)
        root = vectors * values.clamp(min=0).sqrt()
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.members, len(root))
        draws = torch.randn(shape, generator=generator, dtype=torch.float64).to(root)
        # M - 1 directions are left: as the unbiased variance divides
        self.deviations = (draws - draws.mean(0)) @ root.T
        return self

    def estimate(self, batch: Any) -> Predicted:
        """One pass; noise that the network states is left out, as in the rigidity."""
        if self.deviations.numel() == 0:
            raise ConfigError("fit an ensemble of read-outs on training batches before predicting")
        features, prediction = linear_out(self.network).last_layer(batch)
        spread = self.deviations.to(features) @ features.T
        members = prediction.mean + spread
        nothing = torch.zeros_like(prediction.mean)
        return replace(
            prediction,
            aleatoric=nothing,
            # of the deviations: next to energies of -20,000 eV their digits are lost
            epistemic=spread.square().sum(0) / (len(spread) - 1),
            members=members,
            member_variance=torch.zeros_like(members),
        )

    def settings(self) -> dict[str, Any]:
        """Number and seed of the draws."""
        return {"members": self.members, "seed": self.seed}
