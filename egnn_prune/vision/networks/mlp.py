"""Fully connected networks, for points and for images."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from egnn_prune.vision.networks.checks import whole_numbers
from egnn_prune.vision.networks.layers import fully_connected


def mlp(
    shape: tuple[int, ...], classes: int, *, dropout: float = 0.0, widths: Sequence[int] = (30,)
) -> nn.Module:
    """Linear layers with ReLU between them, over the flattened input.

    Args:
        shape: of one input, of any rank.
        classes: number of logits.
        dropout: probability, after each hidden ReLU.
        widths: of the hidden layers. (30,) makes 2-30-2 of the two moons, (140, 130, 120, 110)
            the MNIST network of S1, and two widths the one of S3.

    Raises:
        ConfigError: no widths, or one that is no positive whole number.
    """
    hidden = whole_numbers(widths, "network.widths")
    layers = fully_connected(math.prod(shape), hidden, classes, dropout)
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), **layers))
