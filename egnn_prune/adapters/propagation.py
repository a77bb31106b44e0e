"""Torch-Pruning's graph of a network, and which channels go together in it.

The library traces a network and knows, from operation to operation, which entry follows from
which. Its own walk through that graph carries whole lists of entries along every path, and ends
only once a list comes up a second time: where paths branch and join (attention, tensor products)
their number explodes. Here each entry of each operation is visited once.
"""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from egnn_prune.errors import ConfigError
from egnn_prune.pruning.calling import call, is_graph

#: Entries that the groups of a network may reach, and operations that it may consist of. Counts and
#: not seconds, so that a network is accepted or refused alike on every machine.
MOST_ENTRIES, MOST_OPERATIONS = 8_000_000, 20_000
#: What to do about a network that cannot be followed.
WAY_OUT = (
    "declare channel_groups() and resized() yourself (docs/pruning.md, 'Prune a network of your "
    "own')"
)


#: What a batch may be.
EXPECTED = "batches are PyG batches, or (inputs, targets), where a tuple of inputs is spread out"


@dataclass
class Item:
    """A layer or operation that a group of channels passes, starts from or ends in.

    Attributes:
        module: the layer, the library's stand-in for an operation, or a parameter.
        kind: Torch-Pruning's name of the operation: CONV, LINEAR, BN ...
        reads: whether the channels end here.
        entries: the layer's own channels.
        roots: the channel of the group that each of them belongs to.
        is_output: whether the result leaves the network.
    """

    module: Any
    kind: str
    reads: bool
    entries: list[int]
    roots: list[int]
    is_output: bool


@dataclass
class Reached:
    """All that the output channels of one layer reach.

    Attributes:
        items: layers and operations, in the order in which they were found.
        joined: pairs of channels that reach the same entry of an operation.
        lost: why the channels could not be followed to the end, if so.
    """

    items: list[Item]
    joined: set[tuple[int, int]]
    lost: str | None = None


def trace(network: nn.Module, inputs: tuple[Any, ...]) -> list[Reached]:
    """What the output channels of every convolution and linear layer reach.

    Args:
        network: in evaluation mode, all parameters with gradients; it may be changed.
        inputs: what it is called with.

    Raises:
        ConfigError: ``torch_pruning`` is not installed, or the network cannot be run or followed.
    """
    kind = type(network).__name__
    library = _library()
    outputs: list[Any] = []

    def run(module: nn.Module, arguments: tuple[Any, ...]) -> list[Tensor]:
        leaves = pytree.tree_leaves(call(module, arguments))
        outputs.extend(o for o in leaves if isinstance(o, Tensor) and o.grad_fn is not None)
        return outputs

    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unwrapped parameters: they are looked at later
        try:
            run(network, inputs)
        except Exception as error:  # whatever third-party code raises
            raise ConfigError(
                f"{kind} cannot be run on the example inputs: {first_line(error)} "
                f"({_other_type(network, inputs) or EXPECTED})"
            ) from error
        size = _operations(outputs)
        if size > MOST_OPERATIONS:
            raise ConfigError(
                f"{kind} runs more than {MOST_OPERATIONS} operations, too many to follow its "
                f"channels through them; {WAY_OUT}"
            )
        outputs.clear()
        try:
            graph = library.DependencyGraph().build_dependency(
                network, inputs, forward_fn=run, verbose=False
            )
            ends = {o.grad_fn for o in outputs}
            return _all_reached(library, graph, ends)
        except Exception as error:
            raise ConfigError(
                f"Torch-Pruning cannot follow the channels through {kind} "
                f"({first_line(error)}); {WAY_OUT}"
            ) from error


def _other_type(network: nn.Module, inputs: tuple[Any, ...]) -> str:
    """Says so where the weights have a type of numbers that nothing in the batch has."""
    parts = [i.to_dict() if is_graph(i) else i for i in inputs]
    leaves = [x for x in pytree.tree_leaves(parts) if isinstance(x, Tensor)]
    given = {x.dtype for x in leaves if x.is_floating_point()}
    weights = next((p.dtype for p in network.parameters() if p.is_floating_point()), None)
    if weights is None or not given or weights in given:
        return ""
    return f"its weights are {weights}, the batch is {min(map(str, given))}: convert one of them"


