"""Molecules in one ``.npz``: flat arrays of atoms and an offset for each molecule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data

from egnn_prune.data.dataset import GraphDataset, random_splits
from egnn_prune.errors import DataError

#: Targets that grow with the number of atoms; names ending in ``_atom`` (QM9's atomisation
#: energies) do too.
EXTENSIVE = ("energy", "atomisation_energy", "u0", "u298", "h298", "g298", "zpve", "cv", "alpha")
REQUIRED = ("offset", "z", "pos", "targets", "target_names")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file, without ever unpickling.

    Raises:
        DataError: the file is missing, truncated, pickled, or lacks a required array.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}; check data.path")
    try:
        with path.open("rb") as handle, np.lib.npyio.NpzFile(handle) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except Exception as error:  # numpy, zipfile and zlib raise some ten different ones
        raise DataError(
            f"{path} is not a readable .npz without pickled objects; get a fresh copy ({error})"
        ) from None
    missing = [key for key in REQUIRED if key not in arrays]
    if missing:
        raise DataError(f"{path} lacks the array(s) {', '.join(missing)}")
    return arrays


def check_arrays(arrays: dict[str, np.ndarray], name: str) -> None:
    """Refuse arrays that do not fit together.

    Raises:
        DataError: names the file, the array and, where it is one, the molecule.
    """
    for key, kinds in (("offset", "iu"), ("z", "iu"), ("split", "iu"), ("target_names", "U")):
        if key in arrays and (arrays[key].dtype.kind not in kinds or arrays[key].ndim != 1):
            wanted = "strings" if kinds == "U" else "integers"
            raise DataError(f"{key} of {name} must be a flat array of {wanted}")
    for key in ("pos", "targets", "forces"):
        if key in arrays and arrays[key].dtype.kind not in "iuf":
            raise DataError(f"{key} of {name} must hold numbers, not {arrays[key].dtype}")
    offset, atoms = arrays["offset"].astype(np.int64), len(arrays["z"])
    empty = (np.diff(offset) < 1).nonzero()[0]
    if len(empty):
        raise DataError(f"the offsets of {name} leave no atoms to molecule {empty[0]}")
    if len(offset) < 2 or offset[0] != 0 or offset[-1] != atoms:
        raise DataError(f"the offsets of {name} must run from 0 to its {atoms} atoms")
    count, targets = len(offset) - 1, len(arrays["target_names"])
    for key, shape in (
        ("pos", (atoms, arrays["pos"].shape[-1] if arrays["pos"].ndim == 2 else 3)),
        ("targets", (count, targets)),
        ("forces", arrays["pos"].shape),
        ("split", (count,)),
        ("smiles", (count,)),
        ("target_units", (targets,)),
    ):
        if key in arrays and arrays[key].shape != shape:
            raise DataError(f"{key} of {name} has shape {arrays[key].shape}, not {shape}")
    if not set(arrays.get("split", np.zeros(0, int)).tolist()) <= {0, 1, 2, 3}:
        raise DataError(f"split of {name} must hold 0 train, 1 val, 2 test or 3 ood only")


def load_npz(path: str | Path, target: str | None = None, seed: int = 0) -> GraphDataset:
    """Read molecules from ``path``.

    The file holds ``offset [M+1]`` (molecule k owns atoms ``offset[k]:offset[k+1]``), ``z [A]``,
    ``pos [A, 3]`` in Angstrom, ``targets [M, K]``, ``target_names [K]``, and optionally
    ``target_units [K]``, ``forces [A, 3]``, ``smiles [M]`` and ``split [M]`` (0 train, 1 val,
    2 test, 3 ood); without ``split`` a seeded random 80/10/10 split is made.

    Args:
        path: the file.
        target: one of ``target_names``; by default the first.
        seed: of the random split.

    Raises:
        DataError: the file cannot be used, or has no such target.
    """
    path = Path(path)
    arrays = read_arrays(path)
    check_arrays(arrays, path.name)
    names = [str(n) for n in arrays["target_names"]]
    target = target or names[0]
    if target not in names:
        raise DataError(f"{path.name} has no target {target!r}; it has {', '.join(names)}")
    column = names.index(target)
    offset, count = arrays["offset"].astype(np.int64), len(arrays["offset"]) - 1
    z = torch.from_numpy(arrays["z"].astype(np.int64))
    pos = torch.from_numpy(arrays["pos"].astype(np.float64))
    y = torch.from_numpy(arrays["targets"][:, column].astype(np.float64))
    forces = torch.from_numpy(arrays["forces"]) if "forces" in arrays else None
    graphs = []
    for k, (a, b) in enumerate(zip(offset[:-1].tolist(), offset[1:].tolist(), strict=True)):
        graph = Data(z=z[a:b], pos=pos[a:b], y=y[k : k + 1], row=torch.tensor([k]))
        if forces is not None:
            graph.forces = forces[a:b]
        graphs.append(graph)
    if "split" in arrays:
        numbers = torch.from_numpy(arrays["split"].astype(np.int64))
        splits = {
            name: (numbers == i).nonzero().flatten()
            for i, name in enumerate(("train", "val", "test", "ood"))
        }
    else:
        splits = random_splits(count, seed)
    units = [str(u) for u in arrays.get("target_units", [])]
    return GraphDataset(
        name=path.stem,
        target=target,
        unit=units[column] if units else "data unit",
        extensive=target in EXTENSIVE or target.endswith("_atom"),
        graphs=graphs,
        splits=splits,
        smiles=[str(s) for s in arrays.get("smiles", [])],
    )
