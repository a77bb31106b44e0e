"""Monte Carlo dropout for any torch network that has dropout modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from egnn_prune.errors import ConfigError
from egnn_prune.uncertainty.ensemble import pooled
from egnn_prune.uncertainty.estimator import Estimator, Predicted, as_prediction


def dropout_modules(network: nn.Module) -> list[nn.Module]:
    """The dropout modules of a network that have a probability above zero."""
    return [m for m in network.modules() if isinstance(m, _DropoutNd) and m.p > 0]


class ModuleDropout(Estimator):
    """Samples a network with ``nn.Dropout`` and its kin (Gal and Ghahramani 2016, Eq. 6).

    Only dropout is in training mode: batch norm keeps its running statistics. The seed decides the
    masks, so the same batch gives the same prediction, and the global random state is left as it
    was. But ``nn.Dropout`` draws one mask for every *row* of a batch: unlike the thinned networks
    of :class:`~egnn_prune.uncertainty.MCDropout`, a sample is no single network, and a row's
    prediction depends on its place in the batch. Dropout that is no module (``F.dropout``, or
    inside attention) stays off.

    Args:
        network: returns logits ``[B, C]`` or a prediction.
        samples: passes through the network.
        seed: of the masks.

    Raises:
        ConfigError: the network has no dropout module, or there are fewer than two samples.
    """

    def __init__(self, network: nn.Module, samples: int = 20, seed: int = 0) -> None:
        super().__init__(network)
        if samples < 2:
            raise ConfigError(f"Monte Carlo dropout needs at least 2 samples, not {samples}")
        if not dropout_modules(network):
            raise ConfigError(
                f"{type(network).__name__} has no dropout to sample from; put an nn.Dropout with "
                "p above 0 into it"
            )
        self.samples, self.seed = samples, seed

    def estimate(self, batch: Any) -> Predicted:
        """Pool the passes as members."""
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.seed)
            for dropout in dropout_modules(self.network):  # the caller puts the modes back
                dropout.train()
            return pooled([as_prediction(self.network(batch)) for _ in range(self.samples)])

    def settings(self) -> dict[str, Any]:
        """Number of passes and seed of the masks."""
        return {"samples": self.samples, "seed": self.seed}
