"""The large residual networks of torchvision, with a stem for small images where wanted."""

from __future__ import annotations

import importlib
import pickle
from functools import partial
from typing import Any

from torch import nn

from egnn_prune.errors import ConfigError
from egnn_prune.system.lazy_imports import naming_extras
from egnn_prune.vision.networks.checks import image_shape, one_of

#: Each stem, with the smallest image of which its last stage sees more than padding.
STEMS = {"imagenet": 16, "cifar": 8}


def _resnet(
    name: str,
    shape: tuple[int, ...],
    classes: int,
    *,
    dropout: float = 0.0,
    pretrained: bool = False,
    stem: str = "imagenet",
) -> nn.Module:
    """A ResNet of torchvision (He et al. 2016, Table 1) with our number of classes.

    Args:
        name: as torchvision calls it.
        shape: ``(channels, height, width)`` of an image.
        classes: number of logits.
        dropout: probability, before the read-out.
        pretrained: start from torchvision's best ImageNet weights, which are downloaded once;
            the read-out, and a stem for small images, start at random.
        stem: "imagenet" (7 x 7 convolution of stride 2 and max-pooling) or "cifar" (one 3 x 3
            convolution), which leaves small images their size.

    Raises:
        ConfigError: the inputs are no images, or too small; an unknown stem; torchvision is
            missing; the weights cannot be had, or are for images of other colours.
    """
    one_of(stem, STEMS, "network.stem")
    channels, _, _ = image_shape(shape, name, STEMS[stem])
    if pretrained and channels != 3:
        raise ConfigError(
            f"the ImageNet weights of {name} are for colour images with 3 channels, not "
            f"{channels}; set network.pretrained=false to train from scratch"
        )
    models = _torchvision_models()
    network = models.get_model(name, weights=None)
    if pretrained:
        network.load_state_dict(_imagenet_weights(models, name))
    width = network.conv1.out_channels
    if stem == "cifar":
        network.conv1 = _convolution(channels, width, 3, stride=1)
        network.maxpool = nn.Identity()
    elif channels != 3:
        network.conv1 = _convolution(channels, width, 7, stride=2)
    network.fc = nn.Linear(network.fc.in_features, classes)
    if dropout > 0:  # behind the pooling, so that parameters keep their names
        network.avgpool = nn.Sequential(network.avgpool, nn.Dropout(dropout))
    return network


resnet18, resnet50, resnet101 = (
    partial(_resnet, name) for name in ("resnet18", "resnet50", "resnet101")
)


def _convolution(channels: int, width: int, kernel: int, stride: int) -> nn.Conv2d:
    """A first layer that starts as torchvision's does."""
    layer = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def _torchvision_models() -> Any:
    with naming_extras("the networks resnet18, resnet50 and resnet101 need"):
        return importlib.import_module("torchvision.models")


def _imagenet_weights(models: Any, name: str) -> dict[str, Any]:
    """Downloaded with a progress bar and a checksum, read without unpickling objects."""
    weights = models.get_model_weights(name).DEFAULT
    try:
        return weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ConfigError(
            f"the ImageNet weights of {name} could not be downloaded from {weights.url} and read "
            f"({reason}); set network.pretrained=false to train from scratch"
        ) from error
