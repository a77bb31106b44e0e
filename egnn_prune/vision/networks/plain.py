"""Networks without branches: fully connected ones, and pooled convolutions before them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from egnn_prune.vision.networks.checks import image_shape, whole_numbers
from egnn_prune.vision.networks.layers import fully_connected, pooled_convolutions, pooled_features


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


def lenet(shape: tuple[int, ...], classes: int, *, dropout: float = 0.0) -> nn.Module:
    """Two 5 x 5 convolutions of 6 and 16 channels, then 120, 84 and ``classes`` units.

    LeNet-5 (LeCun et al. 1998, Section II.B) as it is used today: ReLU for tanh, max-pooling for
    averages, a linear read-out. 62,006 parameters for CIFAR-10. Layers: ``conv1``, ``conv2``,
    ``fc1``, ``fc2``, ``fc3``.

    Args:
        shape: ``(channels, height, width)`` of an image, at least 16 pixels each way.
        classes: number of logits.
        dropout: probability, before ``fc2`` and ``fc3``.

    Raises:
        ConfigError: the inputs are no images, or too small.
    """
    return _convolutional("lenet", shape, (6, 16), (120, 84), classes, dropout, kernel=5, least=16)


def cnn(shape: tuple[int, ...], classes: int, *, dropout: float = 0.0) -> nn.Module:
    """The wider network of S1: convolutions of 32 and 64 channels, 128 hidden units.

    Args:
        shape: ``(channels, height, width)`` of an image; 32 x 32 pixels make 4,096 features.
        classes: number of logits.
        dropout: probability, before ``fc2``.

    Raises:
        ConfigError: the inputs are no images, or too small.
    """
    return _convolutional("cnn", shape, (32, 64), (128,), classes, dropout)


def small_cnn(
    shape: tuple[int, ...],
    classes: int,
    *,
    dropout: float = 0.0,
    widths: Sequence[int] = (16, 32),
) -> nn.Module:
    """The network of S3: convolution, ReLU and max-pooling twice, one fully connected layer.

    Args:
        shape: ``(channels, height, width)`` of an image.
        classes: number of logits.
        dropout: probability, before the fully connected layer.
        widths: output channels of the convolutions; each of them halves the image.

    Raises:
        ConfigError: the inputs are no images, or too small; widths that are no whole numbers.
    """
    channels = whole_numbers(widths, "network.widths")
    return _convolutional("small_cnn", shape, channels, (), classes, dropout)


def _convolutional(
    name: str,
    shape: tuple[int, ...],
    widths: tuple[int, ...],
    hidden: tuple[int, ...],
    classes: int,
    dropout: float,
    kernel: int = 3,
    least: int | None = None,
) -> nn.Module:
    """Filters of 3 x 3 pixels are padded, so that only the pooling makes images smaller."""
    channels, height, width = image_shape(shape, name, least or 2 ** len(widths))
    padding = 1 if kernel == 3 else 0
    layers = pooled_convolutions(channels, widths, kernel, padding)
    if dropout > 0 and not hidden:
        layers["dropout"] = nn.Dropout(dropout)
    features = pooled_features(height, width, widths, kernel, padding)
    layers.update(fully_connected(features, hidden, classes, dropout))
    return nn.Sequential(layers)
