"""The file of a pool: structures that a specialised potential may learn from, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from torch_geometric.data import Data

from egnn_prune.ase.structures import graph_of, problem
from egnn_prune.configs.specialise_settings import SpecialiseSettings
from egnn_prune.data.ase_files import read_structures
from egnn_prune.data.duplicates import equal_structures
from egnn_prune.data.isolated import is_isolated
from egnn_prune.data.labels import Labels, energies_of
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.pipeline.specialise_data import stored
from egnn_prune.training.distillation import bare


@dataclass(frozen=True)
class Pool:
    """Structures to choose from.

    Attributes:
        graphs: the structures, with their own labels where they have some.
        labelled: whether they have.
        left_out: how many were structures of the run, or copies of each other.
    """

    graphs: list[Data]
    labelled: bool
    left_out: int


def check_pool(settings: SpecialiseSettings) -> None:
    """Refuse settings of the pool that cannot work, before the first stage.

    Raises:
        ConfigError: there is no such file, rounds would have too few structures, nothing says
            how uncertain they are, or there is no pool that settings are about.
        DataError: the file cannot be read, or holds too few structures.
    """
    usual = SpecialiseSettings()
    if settings.pool is None:
        for name in ("label", "selection", "rounds"):
            if getattr(settings, name) != getattr(usual, name):
                raise ConfigError(f"{name} is about a pool, and there is none; say pool=FILE")
        return
    if settings.uncertainty.method == "none" and settings.selection != "random":
        raise ConfigError(
            f"selection={settings.selection} goes by error bars, and uncertainty.method=none makes "
            "none; choose another method, or selection=random"
        )
    path = Path(settings.pool).expanduser()
    if not path.is_file():
        raise ConfigError(f"there is no file {path}; check pool")
    if settings.label < 2 * settings.rounds:
        raise ConfigError(
            f"label={settings.label} structures are too few for rounds={settings.rounds}: each "
            "round learns from at least one and is judged by another; raise label, or lower rounds"
        )
    count = sum(not is_isolated(atoms) for atoms in read_structures(path))
    if count < settings.label:  # now, not after the training
        raise DataError(
            f"the pool {path.name} holds {_structures(count)}, and label={settings.label} are to "
            "be chosen; lower label, or give a larger pool"
        )


def _structures(count: int) -> str:
    return f"{count} structure{'' if count == 1 else 's'}"


def read_pool(
    settings: SpecialiseSettings, elements: Sequence[int], own: Sequence[Data], held: Sequence[Data]
) -> Pool:
    """The structures of the pool's file that are not in the run.

    Args:
        settings: of the run.
        elements: that the network knows.
        own: structures that are trained on.
        held: structures that are validated or tested on, which must not be learned.

    Raises:
        DataError: a structure cannot be read, or has an element that the network does not know;
            or too few are left.
    """
    assert settings.pool is not None
    path = Path(settings.pool).expanduser()
    found = [atoms for atoms in read_structures(path) if not is_isolated(atoms)]
    for k, atoms in enumerate(found):
        if wrong := problem(atoms, elements):
            raise DataError(f"structure {k} of the pool {path} {wrong}")
    graphs = [graph_of(atoms) for atoms in found]
    alike(graphs, own[0].get("cell") is not None, path)
    labelled = settings.labels == "data" and any(map(energies_of, found))
    if labelled:
        add_labels(graphs, found, settings.data.target, path)
    groups = equal_structures(
        stored([bare(graph) for graph in (*own, *held, *graphs)]),
        np.arange(len(own) + len(held) + len(graphs)),
    )
    known = set(groups[: len(own) + len(held)].tolist())
    kept = []
    for graph, group in zip(graphs, groups[len(own) + len(held) :].tolist(), strict=True):
        if group not in known:
            known.add(group)
            kept.append(graph)
    if len(kept) < settings.label:
        left = len(graphs) - len(kept)
        raise DataError(
            f"of the {_structures(len(graphs))} of the pool {path.name} {len(kept)} are not in the "
            f"run ({left} copies are left out), and label={settings.label} are to be chosen; lower "
            "label, or give a larger pool"
        )
    return Pool(kept, labelled, len(graphs) - len(kept))


def alike(graphs: list[Data], periodic: bool, path: Path) -> None:
    """Give molecules the empty cell that they have among periodic structures.

    Raises:
        DataError: a structure is periodic, and those of the run are not.
    """
    for k, graph in enumerate(graphs):
        if not periodic and graph.get("cell") is not None:
            raise DataError(
                f"structure {k} of the pool {path} is periodic, and the run has molecules only; "
                "leave such structures out"
            )
        if periodic and graph.get("cell") is None:
            graph.cell = torch.zeros(1, 3, 3, dtype=torch.float64)
            graph.pbc = torch.zeros(1, 3, dtype=torch.bool)


def add_labels(graphs: list[Data], found: list[Atoms], target: str | None, path: Path) -> None:
    """Put the energies and forces of a file into the graphs of its structures.

    Raises:
        DataError: a structure has none, or they are NaN or infinite.
    """
    labels = Labels.of(found, target, str(path))
    energy, _, force = labels.units.factors(path.name)
    for k, (graph, atoms) in enumerate(zip(graphs, found, strict=True)):
        where = f"structure {k} of the pool {path}"
        forces = labels.vectors(atoms, where)
        if forces is None:
            raise DataError(f"{where} has an energy without forces; add them, or remove energies")
        graph.y = torch.tensor([labels.number(atoms, where) * energy], dtype=torch.float64)
        graph.forces = torch.from_numpy(forces * force).double()
        if not (bool(graph.y.isfinite().all()) and bool(graph.forces.isfinite().all())):
            raise DataError(f"{where} has a NaN or infinite label; leave it out")
