"""Which channels of somebody else's network belong together: read from Torch-Pruning's graph.

Torch-Pruning traces a network and knows, for every output channel of a layer, which entries of
which other layers must go with it (Fang et al. 2023, "DepGraph", Section 3.2). This file turns that
into the :class:`ChannelGroup` that the engine works with, and leaves out what cannot be removed
without changing what the other channels do.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from egnn_prune.adapters.propagation import WAY_OUT, Item, Reached, trace
from egnn_prune.channels import ChannelGroup, Member
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.groups import RETURNED
from egnn_prune.pruning.masks import remove_masks
from egnn_prune.pruning.tensors import get_tensor, owner_of

#: Operations of the graph that leave every channel on its own, as Torch-Pruning calls them.
HARMLESS = {"ELEMENTWISE", "RESHAPE", "EXPAND", "CONCAT", "OUTPUT"}
#: Where PyTorch Geometric keeps its ``Linear``.
GRAPH_LINEAR = "torch_geometric.nn.dense.linear"


@dataclass(frozen=True)
class Derived:
    """What can be removed from a network, and what cannot and why.

    Attributes:
        groups: names of tensors as the network knows them, without gates.
        skipped: for each group that is not offered, one phrase that says why.
    """

    groups: list[ChannelGroup]
    skipped: dict[str, str]


class _NotPrunable(Exception):
    """A group that cannot be offered; the message says why."""


def derive(network: nn.Module, inputs: tuple[Any, ...], ignored: Sequence[str] = ()) -> Derived:
    """Trace a network and list the channels that can be removed.

    The network is not changed: a copy is traced, in evaluation mode.

    Raises:
        ConfigError: ``torch_pruning`` is not installed, an ignored module does not exist, or the
            network has nothing to prune, cannot be run, or cannot be traced.
    """
    kind = type(network).__name__
    modules = dict(network.named_modules())
    for name in ignored:
        if name not in modules:
            raise ConfigError(f"{kind} has no module {name!r} to ignore; see named_modules()")
    if not any(isinstance(m, (_ConvNd, nn.Linear)) or is_graph_linear(m) for m in modules.values()):
        e3nn = any(type(m).__module__.startswith("e3nn.") for m in modules.values())
        way = (
            "e3nn's layers cannot be followed, and declaring their channels is not enough, as they "
            "divide by their number; see docs/own-network.md, 'e3nn'"
            if e3nn
            else f"for layers of another kind, {WAY_OUT}"
        )
        raise ConfigError(
            f"{kind} has no convolution and no linear layer whose channels could be removed; {way}"
        )
    traced = copy.deepcopy(network)
    remove_masks(traced)
    modules_of: list[Any] = list(traced.modules())
    for module in modules_of:
        if is_graph_linear(module):  # the tracer knows torch's class only
            module.out_features, module.in_features = module.weight.shape
            module.__class__ = nn.Linear
    traced.eval().requires_grad_(True)
    found = trace(traced, inputs)
    shared = _shared_tensors(traced)
    names: dict[Any, str] = {module: name for name, module in traced.named_modules()}
    names |= {parameter: name for name, parameter in traced.named_parameters()}
    groups: list[ChannelGroup] = []
    skipped: dict[str, str] = {}
    for reached in found:
        reading = _Reading(reached, traced, names, shared)
        try:
            reading.refuse(ignored)
            groups.append(reading.group())
        except _NotPrunable as reason:
            skipped[reading.name] = str(reason)
    order = {name: i for i, name in enumerate(modules)}
    return Derived(sorted(groups, key=lambda g: order[g.name]), skipped)


class _Reading:
    """One group of the graph, on its way to a :class:`ChannelGroup`."""

    def __init__(
        self, reached: Reached, network: nn.Module, names: dict[Any, str], shared: set[str]
    ) -> None:
        self.items, self.joined, self.lost = reached.items, reached.joined, reached.lost
        self.network, self.names, self.shared = network, names, shared
        made = {i.module for i in self.items if i.kind in ("CONV", "LINEAR") and not i.reads}
        made = made or {self.items[0].module}
        self.producers = [name for module, name in names.items() if module in made]
        self.name = self.producers[0]

    def refuse(self, ignored: Sequence[str]) -> None:
        """Raise :class:`_NotPrunable` for what the graph alone shows to be impossible."""
        for item in self.items:
            name = self.names.get(item.module, "")
            if item.is_output:
                raise _NotPrunable(RETURNED)
            if not item.reads and any(name == i or name.startswith(f"{i}.") for i in ignored):
                raise _NotPrunable(f"{name} is to be left as it is")
        if self.lost is not None:
            for item in self.items:  # a layer that mixes channels is the better reason
                self._tensors(item)
            raise _NotPrunable(self.lost)
        if not any(item.reads for item in self.items):
            raise _NotPrunable("no layer reads its channels")

    def group(self) -> ChannelGroup:
        """The group, where every channel owns the same number of entries in each tensor."""
        units = self._units()
        members = []
        for item in self.items:
            for name, axis, period in self._tensors(item):
                if name in self.shared:
                    raise _NotPrunable(f"{name} is shared with another layer")
                owner, leaf = owner_of(self.network, name)
                if leaf not in owner._parameters and leaf not in owner._buffers:
                    raise _NotPrunable(
                        f"{name} is computed from other parameters (weight_norm, spectral_norm "
                        "...); make it plain first, with remove_parametrizations or remove_*_norm"
                    )
                index = _index(item, units, period)
                shape = get_tensor(self.network, name).shape
                view = None
                if int(index.max()) >= shape[axis]:
                    # such as attention vectors [1, heads, channels]
                    axis, view = 0, (shape.numel(),)
                if int(index.max()) >= shape.numel() or (view and item.kind != "PARAMETER"):
                    raise _NotPrunable(f"{name} has another width than the channels that reach it")
                members.append(Member(name, axis, index, view, reads=item.reads))
        n = max(units) + 1
        if n < 2:
            raise _NotPrunable("it has a single channel, which has to stay")
        several = len(self.producers) > 1
        linear = all(i.kind != "CONV" for i in self.items if not i.reads)
        kind = "residual" if several else "linear" if linear else "conv"
        return ChannelGroup(self.name, kind, n, tuple(_merged(members)))

    def _tensors(self, item: Item) -> list[tuple[str, int, int]]:
        """``(tensor, axis, period)``: entry e of the layer is entry e % period of the tensor."""
        layer, kind = item.module, item.kind
        if kind in HARMLESS:
            return []
        name = self.names.get(layer)
        if name is None:
            raise _NotPrunable(f"it passes a {kind.lower()} operation, which takes channels apart")
        if kind == "PARAMETER":
            owner, _ = owner_of(self.network, name)
            if isinstance(owner, (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Bilinear)):
                raise _NotPrunable(_mixing(name.rpartition(".")[0], owner))
            sizes = [i for i, size in enumerate(layer.shape) if size > 1]
            return [(name, sizes[-1], 0)] if sizes else []
        if kind == "LINEAR" or kind == "EMBED":
            axis = 1 if item.reads or kind == "EMBED" else 0
            tensors = ["weight"] if axis else ["weight", "bias"]
        elif kind == "DEPTHWISE_CONV":
            assert isinstance(layer, _ConvNd)
            if layer.in_channels != layer.out_channels:
                raise _NotPrunable(f"{name} mixes the channels of each of its groups")
            axis, tensors = 0, ["weight", "bias"]
        elif kind == "CONV":
            assert isinstance(layer, _ConvNd)
            return self._convolution(name, layer, item.reads)
        elif kind in ("BN", "IN"):
            if layer.weight is None:
                raise _NotPrunable(f"{name} normalises without weights that could be zeroed")
            axis, tensors = 0, ["weight", "bias", "running_mean", "running_var"]
        elif isinstance(layer, nn.GroupNorm) and layer.num_groups == layer.num_channels:
            if layer.weight is None:
                raise _NotPrunable(f"{name} normalises without weights that could be zeroed")
            axis, tensors = 0, ["weight", "bias"]
        elif isinstance(layer, nn.PReLU):
            axis, tensors = 0, ["weight"] if layer.num_parameters > 1 else []
        else:
            raise _NotPrunable(_mixing(name, layer))
        present = [t for t in tensors if getattr(layer, t, None) is not None]
        return [(f"{name}.{t}", axis, 0) for t in present]

    def _convolution(self, name: str, layer: _ConvNd, reads: bool) -> list[tuple[str, int, int]]:
        if isinstance(layer, _ConvTransposeNd):
            if layer.groups > 1:
                raise _NotPrunable(f"{name} is a transposed convolution with groups")
            axis = 0 if reads else 1
        else:
            axis = 1 if reads else 0
        # every group of a convolution stores its own input columns from 0 on
        period = layer.in_channels // layer.groups if reads else 0
        found = [(f"{name}.weight", axis, period)]
        return found + ([(f"{name}.bias", 0, 0)] if layer.bias is not None and not reads else [])

    def _units(self) -> list[int]:
        """The unit that each channel belongs to: what grouped convolutions force together.

        A convolution with G groups stays one only if each of its groups loses as many channels, so
        a unit takes one channel of every group, at the same place. Attention heads likewise.
        """
        size = 1 + max(r for item in self.items for r in item.roots)
        unit = list(range(size))
        for first, second in self.joined:
            unit = _united(unit, first, second)
        for item in self.items:
            layer = item.module
            if item.kind == "LINEAR" and not item.reads:
                block = head_width(self.network, self.names[layer], len(layer.weight))
                roots = dict(zip(item.entries, item.roots, strict=True))
                for entry, root in roots.items():
                    if block and entry >= block and entry % block in roots:
                        unit = _united(unit, roots[entry % block], root)
            if item.kind != "CONV" or not isinstance(layer, _ConvNd) or layer.groups == 1:
                continue
            if item.reads and layer.groups == layer.in_channels:
                raise _NotPrunable(
                    f"{self.names[layer]} makes {layer.out_channels // layer.groups} channels of "
                    "each of its inputs (a depthwise convolution with a multiplier), which cannot "
                    "be narrowed"
                )
            channels = layer.in_channels if item.reads else layer.out_channels
            together = defaultdict(list)
            for entry, root in zip(item.entries, item.roots, strict=True):
                together[entry % (channels // layer.groups)].append(root)
            if any(len(roots) != layer.groups for roots in together.values()):
                raise _NotPrunable(
                    f"{self.names[layer]} is a grouped convolution that other channels enter too"
                )
            for first, *rest in together.values():
                for other in rest:
                    unit = _united(unit, first, other)
        number = {u: i for i, u in enumerate(sorted(set(unit)))}
        return [number[u] for u in unit]


def is_graph_linear(layer: nn.Module) -> bool:
    """Whether a layer is PyTorch Geometric's own ``Linear``, which is none of torch's."""
    bases = type(layer).__mro__
    ours = any(b.__module__ == GRAPH_LINEAR and b.__name__ == "Linear" for b in bases)
    return ours and not isinstance(layer, nn.Linear)


def head_width(network: nn.Module, name: str, rows: int) -> int:
    """Channels per head where a layer belongs to a PyG-like attention layer, else 0."""
    parent = network.get_submodule(name.rpartition(".")[0])
    heads, width = getattr(parent, "heads", 1), getattr(parent, "out_channels", 0)
    fits = isinstance(heads, int) and isinstance(width, int) and heads * width == rows
    return width if fits else 0


def _mixing(name: str, layer: nn.Module) -> str:
    return f"it passes {name} ({type(layer).__name__}), which mixes channels"


def _united(unit: list[int], first: int, second: int) -> list[int]:
    old, new = unit[second], unit[first]
    return unit if old == new else [new if u == old else u for u in unit]


def _index(item: Item, units: list[int], period: int) -> Tensor:
    """``[n, block]``: the entries of each unit on the axis of a tensor."""
    owned: dict[int, set[int]] = {u: set() for u in units}
    for entry, root in zip(item.entries, item.roots, strict=True):
        owned[units[root]].add(entry % period if period else entry)
    if len({len(entries) for entries in owned.values()}) != 1:
        raise _NotPrunable("its channels are joined with others in part only")
    return torch.tensor([sorted(owned[u]) for u in sorted(owned)])


def _merged(members: list[Member]) -> list[Member]:
    """Each tensor axis once: a layer that is called twice appears twice in the graph."""
    return list({(m.name, m.axis): m for m in members}.values())


def _shared_tensors(network: nn.Module) -> set[str]:
    """Names of parameters that the network has under more than one name."""
    names = defaultdict(list)
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names[parameter].append(name)
    return {name for several in names.values() if len(several) > 1 for name in several}
