"""What a batch is to a criterion: a number of samples, inputs for the model, a loss for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from egnn_prune.errors import ConfigError
from egnn_prune.pruning.calling import is_graph

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
            several = isinstance(batch, Sequence) and isinstance(inputs_of(batch), Sequence)
            hint = "; of graphs hand over PyG batches, a tuple does not tell them apart"
            raise ConfigError(
                f"the {name} must give one number per sample, shape ({samples},), "
                f"not {tuple(value.shape)}{hint if several else ''}"
            )
        return value

    return call


def check_batches(data: Any) -> None:
    """Refuse a single batch where several are wanted.

    Raises:
        ConfigError: it is a tensor, a mapping or a PyG batch.
    """
    if isinstance(data, Tensor | Mapping) or is_graph(data):
        raise ConfigError(
            "data is an iterable of batches, such as a DataLoader; a single batch is handed over "
            "in a list, [batch]"
        )


def check_loss(loss: Any) -> None:
    """Refuse one of torch's losses, which are functions of outputs and targets.

    Raises:
        ConfigError: it is one.
    """
    if isinstance(loss, _Loss):
        raise ConfigError(
            f"loss is called with the network and a batch and gives one number per sample; instead "
            f"of {type(loss).__name__}() write such as "
            "lambda network, batch: (network(batch) - batch.y).square()"
        )
