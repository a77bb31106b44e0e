"""Random graphs of a case, the same for every variant."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from egnn_prune.bench.cases import FEATURES, NEIGHBOURS, Case
from egnn_prune.graphs import complete_edges, with_edges

TINY: dict[str, Any] = {"graphs": 2, "nodes": 4}
"""The other shape on which a fresh process warms up."""


@dataclass(frozen=True)
class Inputs:
    """A batch as PyG has it, with its edges found.

    Attributes:
        batch: with ``x``, ``pos``, ``z``, ``edge_index``.
        graphs: how many.
    """

    batch: Batch
    graphs: int

    @property
    def x(self) -> Tensor:
        """``[N, features]``."""
        return self.batch.x

    @property
    def pos(self) -> Tensor:
        """``[N, 3]``."""
        return self.batch.pos

    @property
    def edge_index(self) -> Tensor:
        """``[2, E]``, source above target, sorted by target."""
        return self.batch.edge_index

    def at(self, pos: Tensor) -> Inputs:
        """The same graphs with their atoms elsewhere, such as where gradients are wanted."""
        batch = copy.copy(self.batch)
        batch.pos = pos
        return replace(self, batch=batch)


def side(nodes: int, cutoff: float | None) -> float:
    """Edge of the cube that atoms lie in; with a cutoff such that each has about 20 neighbours."""
    if cutoff is None:
        return 6.0
    return cutoff * (nodes * 4.0 / 3.0 * math.pi / NEIGHBOURS) ** (1.0 / 3.0)


def inputs_of(case: Case, device: str) -> Inputs:
    """Random atoms, equally dense everywhere, with the case's edges."""
    generator = torch.Generator().manual_seed(0)
    shape = (case.graphs, case.nodes)
    pos = torch.rand(*shape, 3, generator=generator) * side(case.nodes, case.cutoff)
    x = torch.randn(*shape, FEATURES, generator=generator)
    z = torch.randint(0, 3, shape, generator=generator)
    graphs = [Data(x=x[i], pos=pos[i], z=z[i]) for i in range(case.graphs)]
    batch = Batch.from_data_list(graphs)
    if case.network == "irreps":
        batch = with_edges(batch, case.cutoff)
    elif case.cutoff is None:
        batch.edge_index = complete_edges(batch.ptr)
    else:  # as the user's own edges: networks without an envelope, as the textbook is, take them
        batch.edge_index = with_edges(batch, case.cutoff).edge_index
    return Inputs(batch.to(device), case.graphs)


def tiny_inputs(case: Case, device: str) -> Inputs:
    """A batch of another shape that the same networks take."""
    return inputs_of(replace(case, **TINY), device)
