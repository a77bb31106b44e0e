"""Monte Carlo dropout in which every sample is one MC-dropout sample."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from egnn_prune.channels import ChannelGate, dropout_masks, evaluating, gates
from egnn_prune.errors import ConfigError
from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty.estimator import Sampling

#: Thinned networks that pass messages side by side on a GPU, which wants large products. On a CPU
#: they take turns, because the activations of several leave its caches (measured at batch 32 and
#: hidden 64: 20 networks cost as much as 20 passes one by one, 23 two by two, 28 four by four).
SIDE_BY_SIDE = 8


class Sampled(Protocol):
    """A model whose forward pass can hold several MC-dropout samples side by side."""

    def __call__(self, batch: Any, samples: int = 1) -> Prediction:
        """Predict; the outputs of the ``samples`` networks become members."""
        ...


def dropped_gates(model: nn.Module) -> list[ChannelGate]:
    """The gates of a model that have a dropout probability above zero."""
    return [gate for _, gate in gates(model) if gate.p > 0]


def draw_networks(
    model: nn.Module, samples: int, generator: torch.Generator | None = None
) -> list[Tensor]:
    """Draw MC-dropout samples: for each gate with dropout a mask ``[samples, width]``.

    One value per channel is shared by all nodes, edges and graphs of a sample. So each sample is
    as equivariant as the whole network, and its forces are conservative. A compact model, whose
    gates remember their dense width, draws the same networks as the masked model.
    """
    return [gate.draw(samples, generator) for gate in dropped_gates(model)]


@contextmanager
def dropout_samples(model: nn.Module, masks: list[Tensor]) -> Iterator[None]:
    """Within this context the model is the MC-dropout samples that ``masks`` describe.

    In this thread only: others may use the model at the same time, whole or thinned otherwise.
    """
    with dropout_masks(dict(zip(dropped_gates(model), masks, strict=True))):
        yield


def mc_dropout(
    model: nn.Module,
    batch: Any,
    samples: int = 20,
    *,
    generator: torch.Generator | None = None,
    samples_per_call: int | None = None,
    masks: list[Tensor] | None = None,
) -> Prediction:
    """Predict with several MC-dropout samples (Gal and Ghahramani 2016, Eq. 6).

    Only dropout is active: the model is in evaluation mode otherwise, and is left as it was.
    Several threads may share a model: masks belong to the call.

    Args:
        model: a model whose forward pass takes ``samples`` (see :class:`Sampled`).
        batch: what the model takes.
        samples: number of networks T.
        generator: source of the masks; the same seed draws the same networks for every batch.
        samples_per_call: how many networks run side by side; the result does not depend on it
            beyond rounding. By default 1 on a CPU, 8 on a GPU, or all of them where only the
            read-out is thinned, because then message passing runs once a call.
        masks: networks that :func:`draw_networks` drew before, instead of new ones.

    Raises:
        ConfigError: the model has no dropout, or fewer than two samples are asked for.
    """
    if samples < 2:
        raise ConfigError(f"Monte Carlo dropout needs at least 2 samples, not {samples}")
    if not dropped_gates(model):
        raise ConfigError("the model has no dropout to sample from; set model.dropout above 0")
    if samples_per_call is None:
        samples_per_call = side_by_side(model) if thins_message_passing(model) else samples
    masks = draw_networks(model, samples, generator) if masks is None else masks
    prepared = getattr(model, "prepared", None)
    if prepared is not None:
        batch = prepared(batch)  # checked, encoded and connected once, not once a call
    parts = []
    with evaluating(model):
        for start in range(0, samples, samples_per_call):
            chunk = [m[start : start + samples_per_call] for m in masks]
            with dropout_samples(model, chunk):
                parts.append(model(batch, samples=len(chunk[0])))
    return Prediction.stack(parts)


def side_by_side(model: nn.Module) -> int:
    """How many MC-dropout samples to run in one call, by the device of the model."""
    return 1 if next(model.parameters()).device.type == "cpu" else SIDE_BY_SIDE


def thins_message_passing(model: nn.Module) -> bool:
    """Whether a gate with dropout lies in message passing (or the model does not say what does)."""
    passing = getattr(model, "message_passing_modules", lambda: [""])()
    return any(
        gate.p > 0 and any(not prefix or name.startswith(f"{prefix}.") for prefix in passing)
        for name, gate in gates(model)
    )


class MCDropout(Sampling):
    """Monte Carlo dropout as an :class:`Estimator`: the same MC-dropout samples for every batch.

    Args:
        network: a model with dropout whose forward pass takes ``samples``.
        samples: number of MC-dropout samples.
        seed: of the networks.

    Raises:
        ConfigError: the network has no dropout, or there are fewer than two samples.
    """

    def __init__(self, network: nn.Module, samples: int = 20, seed: int = 0) -> None:
        super().__init__(network, samples, seed)
        self.drawn: list[Tensor] | None = None
        if not dropped_gates(network):
            raise ConfigError(
                "the model has no dropout to sample from; set model.dropout above 0, or use "
                "ModuleDropout for a network with nn.Dropout layers"
            )

    def estimate(self, batch: Any) -> Prediction:
        """Mean and spread of the MC-dropout samples."""
        return mc_dropout(self.network, batch, self.samples, masks=self.masks())

    def masks(self) -> list[Tensor]:
        """The networks, see :func:`draw_networks`; the same in every call."""
        if self.drawn is not None:
            return self.drawn
        generator = torch.Generator().manual_seed(self.seed)
        return draw_networks(self.network, self.samples, generator)

    def holding(self) -> MCDropout:
        """The same estimator (not a copy of its network), which draws its networks now for good."""
        twin = copy.copy(self)
        twin.drawn = self.masks()
        return twin
