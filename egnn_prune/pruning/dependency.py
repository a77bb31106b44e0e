"""Which channels of somebody else's network belong together: read from Torch-Pruning's graph.

Torch-Pruning traces a network and knows, for every output channel of a layer, which entries of
which other layers must go with it (Fang et al. 2023, "DepGraph", Section 3.2). This file turns that
into the :class:`ChannelGroup` that the engine works with, and leaves out what cannot be removed
without changing what the other channels do.
"""

from __future__ import annotations

import copy
import importlib
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils import _pytree as pytree

from egnn_prune.channels import ChannelGroup, Member
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.masks import release

#: Operations of the graph that leave every channel on its own, as Torch-Pruning calls them.
HARMLESS = {"ELEMENTWISE", "RESHAPE", "EXPAND", "CONCAT", "OUTPUT"}


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

    Args:
        network: any module of convolutions, linear layers and batch norms.
        inputs: what it is called with.
        ignored: dotted names of modules whose output channels all stay.

    Raises:
        ConfigError: ``torch_pruning`` is not installed, an ignored module does not exist, or the
            network has nothing to prune, cannot be run, or cannot be traced.
    """
    kind = type(network).__name__
    modules = dict(network.named_modules())
    for name in ignored:
        if name not in modules:
            raise ConfigError(f"{kind} has no module {name!r} to ignore; see named_modules()")
    if not any(isinstance(m, (_ConvNd, nn.Linear)) for m in modules.values()):
        raise ConfigError(
            f"{kind} has no convolution and no linear layer whose channels could be removed"
        )
    traced = copy.deepcopy(network)
    release(traced)
    traced.eval().requires_grad_(True)
    found = _trace(traced, inputs)
    shared = _shared_tensors(traced)
    names = {module: name for name, module in traced.named_modules()}
    groups: list[ChannelGroup] = []
    skipped: dict[str, str] = {}
    for items in found:
        reading = _Reading(items, names, shared)
        try:
            reading.refuse(ignored)
            groups.append(reading.group())
        except _NotPrunable as reason:
            skipped[reading.name] = str(reason)
    order = {name: i for i, name in enumerate(modules)}
    return Derived(sorted(groups, key=lambda g: order[g.name]), skipped)


@dataclass
class _Item:
    """A layer or operation that a group of channels passes, starts from or ends in."""

    module: nn.Module
    kind: str  # Torch-Pruning's name of the operation: CONV, LINEAR, BN ...
    reads: bool  # whether the channels end here
    entries: list[int]  # the layer's own channels
    roots: list[int]  # the channel of the group that each of them belongs to
    is_output: bool  # whether the result leaves the network


def _trace(network: nn.Module, inputs: tuple[Any, ...]) -> list[list[_Item]]:
    """Torch-Pruning's groups of all output channels, one list of items each."""
    kind = type(network).__name__
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            library = importlib.import_module("torch_pruning")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "deriving the channels of a network that does not declare them needs the package "
            "torch-pruning; run `pip install torch-pruning`"
        ) from error
    outputs: list[Any] = []

    def call(module: nn.Module, arguments: tuple[Any, ...]) -> list[Tensor]:
        leaves = pytree.tree_leaves(module(*arguments))
        outputs.extend(o for o in leaves if isinstance(o, Tensor) and o.grad_fn is not None)
        return outputs

    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unwrapped parameters: such groups are left out below
        try:
            call(network, inputs)
        except Exception as error:  # whatever a stranger's code raises
            raise ConfigError(
                f"{kind} cannot be run on the example inputs: {_first_line(error)}"
            ) from error
        outputs.clear()
        try:
            graph = library.DependencyGraph().build_dependency(
                network, inputs, forward_fn=call, verbose=False
            )
            found = [group.items for group in graph.get_all_groups()]
        except Exception as error:
            raise ConfigError(
                f"Torch-Pruning cannot follow the channels through {kind} "
                f"({_first_line(error)}); declare channel_groups() and resized() yourself"
            ) from error
    ends = {o.grad_fn for o in outputs}
    return [
        [_item(dep, item.root_idxs, item.idxs, ends) for item in g for dep in [item.dep]]
        for g in found
    ]


def _item(dependency: Any, roots: list[int], entries: list[int], ends: set[Any]) -> _Item:
    node = dependency.target
    kind = node.type.name
    reads = kind in ("CONV", "LINEAR") and dependency.handler.__name__ == "prune_in_channels"
    is_output = not reads and (kind == "OUTPUT" or node.grad_fn in ends)
    return _Item(node.module, kind, reads, list(entries), list(roots), is_output)


class _Reading:
    """One group of the graph, on its way to a :class:`ChannelGroup`."""

    def __init__(self, items: list[_Item], names: dict[nn.Module, str], shared: set[str]) -> None:
        self.items, self.names, self.shared = items, names, shared
        made = {i.module for i in items if i.kind in ("CONV", "LINEAR") and not i.reads}
        made = made or {items[0].module}
        self.producers = [name for module, name in names.items() if module in made]
        self.name = self.producers[0]

    def refuse(self, ignored: Sequence[str]) -> None:
        """Raise :class:`_NotPrunable` for what the graph alone shows to be impossible."""
        for item in self.items:
            name = self.names.get(item.module, "")
            if item.is_output:
                raise _NotPrunable("its channels are what the network returns")
            if not item.reads and any(name == i or name.startswith(f"{i}.") for i in ignored):
                raise _NotPrunable(f"{name} is to be left as it is")
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
                index = _index(item, units, period)
                members.append(Member(name, axis, index, reads=item.reads))
        n = max(units) + 1
        if n < 2:
            raise _NotPrunable("it has a single channel, which has to stay")
        several = len(self.producers) > 1
        linear = all(i.kind != "CONV" for i in self.items if not i.reads)
        kind = "residual" if several else "linear" if linear else "conv"
        return ChannelGroup(self.name, kind, n, tuple(_merged(members)))

    def _tensors(self, item: _Item) -> list[tuple[str, int, int]]:
        """``(tensor, axis, period)``: entry e of the layer is entry e % period of the tensor."""
        layer, kind = item.module, item.kind
        if kind in HARMLESS:
            return []
        name = self.names.get(layer, "a parameter that no layer owns")
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
        elif isinstance(layer, nn.PReLU):
            axis, tensors = 0, ["weight"] if layer.num_parameters > 1 else []
        else:
            raise _NotPrunable(f"it passes {name} ({type(layer).__name__}), which mixes channels")
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
        a unit takes one channel of every group, at the same place.
        """
        size = 1 + max(r for item in self.items for r in item.roots)
        unit = list(range(size))
        for item in self.items:
            layer = item.module
            if item.kind != "CONV" or not isinstance(layer, _ConvNd) or layer.groups == 1:
                continue
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
                    old, new = unit[other], unit[first]
                    unit = [new if u == old else u for u in unit]
        number = {u: i for i, u in enumerate(sorted(set(unit)))}
        return [number[u] for u in unit]


def _index(item: _Item, units: list[int], period: int) -> Tensor:
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


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
