"""The loss of a batch when nobody names one: of this package's models, and of anybody's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from egnn_prune.adapters import AdoptedPotential, TracedNetwork
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.calling import call, is_graph, rows
from egnn_prune.training.loss import graph_losses
from egnn_prune.training.potential_loss import PotentialLosses

Losses = Callable[[nn.Module, Any], Tensor]


def default_loss(model: nn.Module, batch: Any | None) -> Losses:
    """The training loss of this package's models; for others cross entropy or squared error.

    Adopted potentials learn energies and forces.
    """
    if isinstance(model, AdoptedPotential):
        return PotentialLosses()
    ours = hasattr(model, "channel_groups") and not isinstance(model, TracedNetwork)
    if isinstance(batch, tuple | list):
        if len(batch) != 2:
            raise ConfigError("batches must be (inputs, targets), or pass loss=...")
        return tuple_losses
    return graph_losses if ours or not is_graph(batch) else third_party_losses


def tuple_losses(model: nn.Module, batch: Any) -> Tensor:
    """Loss of every sample of ``(inputs, targets)``, ``[B]``: cross entropy for integer targets."""
    inputs, targets = batch
    return _errors(call(model, inputs), targets)


def third_party_losses(model: nn.Module, batch: Any) -> Tensor:
    """The same for a PyG batch with targets ``batch.y``: of graphs, or of nodes, whose mean counts.

    Raises:
        ConfigError: there are no targets, or not one for each output.
    """
    if not isinstance(getattr(batch, "y", None), Tensor):
        raise ConfigError("the batch has no targets y; set batch.y, or pass loss=...")
    losses = _errors(call(model, batch), batch.y)
    samples = rows((batch,))
    if len(losses) == len(samples["samples"]) or len(losses) != len(samples["nodes"]):
        return losses
    total = losses.new_zeros(len(samples["samples"])).index_add(0, samples["nodes"], losses)
    return total / samples["nodes"].bincount(minlength=len(total)).clamp(min=1)


def _errors(outputs: Any, targets: Tensor) -> Tensor:
    """``[samples]``."""
    if not isinstance(outputs, Tensor):
        raise ConfigError(
            f"the network returns a {type(outputs).__name__} and not a tensor; pass loss=..."
        )
    if len(targets) != len(outputs):
        raise ConfigError(f"there are {len(targets)} targets for {len(outputs)} outputs")
    if not targets.is_floating_point():
        classes = outputs.shape[1] if outputs.dim() > 1 else 1
        if classes < 2 or not 0 <= int(targets.min()) <= int(targets.max()) < classes:
            raise ConfigError(
                f"integer targets are classes, from 0 to below the number of outputs ({classes}); "
                "for regression make them floating-point numbers, or pass loss=..."
            )
        return F.cross_entropy(outputs, targets, reduction="none")
    if targets.numel() != outputs.numel():
        raise ConfigError(
            f"targets of shape {tuple(targets.shape)} do not fit outputs of shape "
            f"{tuple(outputs.shape)}; reshape them, or pass loss=..."
        )
    return (outputs - targets.reshape(outputs.shape)).square().reshape(len(outputs), -1).mean(1)


def not_finite(batch: Any, number: int) -> ConfigError:
    """Why a loss is NaN or infinite: something in the batch is, or the fit diverged.

    Args:
        batch: what the loss was computed of.
        number: which batch of the pass over the data it is, from 0.
    """
    for name, values in _named_tensors(batch):
        if values.is_floating_point() and not bool(values.isfinite().all()):
            bad = (~values.isfinite()).reshape(len(values), -1).any(1) if values.dim() else None
            row = "" if bad is None else f" (first in row {int(bad.nonzero()[0])})"
            return ConfigError(
                f"the {name} of batch {number} are NaN or infinite{row}; mend or leave out that "
                "sample"
            )
    return ConfigError("the training loss became NaN or infinite; lower training.lr")


def _named_tensors(batch: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(batch, Tensor):
        yield "inputs", batch
    elif is_graph(batch):
        yield from (
            ("targets y" if key == "y" else f"numbers in {key}", value)
            for key, value in batch.to_dict().items()
            if isinstance(value, Tensor)
        )
    elif isinstance(batch, tuple | list) and len(batch) == 2:
        for part in batch[0] if isinstance(batch[0], tuple | list) else [batch[0]]:
            yield from _named_tensors(part)
        if isinstance(batch[1], Tensor):
            yield "targets", batch[1]
