"""How long energies and forces take: the potential's own code, translated, and made small."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import ase
import torch
from ase.build import molecule
from torch import nn
from torch_geometric.data import Batch

from egnn_prune.adapters import AdoptedPotential
from egnn_prune.ase.structures import graph_of
from egnn_prune.models import energy_and_forces
from egnn_prune.runs.result_store import Row
from egnn_prune.studies.specialisation_systems import water_box
from egnn_prune.system.timing import alternating_times

#: Molecules on an edge of a box of water: 6, 48, 162, 384 and 750 atoms; 0: one ethanol molecule.
EDGES = (0, 1, 2, 3, 4, 5)
REPEATS, WARMUP = 9, 2


def latencies(
    models: Mapping[str, nn.Module], teacher: str, *, compiled: bool = False
) -> list[Row]:
    """Median times of all models on structures of 9 to 750 atoms, measured by turns.

    Neighbour lists are there already. SevenNet's own code is timed beside them.

    Args:
        models: by the name of the arm, the first one dense.
        teacher: its name for ``sevenn``.
        compiled: whether the models are compiled (SevenNet's own code is not).
    """
    rows: list[Row] = []
    for edge in EDGES:
        atoms = water_box(edge) if edge else molecule("CH3CH2OH")
        runs = {} if compiled else {"own code": own_code(teacher, atoms)}
        for name, model in models.items():
            assert isinstance(model, AdoptedPotential)
            batch = model.eval().prepared(Batch.from_data_list([graph_of(atoms)]))
            called = torch.compile(model, dynamic=True) if compiled else model
            runs[name] = partial(energy_and_forces, cast(nn.Module, called), batch)
        repeats = REPEATS if len(atoms) < 300 else 5
        times = alternating_times(runs, repeats, WARMUP, "cpu")
        for name, found in times.items():
            middle = sorted(found)[len(found) // 2]
            cell = {"part": "speed", "arm": name, "atoms": len(atoms), "compiled": compiled}
            rows.append({**cell, "latency_ms": middle, "fastest_ms": min(found)})
    return rows


def own_code(teacher: str, atoms: ase.Atoms) -> Callable[[], object]:
    """SevenNet's own energies and forces of a structure, with its neighbours found before."""
    from sevenn.atom_graph_data import AtomGraphData
    from sevenn.train.dataload import unlabeled_atoms_to_graph
    from sevenn.util import model_from_checkpoint

    network: Any = model_from_checkpoint(teacher)[0]
    network.eval().set_is_batch_data(False)
    graph = AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(atoms, network.cutoff))
    return lambda: network(graph.clone())
