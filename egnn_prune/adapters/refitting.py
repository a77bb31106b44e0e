"""What is left of a tensor after its channels are gone, and layers that remember their widths."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from egnn_prune.adapters.dependency import is_graph_linear


def cut(tensor: Tensor, axis: int, index: Tensor, view: tuple[int, ...] | None) -> Tensor:
    """The entries of a tensor that stay; a flat view loses them from the last axis that has any."""
    if view is None:
        return tensor.index_select(axis, index)
    return tensor.reshape(view).index_select(axis, index).reshape(*tensor.shape[:-1], -1)


def refit(model: nn.Module, tensors: list[str]) -> None:
    """Bring the widths that the owners of some tensors remember in line with them."""
    for name in dict.fromkeys(name.rpartition(".")[0] for name in tensors):
        layer = model.get_submodule(name)
        _refit_parent(model.get_submodule(name.rpartition(".")[0]), layer)
        _refit_layer(layer)


def _refit_parent(parent: nn.Module, layer: nn.Module) -> None:
    """Bring the widths that a graph convolution remembers in line with those of its layers."""
    if not (isinstance(layer, nn.Linear) or is_graph_linear(layer)):
        return
    for axis, side in enumerate(("out", "in")):
        old = getattr(layer, f"{side}_features", getattr(layer, f"{side}_channels", None))
        heads = getattr(parent, "heads", 1) if side == "out" else 1
        width = getattr(parent, f"{side}_channels", None)
        weight = layer.weight
        assert isinstance(weight, Tensor)
        if isinstance(heads, int) and isinstance(width, int) and width * heads == old:
            setattr(parent, f"{side}_channels", weight.shape[axis] // heads)


def _refit_layer(layer: Any) -> None:
    """Bring the widths that a layer remembers in line with its weights."""
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif is_graph_linear(layer):
        layer.out_channels, layer.in_channels = layer.weight.shape
    elif isinstance(layer, nn.Embedding):
        layer.embedding_dim = layer.weight.shape[1]
    elif isinstance(layer, _ConvNd):
        if layer.groups == layer.in_channels == layer.out_channels and layer.groups > 1:
            layer.groups = layer.in_channels = layer.out_channels = layer.weight.shape[0]
        elif isinstance(layer, _ConvTransposeNd):
            layer.in_channels, layer.out_channels = layer.weight.shape[:2]
        else:
            layer.out_channels = layer.weight.shape[0]
            layer.in_channels = layer.weight.shape[1] * layer.groups
    elif isinstance(layer, _NormBase):
        layer.num_features = len(layer.weight)
    elif isinstance(layer, nn.GroupNorm):
        layer.num_groups = layer.num_channels = len(layer.weight)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(layer.weight)
