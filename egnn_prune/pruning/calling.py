"""How somebody else's network is called with a batch, and which sample each row belongs to.

Graphs are known by what they offer (``num_nodes``, ``edge_index``), not by their class: the engine
imports torch alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from egnn_prune.errors import ConfigError


def is_graph(value: Any) -> bool:
    """Whether this is a PyG graph, or a batch of them."""
    return not isinstance(value, Tensor) and hasattr(type(value), "num_nodes")


def call(model: nn.Module, inputs: Any) -> Any:
    """Run a model on one input, or on several.

    ``model(inputs)`` for a tensor or any other single object, ``model(*inputs)`` for a tuple or
    list. A PyG batch goes as it is to a ``forward`` with one required argument. Where it has
    several, such as ``forward(x, edge_index)`` of PyG's networks or
    ``forward(z, pos, batch=None)``, each gets what the batch has under its name. So do optional
    arguments that the batch has a tensor for: ``batch``, ``edge_weight``, ``edge_attr``.

    Raises:
        ConfigError: the batch lacks a required argument.
    """
    arguments = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    if len(arguments) == 1 and is_graph(arguments[0]):
        named = _named(_called(model), arguments[0])
        if named:
            return model(**named)
    return model(*arguments)


def _called(model: nn.Module) -> nn.Module:
    """Whose ``forward`` says what is wanted: a wrapper takes whatever its network does."""
    parameters = inspect.signature(model.forward).parameters.values()
    wraps = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return getattr(model, "network", model) if wraps else model


def moved(batch: Any, device: torch.device) -> Any:
    """The same batch on a device; what cannot be moved stays."""
    return tree_map(lambda leaf: leaf.to(device) if hasattr(leaf, "to") else leaf, batch)


def doubled(value: Any) -> Any:
    """The same with floating-point tensors in float64."""
    if is_graph(value):
        return value.clone().apply(doubled)
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def rows(inputs: Sequence[Any]) -> dict[str, Tensor]:
    """The sample that each row belongs to, for every kind of rows that a layer may see.

    Returns:
        ``{"samples": [samples]}`` and, for a batch of graphs, ``nodes`` and ``edges``. Empty where
        nothing can be told.
    """
    graph = next((value for value in inputs if is_graph(value)), None)
    if graph is None:
        first = next((v for v in tree_leaves(list(inputs)) if isinstance(v, Tensor)), None)
        if first is None:
            return {}
        count = len(first) if first.dim() else 1
        return {"samples": torch.arange(count, device=first.device)}
    edges = getattr(graph, "edge_index", None)
    nodes = getattr(graph, "batch", None)
    like = next(v for v in graph.to_dict().values() if isinstance(v, Tensor))
    if nodes is None:
        nodes = torch.zeros(graph.num_nodes, dtype=torch.long, device=like.device)
    count = getattr(graph, "num_graphs", None) or 1
    found = {"samples": torch.arange(count, device=like.device), "nodes": nodes}
    return found if edges is None else {**found, "edges": nodes[edges[1]]}


def _named(network: nn.Module, graph: Any) -> dict[str, Any]:
    """What a batch is taken apart into: nothing if ``forward`` wants a single argument."""
    parameters = [
        p
        for p in inspect.signature(network.forward).parameters.values()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    required = [p.name for p in parameters if p.default is p.empty]
    if len(required) < 2:
        return {}
    found = {p.name: getattr(graph, p.name, None) for p in parameters}
    for name in required:
        if found[name] is None and name != "batch":  # a single graph has none
            raise ConfigError(
                f"{type(network).__name__}.forward needs {name}, but the batch has none; give the "
                f"graphs a {name}, or give the arguments as a tuple"
            )
    widths = [m.edge_dim for m in network.modules() if hasattr(m, "edge_dim")]
    if widths and all(width is None for width in widths) and "edge_attr" not in required:
        found.pop("edge_attr", None)  # PyG's attention fails on features that it was not built for
    return {k: v for k, v in found.items() if k in required or isinstance(v, Tensor)}
