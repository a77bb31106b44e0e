"""What a batch is to a criterion: a number of samples, inputs for the model, a loss for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from egnn_prune.errors import ConfigError

#: ``f(model, batch) -> [samples]``
PerSample = Callable[[nn.Module, Any], Tensor]


def sample_count(batch: Any) -> int:
    """How many samples (graphs, images) a batch holds.

    Understands a batch of graphs (``num_graphs``), a single graph (``num_nodes``), a tuple, list
    or mapping whose first entry has one row a sample, and a tensor.
    """
    graphs = getattr(batch, "num_graphs", None)
    if graphs is not None:
        return int(graphs)
    if hasattr(type(batch), "num_nodes"):  # a lone graph: its len() would count its attributes
        return 1
    if isinstance(batch, Mapping):
        return len(next(iter(batch.values())))
    first = inputs_of(batch)
    while isinstance(first, Sequence):  # several inputs
        first = first[0]
    return len(first) if isinstance(first, Tensor) else sample_count(first)


def inputs_of(batch: Any) -> Any:
    """What the model is called with: the first of a pair (images, labels), else the batch."""
    return batch[0] if isinstance(batch, Sequence) else batch


def checked(function: PerSample, name: str) -> PerSample:
    """The same function, refusing what is not one number per sample."""

    def call(model: nn.Module, batch: Any) -> Tensor:
        value, samples = function(model, batch), sample_count(batch)
        if value.shape != (samples,):
            raise ConfigError(
                f"the {name} must give one number per sample, shape ({samples},), "
                f"not {tuple(value.shape)}"
            )
        return value

    return call
