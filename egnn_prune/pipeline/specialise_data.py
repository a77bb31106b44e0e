"""The structures that a pretrained potential is specialised on: read, split, kept in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch_geometric.data import Data

from egnn_prune import data as sources
from egnn_prune.ase.structures import graph_of, problem, read_structures
from egnn_prune.configs.specialise_settings import StructureSettings
from egnn_prune.data import GraphDataset, ase_files, random_splits
from egnn_prune.data.config_weights import without_weights
from egnn_prune.data.duplicates import equal_structures, grouped_splits
from egnn_prune.data.isolated import is_isolated
from egnn_prune.data.labels import config_type, energies_of, per_structure
from egnn_prune.data.store import HEAVIEST, GraphStore, not_an_element
from egnn_prune.errors import DataError
from egnn_prune.system import files
from egnn_prune.system.array_reading import MADE_AGAIN, read_arrays

#: Structures of which a specialist can be made: one each to validate and test on.
FEWEST = 10
UNITS = {"pos": "Angstrom", "y": "eV", "forces": "eV/Angstrom", "cell": "Angstrom"}
#: What a labelled file holds per atom and per structure.
PER_ATOM, PER_STRUCTURE = ("z", "pos", "forces"), ("y", "cell", "pbc", "stress", "record")


def read_labelled(settings: StructureSettings, seed: int) -> GraphDataset:
    """The structures of a file with their energies and forces, split at random.

    Raises:
        DataError: they cannot be read or have no such labels, or there are too few.
    """
    assert settings.path is not None
    path = Path(settings.path).expanduser()
    _refuse_unlabelled(path, settings)
    dataset = sources.load("extxyz", path, settings.target, seed)
    if "forces" not in dataset.units:
        raise DataError(
            f"{path} has energies ({dataset.target}) without forces, and potentials learn from "
            "both; add forces, or let the teacher label the structures with labels=teacher"
        )
    assert isinstance(dataset.graphs, GraphStore)
    _refuse_copies(dataset.graphs, path.name)
    return _limited(replace(dataset, notes=without_weights(dataset.notes)), settings)


def read_unlabelled(settings: StructureSettings, seed: int) -> GraphDataset:
    """The structures of a file without any labels (energies are zero), split in the same way.

    Raises:
        DataError: they cannot be read or used, or there are too few.
    """
    assert settings.path is not None
    path = Path(settings.path).expanduser()
    structures = []
    for k, atoms in enumerate(read_structures(path)):
        if len(atoms) and atoms.numbers.min() < 1:
            raise DataError(not_an_element(k, path.name, int(atoms.numbers.min())))
        if wrong := problem(atoms, range(1, HEAVIEST + 1)):
            raise DataError(f"structure {k} of {path} {wrong}")
        if not is_isolated(atoms):
            structures.append(atoms)
    dataset = split_structures(structures, path.name, seed)
    types = [config_type(atoms) for atoms in structures]
    return _limited(replace(dataset, types=types if any(types) else []), settings)


def split_structures(structures: Sequence[Atoms], name: str, seed: int) -> GraphDataset:
    """Structures of ASE without labels as a data set, equal ones on one side of the split.

    Raises:
        DataError: there are too few.
    """
    _refuse_few(len(structures), name)
    graphs = [graph_of(atoms) for atoms in structures]
    for graph in graphs:
        graph.y = torch.zeros(1, dtype=torch.float64)
    store = stored(graphs)
    _refuse_copies(store, name)
    splits, notes = grouped_splits(store, lambda count: random_splits(count, seed), name)
    return GraphDataset(name, "energy", "eV", True, store, splits, units=dict(UNITS), notes=notes)


def refuse_unknown_elements(dataset: GraphDataset, known: Sequence[int], teacher: str) -> None:
    """Refuse structures with elements that the teacher was not trained on, naming the first.

    Raises:
        DataError: there is one.
    """
    for graph in (g for split in ("train", "val", "test") for g in dataset.split(split)):
        if unknown := sorted(set(graph.z.tolist()) - set(known)):
            listed = ", ".join(chemical_symbols[z] for z in sorted(known)[:12])
            more = f" and {len(known) - 12} more" if len(known) > 12 else ""
            raise DataError(
                f"structure {int(graph.record)} of {dataset.name} has the element "
                f"{chemical_symbols[unknown[0]]}, which the teacher {teacher} does not know; it "
                f"knows {listed}{more}: leave such structures out, or take another teacher"
            )


def replaced(dataset: GraphDataset, parts: Mapping[str, Sequence[Data]]) -> GraphDataset:
    """The data set with other graphs in its splits, such as labelled ones; ``row`` counts anew.

    Graphs beyond those that a split had, such as shaken copies, are of no type.
    """
    graphs, splits, start = [], {}, 0
    types: list[str] = []
    for name, some in parts.items():
        graphs += list(some)
        splits[name] = torch.arange(start, len(graphs))
        start = len(graphs)
        types += dataset.types_of(name)
        types += [""] * (start - len(types))
    store = stored(graphs)
    units = {k: v for k, v in UNITS.items() if k in store.nodes or k in store.graphs}
    types = types if any(types) else []
    return replace(dataset, graphs=store, splits=splits, units=units, types=types)


def stored(graphs: Sequence[Data]) -> GraphStore:
    """Graphs in arrays; molecules among periodic structures have a cell of zeros."""
    periodic = any(g.get("pbc") is not None and bool(g.pbc.any()) for g in graphs)
    blank = {"cell": torch.zeros(1, 3, 3), "pbc": torch.zeros(1, 3, dtype=torch.bool)}

    def column(name: str) -> np.ndarray:
        found = [g.get(name) for g in graphs]
        return torch.cat([blank[name] if x is None else x for x in found]).cpu().numpy()

    def shared(names: Sequence[str]) -> dict[str, np.ndarray]:
        everywhere = [n for n in names if all(g.get(n) is not None for g in graphs)]
        lattice = [n for n in names if n in blank and periodic]
        return {n: column(n) for n in dict.fromkeys([*everywhere, *lattice])}

    sizes = [len(graph.pos) for graph in graphs]
    return GraphStore(np.cumsum([0, *sizes]), shared(PER_ATOM), shared(PER_STRUCTURE))


def write_dataset(path: Path, dataset: GraphDataset) -> None:
    """Write the splits of a data set as one file of arrays; nothing in it needs unpickling.

    ``record`` says which structure of the user's file each was.
    """
    parts = {s: list(dataset.split(s)) for s in ("train", "val", "test")}
    for graph in (g for graphs in parts.values() for g in graphs):
        graph.record = graph.get("record", graph.row)
    whole = replaced(dataset, parts)
    assert isinstance(whole.graphs, GraphStore)
    about = {"name": dataset.name, "target": dataset.target, "unit": dataset.unit}
    arrays: dict[str, Any] = {**whole.graphs.nodes, **whole.graphs.graphs}
    if whole.types:
        arrays["types"] = np.array(whole.types)
    arrays |= {f"split_{name}": rows.numpy() for name, rows in whole.splits.items() if len(rows)}
    files.write_arrays(
        path, offset=whole.graphs.offset, about=np.array([json.dumps(about)]), **arrays
    )


def read_dataset(path: Path) -> GraphDataset:
    """What :func:`write_dataset` wrote."""
    arrays = read_arrays(path, advice=MADE_AGAIN)
    nodes = {k: arrays[k] for k in PER_ATOM if k in arrays}
    graphs = {k: arrays[k] for k in PER_STRUCTURE if k in arrays}
    splits = {
        k.removeprefix("split_"): torch.from_numpy(v)
        for k, v in arrays.items()
        if k.startswith("split_")
    }
    units = {k: v for k, v in UNITS.items() if k in arrays}
    about = json.loads(str(arrays["about"][0]))
    about["types"] = arrays["types"].tolist() if "types" in arrays else []
    store = GraphStore(arrays["offset"], nodes, graphs)
    return GraphDataset(extensive=True, graphs=store, splits=splits, units=units, **about)


def _refuse_unlabelled(path: Path, settings: StructureSettings) -> None:
    """Say, before the whole file is parsed, that labels=teacher does without energies."""
    if not path.is_file():
        raise DataError(f"there is no file {path}; check data.path")
    first = list(islice(ase_files.read_structures(path), FEWEST))
    if not settings.target and not any(map(energies_of, first)):
        there = [key for atoms in first[:1] for key in _numbers_of(atoms)]
        named = f"it has {', '.join(there[:8])}; " if there else ""
        raise DataError(
            f"{path} has structures without energies of a usual name, and labels=data learns from "
            f"them; {named}name the key of the energy with data.target=KEY (its forces have to "
            "match it by name, such as REF_energy and REF_forces), or say labels=teacher to let "
            "the teacher label them"
        )
    _refuse_few(len(first), path.name)


def _numbers_of(atoms: Atoms) -> list[str]:
    """Names of the single numbers of a structure, any of which may be the energy."""
    found = {key: np.asarray(value) for key, value in per_structure(atoms).items()}
    return sorted(k for k, v in found.items() if v.size == 1 and v.dtype.kind in "iuf")


def _refuse_few(count: int, name: str) -> None:
    if count < FEWEST:
        raise DataError(
            f"{name} holds {count} structure{'s' * (count != 1)} besides isolated atoms; at least "
            f"{FEWEST} are needed, to train, validate and test on different ones"
        )


def _refuse_copies(store: GraphStore, name: str) -> None:
    """Copies of a structure teach nothing about others."""
    count = len(store.offset) - 1
    different = len(np.unique(equal_structures(store, np.arange(count))))
    if different < FEWEST <= count:
        raise DataError(
            f"of the {count} structures in {name} {different} are different; at least {FEWEST} are "
            "needed, to train, validate and test on different ones"
        )
    _refuse_few(count, name)


def _limited(dataset: GraphDataset, settings: StructureSettings) -> GraphDataset:
    for split in ("val", "test"):
        dataset.splits[split] = dataset.splits[split][: settings.held_out]
    return dataset.limited(settings.limit)
