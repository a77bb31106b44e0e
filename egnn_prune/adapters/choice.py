"""Which copies and paths of an adopted potential go: by shares, or by the time that may be left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.adapters.interaction_network import orders_of
from egnn_prune.adapters.potential import AdoptedPotential
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import choose

#: Of the tensor products' cost, the share that goes with paths for each share of the copies: what
#: the prototype found to cost least (75 % of the copies with 50 % of the paths).
PATHS_PER_COPY = 2 / 3
#: The largest share of the copies that may go.
MOST = 0.95
#: Halvings of the interval in which the share lies.
HALVINGS = 6


def copies_and_paths(
    model: AdoptedPotential, scores: dict[str, Tensor], conv: float, paths: float
) -> dict[str, Tensor]:
    """Which copies and paths stay, ``{group: boolean [n]}``, of all groups that are offered.

    Copies into the convolution are ranked within their irrep and layer, so that every irrep loses
    the same share: ``conv`` of the copies. Paths are ranked by importance over cost in the whole
    network, and the least important ones go until the next would exceed ``paths`` of the cost.
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


def within_latency(
    model: AdoptedPotential,
    scores: dict[str, Tensor],
    share: float,
    latency: Callable[[nn.Module], float],
    dense: float | None = None,
    paths_per_copy: float = PATHS_PER_COPY,
) -> tuple[dict[str, Tensor], float, float]:
    """The fewest copies and paths removed so that a measured time is met.

    Bisection over the share of the copies; every step builds the smaller network and measures it.

    Args:
        model: the potential, dense.
        scores: for each group ``[n]``, higher is more important.
        share: of the dense network's time that may be left, in (0, 1].
        latency: measures a network, such as ``latency_of(lambda m: energy_and_forces(m, batch))``.
        dense: what it measured of the dense network; measured here unless given.
        paths_per_copy: share of the paths' cost that goes for each share of the copies.

    Returns:
        What stays of each group, the share of the copies that goes, and the latency.

    Raises:
        ConfigError: the share is out of range, or cannot be met.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"a budget is a share of the teacher's time, in (0, 1], not {share}")
    dense = latency(model) if dense is None else dense

    def measured(conv: float) -> tuple[dict[str, Tensor], float]:
        keep = copies_and_paths(model, scores, conv, conv * paths_per_copy)
        small = model.resized({name: mask.nonzero().flatten() for name, mask in keep.items()})
        return keep, latency(small.to(model.atom_scale.device).train(model.training))

    low, high = 0.0, MOST
    keep, time = measured(high)
    if time > share * dense:
        raise ConfigError(
            f"a budget of {share:.0%} of the teacher's time cannot be met: with {MOST:.0%} of the "
            f"copies removed, {time / dense:.0%} remains; allow more (budget={time / dense:.2f})"
        )
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        tried, needs = measured(middle)
        if needs <= share * dense:
            high, keep, time = middle, tried, needs
        else:
            low = middle
    return keep, high, time
