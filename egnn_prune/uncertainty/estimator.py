"""The interface of every uncertainty method: ``fit`` where needed, then ``predict``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import torch
from torch import Tensor, nn

from egnn_prune.channels import evaluating
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.prediction import ClassPrediction, Prediction

Predicted = Prediction | ClassPrediction


class Estimator(nn.Module):
    """A network that says how sure it is.

    A module, so that what was fitted (a covariance, a calibration) moves and is saved with the
    network. Subclasses override :meth:`estimate`, and :meth:`fit` where something is fitted.
    Networks that return a :class:`Prediction` are regressors, networks that return logits
    ``[B, C]`` classifiers.

    Args:
        network: the network, trained.

    Attributes:
        atoms: error bars of the forces on atoms
            (:class:`~egnn_prune.uncertainty.AtomErrorBars`), where some were fitted.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.atoms: nn.Module | None = None

    def fit(self, batches: Iterable[Any]) -> Self:
        """Fit what the method needs on *training* batches (nothing, unless a subclass does)."""
        return self

    def estimate(self, batch: Any) -> Predicted:
        """The prediction with autograd; the network is in evaluation mode."""
        raise NotImplementedError

    def forward(self, batch: Any) -> Predicted:
        """Predict in evaluation mode, differentiably; every module's mode is left as it was."""
        with evaluating(self):
            return self.estimate(batch)

    def predict(self, batch: Any) -> Predicted:
        """Predict without gradients.

        Raises:
            InputError: the prediction is NaN or infinite, which says that a weight or the input is.
        """
        with torch.no_grad():
            return finite(self(batch))

    def settings(self) -> dict[str, Any]:
        """Constructor arguments without the network, as plain JSON."""
        return {}


class SinglePass(Estimator):
    """What one deterministic pass of the network says.

    The estimator of mean-variance networks (Nix and Weigend 1994), of shallow ensembles (Kellner
    and Ceriotti 2024: read-outs that share the trunk and so the cost) and of deep ensembles.
    """

    def estimate(self, batch: Any) -> Predicted:
        """One pass."""
        return as_prediction(self.network(batch))


class Sampling(Estimator):
    """What draws several networks from a seed.

    Args:
        network: the network, trained.
        samples: number of draws, at least two.
        seed: of the draws, the same for every batch.
    """

    def __init__(self, network: nn.Module, samples: int = 20, seed: int = 0) -> None:
        super().__init__(network)
        if samples < 2:
            raise ConfigError(f"Monte Carlo dropout needs at least 2 samples, not {samples}")
        self.samples, self.seed = samples, seed

    def settings(self) -> dict[str, Any]:
        """Number and seed of the draws."""
        return {"samples": self.samples, "seed": self.seed}


def as_prediction(output: Any) -> Predicted:
    """A network's output as a prediction: logits ``[B, C]`` become those of one member.

    Raises:
        ConfigError: it is neither a prediction nor logits.
    """
    if isinstance(output, Prediction | ClassPrediction):
        return output
    if isinstance(output, Tensor) and output.dim() == 2 and output.shape[1] > 1:
        return ClassPrediction(output[None])
    found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise ConfigError(
        f"an uncertainty method needs a network that returns a Prediction or logits "
        f"[samples, classes], not {found}; wrap a regression network of your own in "
        "egnn_prune.adapters.OwnRegressor"
    )


def finite(prediction: Predicted) -> Predicted:
    """The prediction, unless something in it is NaN or infinite.

    Raises:
        InputError: names the member where only some members are broken.
    """
    parts = vars(prediction)
    if all(bool(torch.isfinite(value).all()) for value in parts.values()):
        return prediction
    members = parts["logits"] if "logits" in parts else parts["members"]
    broken = [i for i, m in enumerate(members) if not bool(torch.isfinite(m).all())]
    which = f"member {broken[0]} of {len(members)} predicts" if broken else "the model predicts"
    raise InputError(f"{which} NaN or infinity; check the input and the weights of the model")
