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


def is_graph(value: Any) -> bool:
    """Whether this is a PyG graph, or a batch of them."""
    return not isinstance(value, Tensor) and hasattr(type(value), "num_nodes")


def call(model: nn.Module, inputs: Any) -> Any:
    """Run a model on one input, or on several.

    ``model(inputs)`` for a tensor or any other single object, ``model(*inputs)`` for a tuple or
    list. A PyG batch goes as it is to a ``forward`` with one required argument. Where it has
    several, such as ``forward(x, edge_index)`` of PyG's networks or
    ``forward(z, pos, batch=None)``, each gets what the batch has under its name, and ``batch`` too
    where there is such an argument.
    """
    arguments = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    if len(arguments) == 1 and is_graph(arguments[0]):
        names = _named(getattr(model, "network", model))
        if names:
            graph = arguments[0]
            return model(**{name: getattr(graph, name, None) for name in names})
    return model(*arguments)


def doubled(value: Any) -> Any:
    """The same with floating-point tensors in float64."""
    if is_graph(value):
        return value.clone().apply(doubled)
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def rows(inputs: Sequence[Any]) -> dict[str, Tensor]:
    """The sample that each row belongs to, for every kind of rows that a layer may see.

    Args:
        inputs: what a network is called with.

    Returns:
        ``{"samples": [samples]}`` and, for a batch of graphs, ``nodes`` and ``edges``. Empty where
        nothing can be told.
    """
    graph = next((value for value in inputs if is_graph(value)), None)
    if graph is None:
        first = next(_tensors(inputs), None)
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


def _named(network: nn.Module) -> list[str]:
    """Arguments that a batch is taken apart for: none if ``forward`` wants a single one."""
    parameters = inspect.signature(network.forward).parameters.values()
    names = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    if len(names) < 2:
        return []
    return names + [p.name for p in parameters if p.name == "batch" and p.name not in names]


def _tensors(values: Any) -> Any:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())
