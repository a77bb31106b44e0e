"""Which copies and paths of an adopted potential go."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from egnn_prune.adapters.interaction_network import orders_of
from egnn_prune.adapters.potential import AdoptedPotential
from egnn_prune.pruning import choose


def copies_and_paths(
    model: AdoptedPotential, scores: dict[str, Tensor], conv: float, paths: float
) -> dict[str, Tensor]:
    """Which copies and paths stay, ``{group: boolean [n]}``, of all groups that are offered.

    Copies into the convolution are ranked within their irrep and layer, so that every irrep loses
    the same share: ``conv`` of the copies. Paths are ranked by importance over cost in the whole
    network, and the least important ones go; one that is so dear that more than ``paths`` of the
    cost would go is passed over.
    Every irrep and every layer keeps one.

    Args:
        model: the potential, dense.
        scores: for each group ``[n]``, higher is more important.
        conv: share of the copies that goes, in [0, 1).
        paths: share of the tensor products' cost that goes, in [0, 1).
    """
    groups = model.channel_groups()
    names = {kind: [g.name for g in groups if g.kind == kind] for kind in {g.kind for g in groups}}
    wires = [n for kind in ("conv", "message") for n in names.get(kind, [])]
    keep = choose({n: scores[n] for n in wires}, conv, "group") if wires else {}
    costs = {name: path_cost(model, name) for name in names.get("path", [])}
    allowed, left = paths * sum(costs.values()), dict.fromkeys(costs, True)
    layer = {name: name.rpartition(".")[0] for name in costs}
    for name in sorted(costs, key=lambda n: float(scores[n].sum()) / costs[n]):
        others = any(left[n] for n in costs if n != name and layer[n] == layer[name])
        if costs[name] <= allowed and others:
            allowed -= costs[name]
            left[name] = False
    keep |= {name: torch.tensor([stays]) for name, stays in left.items()}
    rest = {g.name: torch.ones(g.n, dtype=torch.bool) for g in groups if g.name not in keep}
    return keep | rest


def path_cost(model: AdoptedPotential, name: str) -> float:
    """What a path's tensor product takes on an edge: copies times (2 l1 + 1) (2 l3 + 1)."""
    _, _, t, _, k = name.split(".")
    layer: Any = model.network.layers[int(t)]
    first, _, third = orders_of(layer.shape.paths[int(k)])
    return float(layer.conv[layer.shape.paths[int(k)][0]] * (2 * first + 1) * (2 * third + 1))
