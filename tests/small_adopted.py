"""Somebody else's potential in small, without their package, for tests of its use."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch_geometric.data import Batch, Data

from egnn_prune.adapters import AdoptedPotential
from egnn_prune.adapters.activations import Activation, Activations
from egnn_prune.adapters.interaction_layer import LayerShape
from egnn_prune.adapters.interaction_network import InteractionNetwork, InteractionOptions
from egnn_prune.adapters.radial import RadialOptions
from egnn_prune.pruning import apply_masks

ELEMENTS = (8, 1, 6)  # in no order, as others have them
CUTOFF = 3.0
#: Of even and odd scalars, gates and the radial network, with e3nn's constants (normalize2mom).
SILU = ("silu", 1.6791767923989418)
FUNCTIONS = (SILU, ("tanh", 1.5937334472592695), SILU, SILU)
#: No float32 holds them: the last digits are lost where they are cast.
SHIFTS = (-2041.123456789012, -13.587654321098, -1029.876543210987)


def potential(
    dtype: torch.dtype = torch.float64, seed: int = 0, self_connection: str = "linear"
) -> AdoptedPotential:
    """Three layers without parity, as SevenNet-0 has them; untrained."""
    torch.manual_seed(seed)
    shapes = []
    for conv, made in pairwise(("4x0e", "4x0e+2x1e", "4x0e+2x1e", "4x0e")):
        sources, targets = ([part.split("x")[1] for part in s.split("+")] for s in (conv, made))
        listed = [
            (f"{s}e", l, f"{t}e", True)
            for s in (int(ir[0]) for ir in sources)
            for l in range(2)  # noqa: E741
            for t in (int(ir[0]) for ir in targets)
            if abs(s - l) <= t <= s + l
        ]
        shapes.append(LayerShape(conv, made, (4, 4), tuple(sorted(listed, key=lambda p: p[2]))))
    options = InteractionOptions(
        RadialOptions(CUTOFF, 4, "xplor", 2.5, 2.0 / CUTOFF),
        1,
        Activations(*[Activation(name, factor) for name, factor in FUNCTIONS]),
        self_connection,
    )
    network = InteractionNetwork(len(ELEMENTS), 4, shapes, [3], options)
    model = AdoptedPotential(network, ELEMENTS, SHIFTS, (1.7, 1.8, 1.9))
    return model.to(dtype).eval()


def masked(model: AdoptedPotential) -> AdoptedPotential:
    """Half of the copies into the convolution and some paths, held at zero."""
    groups = model.channel_groups()
    keep = {g.name: torch.arange(g.n) % 2 == 0 for g in groups if g.kind == "conv"}
    paths = [g.name for g in groups if g.kind == "path"]
    apply_masks(model, keep | {name: torch.tensor([k % 3 > 0]) for k, name in enumerate(paths)})
    return model


def structures(*sizes: int, periodic: bool = False) -> Batch:
    """Random atoms, of all elements."""
    generator = torch.Generator().manual_seed(len(sizes))
    graphs = []
    for size in sizes:
        places = torch.rand(size, 3, generator=generator, dtype=torch.float64)
        graph = Data(pos=1.6 * size ** (1 / 3) * places)
        graph.z = torch.tensor(ELEMENTS)[torch.arange(size) % 3]
        if periodic:
            graph.cell = (3.0 + 0.3 * torch.arange(9.0, dtype=torch.float64).view(1, 3, 3)).tril()
            graph.pbc = torch.ones(1, 3, dtype=torch.bool)
        graphs.append(graph)
    return Batch.from_data_list(graphs)
