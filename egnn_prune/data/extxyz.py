"""Structures from files that ASE reads, such as extended XYZ."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch import Tensor

from egnn_prune.data.ase_files import out_of_bounds, read_structures
from egnn_prune.data.cache import Arrays, cached
from egnn_prune.data.dataset import GraphDataset, random_splits
from egnn_prune.data.labels import Labels, declared, is_energy, is_total_energy
from egnn_prune.data.store import GraphStore, not_an_element, not_finite
from egnn_prune.errors import DataError

#: Structures that are held in memory while a file is parsed.
PIECE = 256
TRAIN, TEST, OOD = range(3)

log = logging.getLogger(__name__)


def load_extxyz(
    path: str | Path,
    target: str | None = None,
    seed: int = 0,
    test: str | Path | None = None,
    ood: str | Path | None = None,
) -> GraphDataset:
    """Read structures, one number of each and forces where there are any; gzipped files, too.

    Energies come in eV and lengths in Angstrom, unless comment lines declare others
    (``energy_unit=kcal/mol length_unit=Bohr``), which are converted. ``forces [N, 3]`` are read
    when the target is an energy. Structures with periodic boundaries have ``cell [1, 3, 3]`` and
    ``pbc [1, 3]``; a cell without them is ignored. ``row`` counts through all files.

    The files are parsed once, structure by structure, and kept as mapped arrays.

    Args:
        path: the file. Without ``test`` it is split at random into 80/10/10 % to train, validate
            and test on; with it, into 90/10 % to train and validate.
        target: a key of the comment line (``Atoms.info``) or of a calculator's results; by default
            the only one that is called as energies are (energy, REF_energy, dft_energy, ...).
        seed: of the random split.
        test: another file, with the test structures.
        ood: another file, out of distribution. Structures with exactly the elements and positions
            of one in ``path`` are left out of ``test`` and ``ood``: 31 of 3BPA's
            ``train_mixedT.xyz`` also are in its ``train_300K.xyz``.

    Raises:
        DataError: a file is missing or cannot be parsed, or a structure lacks the target, has
            forces where others have none, or periodic boundaries around a cell of no volume; or
            ``test`` or ``ood`` hold nothing new, or an element that ``path`` does not have.
    """
    path = Path(path)
    others = {kind: Path(f) for kind, f in ((TEST, test), (OOD, ood)) if f is not None}
    files = {TRAIN: path, **others}
    for kind, file in files.items():
        if not file.is_file():
            setting = ("path", "test", "ood")[kind]
            raise DataError(f"there is no file {file}; check data.{setting}")

    def parse(_: Path) -> Iterator[Arrays]:
        return pieces(files, target)

    variant = "|".join([target or "", *("path test ood".split()[kind] for kind in others)])
    arrays = cached(path, parse, version=2, variant=variant, others=[*others.values()])
    store, file_of = _store(arrays), torch.from_numpy(np.array(arrays["file"]))
    if (count := int((file_of == TRAIN).sum())) < 3:
        raise DataError(f"{path} holds {count} structures; at least 3 are needed")
    name = str(arrays["target"][0])
    unit = "eV" if is_energy(name) else "data unit"
    units = {"pos": "Angstrom", "y": unit, "forces": "eV/Angstrom", "cell": "Angstrom"}
    return GraphDataset(
        name=path.name,
        target=name,
        unit=unit,
        extensive=is_total_energy(name),
        graphs=store,
        splits=_splits(store, file_of, files, seed),
        units={k: v for k, v in units.items() if k in store.nodes or k in store.graphs},
    )


def pieces(files: dict[int, Path], target: str | None) -> Iterator[Arrays]:
    """Arrays of consecutive structures, file after file; the labels are those of the first file.

    Raises:
        DataError: names the file and the structure that cannot be used.
    """
    labels: Labels | None = None
    for kind, path in files.items():
        structures = read_structures(path)
        start = 0
        while piece := list(islice(structures, PIECE)):
            if labels is None:
                labels = Labels.of(piece, target, str(path))
                yield {"target": np.array([labels.target])}
            yield _arrays(piece, labels, path, start, kind)
            start += len(piece)
        if start == 0:
            raise DataError(f"{path} holds no structures")


def _arrays(piece: list[Atoms], labels: Labels, path: Path, start: int, kind: int) -> Arrays:
    energy, length, force = labels.units.factors(path.name)
    columns: dict[str, list[np.ndarray]] = {k: [] for k in ("z", "pos", "forces", "cell")}
    numbers = []
    for k, atoms in enumerate(piece, start):
        where = f"structure {k} of {path}"
        if declared(atoms, where) != labels.units:
            raise DataError(f"{where} declares other units than the structures before it")
        y = labels.number(atoms, where) * (energy if is_energy(labels.target) else 1)
        forces = labels.vectors(atoms, where)
        if not len(atoms):
            raise DataError(f"{where} has no atoms")
        labels.refuse_gradients(atoms, where)
        if atoms.numbers.min() < 1:  # "X", say
            raise DataError(not_an_element(k, path.name, int(atoms.numbers.min())))
        for name, values in (("pos", atoms.positions), ("y", y), ("forces", forces)):
            if values is not None and not np.isfinite(values).all():
                raise DataError(not_finite(k, path.name, name))
        if absurd := out_of_bounds(atoms, length):
            raise DataError(f"{where} {absurd}")
        numbers.append(y)
        columns["z"].append(atoms.numbers.astype(np.int16))
        columns["pos"].append(atoms.positions * length)
        columns["cell"].append(_cell(atoms, where) * length)
        if forces is not None:
            columns["forces"].append(forces.astype(np.float64) * force)
    arrays = {k: np.concatenate(v) for k, v in columns.items() if v}
    return arrays | {
        "y": np.array(numbers),
        "pbc": np.array([atoms.pbc for atoms in piece]),
        "size": np.array([len(atoms) for atoms in piece]),
        "file": np.full(len(piece), kind, dtype=np.uint8),
    }


def _cell(atoms: Atoms, where: str) -> np.ndarray:
    """The cell ``[1, 3, 3]``; zero where the structure is not periodic.

    Raises:
        DataError: the cell has no volume in the periodic directions.
    """
    if not atoms.pbc.any():
        return np.zeros((1, 3, 3))
    cell = np.array(atoms.cell, dtype=np.float64)
    vectors = cell[atoms.pbc]
    if not np.isfinite(cell).all() or np.linalg.matrix_rank(vectors) < len(vectors):
        raise DataError(
            f"{where} is periodic, but its cell has no volume in the periodic directions; repair "
            'the cell, or switch the boundaries off (pbc="F F F")'
        )
    return cell[None]


def _store(arrays: Arrays) -> GraphStore:
    periodic = bool(arrays["pbc"].any())  # molecules alone travel without cells
    return GraphStore(
        np.concatenate([[0], np.cumsum(arrays["size"])]),
        nodes={name: arrays[name] for name in ("z", "pos", "forces") if name in arrays},
        graphs={name: arrays[name] for name in ("y", "cell", "pbc") if name == "y" or periodic},
    )


def _splits(
    store: GraphStore, file_of: Tensor, files: dict[int, Path], seed: int
) -> dict[str, Tensor]:
    rows = {kind: (file_of == kind).nonzero().flatten() for kind in files}
    count = len(rows[TRAIN])
    if TEST in files:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        held_out = max(1, count // 10)
        splits = {"train": order[held_out:], "val": order[:held_out]}
    else:
        splits = random_splits(count, seed)
    known = {_fingerprint(store, k) for k in rows[TRAIN].tolist()} if len(files) > 1 else set()
    for kind, name in ((TEST, "test"), (OOD, "ood")):
        if kind not in files:
            continue
        _refuse_other_elements(store, rows[kind], rows[TRAIN], files[kind], files[TRAIN])
        new = [k for k in rows[kind].tolist() if _fingerprint(store, k) not in known]
        if not new:
            raise DataError(
                f"all structures of {files[kind]} also are in {files[TRAIN]}; give others with "
                f"data.{name}"
            )
        if (repeated := len(rows[kind]) - len(new)) > 0:
            log.info(
                "%d of %d structures in %s also are in %s and left out",
                *(repeated, len(rows[kind]), files[kind].name, files[TRAIN].name),
            )
        splits[name] = torch.tensor(new, dtype=torch.long)
    return splits


def _refuse_other_elements(
    store: GraphStore, rows: Tensor, known: Tensor, path: Path, training: Path
) -> None:
    for z in sorted({*store.elements(rows)} - {*store.elements(known)}):
        first = int(np.searchsorted(store.offset, _atom_of(store, rows, z), side="right")) - 1
        raise DataError(
            f"structure {first - int(rows[0])} of {path} has the element {chemical_symbols[z]}, "
            f"which no structure of {training} has; leave it out or train on structures with it"
        )


def _atom_of(store: GraphStore, rows: Tensor, z: int) -> int:
    """The first atom of that element in consecutive structures."""
    start, end = store.offset[rows[0]], store.offset[rows[-1] + 1]
    return int(start + np.argmax(store.nodes["z"][start:end] == z))


def _fingerprint(store: GraphStore, k: int) -> int:
    """The same for structures with the same elements at the same positions."""
    atoms = slice(store.offset[k], store.offset[k + 1])
    return hash((store.nodes["z"][atoms].tobytes(), store.nodes["pos"][atoms].tobytes()))