def first_line(error: Exception) -> str:
    """An error's message as part of a sentence."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _library() -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("torch_pruning")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "deriving the channels of a network that does not declare them needs the package "
            "torch-pruning; run `pip install torch-pruning`"
        ) from error


def _operations(outputs: list[Tensor]) -> int:
    """How many operations autograd recorded."""
    seen: set[Any] = set()
    waiting = [o.grad_fn for o in outputs]
    while waiting and len(seen) <= MOST_OPERATIONS:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [n for n, _ in node.next_functions]
    return len(seen)


def _all_reached(library: ModuleType, graph: Any, ends: set[Any]) -> list[Reached]:
    """One for each layer whose output channels no earlier one has reached."""
    roots = (library.ops.TORCH_CONV, library.ops.TORCH_LINEAR)
    walk = _Walk(library, graph, ends)
    made: set[Any] = set()
    found = []
    for layer in [m for m in graph.module2node if isinstance(m, roots)]:
        if layer not in made:
            reached = walk.from_layer(layer)
            made |= {i.module for i in reached.items if not i.reads} | {layer}
            found.append(reached)
    return found


class _Walk:
    """Follows channels through Torch-Pruning's graph."""

    def __init__(self, library: ModuleType, graph: Any, ends: set[Any]) -> None:
        self.pair, self.graph, self.ends = library._helpers._HybridIndex, graph, ends
        self.left = MOST_ENTRIES
        self.widths = {
            (node, side): width
            for node in graph.module2node.values()
            if isinstance(node.module, nn.Module) and node.type.name != "OUTPUT"
            for side, width in (
                ("in", graph.get_in_channels(node)),
                ("out", graph.get_out_channels(node)),
            )
            if width is not None
        }
        # a loop through a reshape that multiplies entries would count on for ever
        self.most = sum(self.widths.values())

    def from_layer(self, layer: nn.Module) -> Reached:
        """Follow every output channel of a layer, each entry of each operation once."""
        pruner = self.graph.get_pruner_of_module(layer)
        start = self.graph.module2node[layer], pruner.prune_out_channels
        channels = range(pruner.get_out_channels(layer))
        seen: dict[Any, dict[int, int]] = {start: {i: i for i in channels}}
        joined: set[tuple[int, int]] = set()
        waiting = [(start, [self.pair(idx=i, root_idx=i) for i in channels])]
        lost = None
        while waiting and lost is None:
            (node, handler), entries = waiting.pop()
            for dependency in node.dependencies:
                if not dependency.is_triggered_by(handler):
                    continue
                there, key = entries, (dependency.target, dependency.handler)
                try:
                    for mapping in dependency.index_mapping:
                        there = there if mapping is None else mapping(there)
                except (IndexError, TypeError, ValueError):  # a split that is not one of channels
                    ends = f"{_called(node)} and {_called(key[0])}"
                    lost = f"Torch-Pruning cannot follow them between {ends}"
                    break
                known = seen.setdefault(key, {}) if there else {}
                fresh = [e for e in there if e.idx not in known]
                joined |= {(known[e.idx], e.root_idx) for e in there if e.idx in known}
                for entry in fresh:
                    first = known.setdefault(entry.idx, entry.root_idx)
                    joined.add((first, entry.root_idx))
                if not fresh:
                    continue
                width = self.widths.get((key[0], _side(dependency.handler)), self.most)
                if max(e.idx for e in fresh) >= width:
                    lost = (
                        f"an operation on the way to {_called(key[0])} mixes them or uses a "
                        "layer's weight itself"
                    )
                waiting.append((key, fresh))
                self.left -= len(fresh)
                if self.left < 0:
                    raise _TooMany(f"more than {MOST_ENTRIES} entries depend on one another")
        items = [
            self._item(node, handler, list(known.values()), list(known))
            for (node, handler), known in seen.items()
        ]
        return Reached(items, {(a, b) for a, b in joined if a != b}, lost)

    def _item(self, node: Any, handler: Any, roots: list[int], entries: list[int]) -> Item:
        kind = node.type.name
        reads = kind in ("CONV", "LINEAR") and handler.__name__ == "prune_in_channels"
        is_output = not reads and (kind == "OUTPUT" or node.grad_fn in self.ends)
        return Item(node.module, kind, reads, entries, roots, is_output)


class _TooMany(Exception):
    """The bound on a network's dependencies is reached."""


def _side(handler: Any) -> str:
    return "in" if handler.__name__ == "prune_in_channels" else "out"


def _called(node: Any) -> str:
    """A layer's name, or the kind of an operation."""
    named = isinstance(node.module, nn.Parameter) or node._name is not None
    return node.name.partition(" (")[0] if named else f"a {node.type.name.lower()} operation"
