"""Every network by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from egnn_prune.errors import ConfigError
from egnn_prune.vision.networks.checks import one_of, whole_numbers
from egnn_prune.vision.networks.cifar_resnet import resnet20, resnet32, resnet56
from egnn_prune.vision.networks.plain import cnn, lenet, mlp, small_cnn
from egnn_prune.vision.networks.torchvision_resnet import resnet18, resnet50, resnet101

#: Functions ``(shape, classes, *, dropout, **options) -> network``.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "lenet": lenet,
    "cnn": cnn,
    "small_cnn": small_cnn,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet56": resnet56,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "resnet101": resnet101,
}


def build_network(
    name: str, shape: tuple[int, ...], classes: int, *, dropout: float = 0.0, **options: Any
) -> nn.Module:
    """A classifier with random weights (set torch's seed before), on the CPU, in float32.

    Args:
        name: one of :data:`NETWORKS`.
        shape: of one input without the batch: ``(channels, height, width)``, or ``(features,)``.
        classes: number of classes.
        dropout: probability in [0, 1); at 0 the network has no dropout module.
        options: what else this network can be asked for, such as ``widths`` of an mlp.

    Returns:
        a module from ``[B, *shape]`` to logits ``[B, classes]``.

    Raises:
        ConfigError: an unknown name or option, or a value outside its range.

    Example:
        >>> network = build_network("lenet", (3, 32, 32), 10, dropout=0.3)
        >>> model = TracedNetwork(network, torch.randn(2, 3, 32, 32))
    """
    builder = NETWORKS[one_of(name, NETWORKS, "network.name")]
    shape = whole_numbers(shape, "the shape of an input")
    if whole_numbers([classes], "the number of classes")[0] < 2:
        raise ConfigError("a classifier needs at least 2 classes, and the data have 1")
    if not 0 <= dropout < 1:
        raise ConfigError(f"network.dropout must be at least 0 and below 1, not {dropout}")
    known = [
        p.name
        for p in inspect.signature(builder).parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.name != "dropout"
    ]
    for option in options:
        if option not in known:
            raise ConfigError(
                f"the network {name} has no option {option!r}; "
                + (f"it has {', '.join(known)}" if known else "it has none")
            )
    return builder(shape, classes, dropout=dropout, **options)
