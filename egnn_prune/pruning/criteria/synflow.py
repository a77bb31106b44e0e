"""Importance by the strength of all paths through a channel, without looking at the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.channels import ChannelGroup
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.calling import call
from egnn_prune.pruning.criteria.batches import inputs_of
from egnn_prune.pruning.criteria.channel_sums import group_sums
from egnn_prune.pruning.criteria.context import Context
from egnn_prune.pruning.criteria.weight_passes import by_weights, effective_weights
from egnn_prune.pruning.masks import MaskParametrization


def synflow(group: ChannelGroup, context: Context) -> Tensor:
    r"""Synaptic flow, summed over a channel's weights: ``[n]``.

    .. math:: s_c = \sum_{w \in c} |w|\, \frac{\partial R}{\partial |w|}, \qquad
        R = \sum \text{outputs of the network with weights } |w|

    for one input: all ones in the shape of the first batch's first sample where the input is a
    tensor, and the first batch as it is where it is a graph (an atom's element cannot be one).
    Neither labels nor a loss are read. In a network of linear and ReLU layers without biases what
    flows into a hidden channel flows out of it (conservation, Tanaka et al. 2020, Theorem 1), so
    R has the same unit everywhere and groups compare as they are; other activations hold it only
    roughly.

    The flow of a layer is shared by its channels: prune iteratively (the paper takes 100 rounds
    of :func:`egnn_prune.pruning.schedule.iterative`), since the second-smallest channel's score
    grows when the smallest goes, and one-shot removal misses that. Running statistics and other
    buffers are taken as they are. Source: Tanaka et al. 2020, Eq. 2 and Algorithm 1.

    Raises:
        ConfigError: the context has no batch, or the model returns nothing that could be summed.
    """
    return group_sums(group, context.model, context.once(synaptic_flow))


def synaptic_flow(context: Context) -> dict[str, Tensor]:
    r""":math:`|w|\, \partial R / \partial |w|` of every parameter, by name."""
    example = inputs_of(next(iter(context.data)))
    if isinstance(example, Tensor):
        example = torch.ones_like(example[:1])
    with absolute(context.model), effective_weights(context.model) as weights:
        total = sum_of_outputs(call(context.model, example))
        gradients = by_weights(total, weights)
        flow = {name: (weights[name] * gradients[name]).detach() for name in weights}
    if not all(bool(value.isfinite().all()) for value in flow.values()):
        raise ConfigError(
            "the synaptic flow overflows in this precision; score model.double() instead"
        )
    return flow


@contextmanager
def absolute(model: nn.Module) -> Iterator[None]:
    """All parameters (and held values) by their size for a while; the storage stays the same."""
    tensors = [
        *model.parameters(),
        *(m.value for m in model.modules() if isinstance(m, MaskParametrization)),
    ]
    before = [t.data for t in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.abs()
        yield
    finally:
        for tensor, data in zip(tensors, before, strict=True):
            tensor.data = data


def sum_of_outputs(output: Any) -> Tensor:
    """Sum of all that a network says: tensors, means with variances, node features, or a tuple.

    Raises:
        ConfigError: there is no tensor to be found.
    """
    if isinstance(output, Tensor):
        return output.sum()
    parts: list[Any] = []
    if isinstance(output, Mapping):
        parts = list(output.values())
    elif isinstance(output, tuple | list):
        parts = list(output)
    else:  # predictions; batches of graphs
        for names in (("mean", "aleatoric"), ("x",)):
            found = [getattr(output, name, None) for name in names]
            parts = parts or [part for part in found if isinstance(part, Tensor)]
    if not parts:
        raise ConfigError(
            f"synflow sums what the network returns, but a {type(output).__name__} holds no "
            "tensors; return a tensor, a tuple of them, or something with a mean"
        )
    return torch.stack([sum_of_outputs(part) for part in parts]).sum()
