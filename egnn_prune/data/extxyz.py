"""Structures from a file that ASE reads, such as extended XYZ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from egnn_prune.data.dataset import GraphDataset, random_splits
from egnn_prune.errors import DataError


def load_extxyz(path: str | Path, target: str | None = None, seed: int = 0) -> GraphDataset:
    """Read structures and one number of each from ``path`` (gzipped files too).

    Args:
        path: the file; units as ASE has them (Angstrom, eV).
        target: a key of the comment line (``Atoms.info``), by default ``energy``, which is also
            taken from an attached calculator.
        seed: of the random 80/10/10 split.

    Raises:
        DataError: the file is missing or cannot be parsed, or a structure lacks the target.
    """
    import ase.io

    path, target = Path(path), target or "energy"
    if not path.is_file():
        raise DataError(f"there is no file {path}; check data.path")
    structures: list[Any] = []
    try:
        for atoms in ase.io.iread(path, ":"):
            structures.append(atoms)
    except Exception as error:  # ASE raises whatever its many parsers raise
        where = f"structure {len(structures)} of {path}" if structures else path
        what = " ".join(str(error).split())
        raise DataError(f"ASE cannot read {where}: {type(error).__name__}: {what}") from None
    graphs = []
    for k, atoms in enumerate(structures):
        results = atoms.calc.results if atoms.calc is not None else {}
        value = atoms.info.get(target, results.get(target))
        if value is None or np.size(value) != 1 or np.asarray(value).dtype.kind not in "iuf":
            known = ", ".join(sorted({*atoms.info, *results})) or "nothing"
            raise DataError(f"structure {k} of {path} has no number {target!r} (it has: {known})")
        if atoms.pbc.any():
            raise DataError(
                f"structure {k} of {path} is periodic, which is not supported; its neighbours "
                "across the cell's faces would be missing"
            )
        graph = Data(
            z=torch.from_numpy(atoms.numbers.astype(np.int64)),
            pos=torch.from_numpy(atoms.positions.astype(np.float64)),
            y=torch.tensor([float(np.ravel(value)[0])], dtype=torch.float64),
            row=torch.tensor([k]),
        )
        if "forces" in results:
            graph.forces = torch.from_numpy(np.asarray(results["forces"], dtype=np.float32))
        graphs.append(graph)
    return GraphDataset(
        name=path.name,
        target=target,
        unit="eV" if "energy" in target else "data unit",
        extensive="energy" in target and "per_atom" not in target,
        graphs=graphs,
        splits=random_splits(len(graphs), seed),
    )
