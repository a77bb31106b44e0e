"""LeNet-5 with ReLU and max-pooling, as the lottery experiments use it."""

from __future__ import annotations

from torch import nn

from egnn_prune.vision.networks.checks import image_shape
from egnn_prune.vision.networks.layers import fully_connected, pooled_convolutions, pooled_features

CONVOLUTIONS, HIDDEN = (6, 16), (120, 84)


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
    channels, height, width = image_shape(shape, "lenet", least=16)
    layers = pooled_convolutions(channels, CONVOLUTIONS, kernel=5, padding=0)
    features = pooled_features(height, width, CONVOLUTIONS, kernel=5, padding=0)
    layers.update(fully_connected(features, HIDDEN, classes, dropout))
    return nn.Sequential(layers)
