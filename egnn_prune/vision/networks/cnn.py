"""Convolutional networks of 3 x 3 filters without batch norm."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from egnn_prune.vision.networks.checks import image_shape, whole_numbers
from egnn_prune.vision.networks.layers import fully_connected, pooled_convolutions, pooled_features


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
) -> nn.Module:
    channels, height, width = image_shape(shape, name, least=2 ** len(widths))
    layers = pooled_convolutions(channels, widths, kernel=3, padding=1)
    if dropout > 0 and not hidden:
        layers["dropout"] = nn.Dropout(dropout)
    features = pooled_features(height, width, widths, kernel=3, padding=1)
    layers.update(fully_connected(features, hidden, classes, dropout))
    return nn.Sequential(layers)
