"""Structures from files that ASE reads, such as extended XYZ."""

from __future__ import annotations

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
from egnn_prune.data.config_weights import KEY, about_weights, config_weight, not_read
from egnn_prune.data.dataset import GraphDataset, random_splits
from egnn_prune.data.duplicates import equal_structures, grouped_splits
from egnn_prune.data.isolated import DATA, UNLABELLED, reference_energies, sentence
from egnn_prune.data.labels import LONGEST_TYPE, Labels, config_type, declared, said_of
from egnn_prune.data.quantities import is_energy, is_extensive
from egnn_prune.data.store import GraphStore, Texts, not_an_element, not_finite
from egnn_prune.errors import DataError

#: Structures that are held in memory while a file is parsed.
PIECE = 256
TRAIN, TEST, OOD = range(3)


def load_extxyz(
    path: str | Path,
    target: str | None = None,
    seed: int = 0,
    test: str | Path | None = None,
    ood: str | Path | None = None,
) -> GraphDataset:
    """Read structures, one number of each and forces where there are any; gzipped files, too.

    One atom alone (with a total energy and without periodic boundaries, or marked
    ``config_type=IsolatedAtom``) is no structure to learn from, but its element's reference; it is
    in no split. Structures that are there several times stay together in a random split, see
    :mod:`egnn_prune.data.duplicates`.

    Energies come in eV and lengths in Angstrom, unless comment lines declare others
    (``energy_unit=kcal/mol length_unit=Bohr``), which are converted. ``forces [N, 3]`` are read
    when they belong to the target by their name (``REF_energy`` has ``REF_forces``), see
    :func:`~egnn_prune.data.quantities.matching_forces`. Structures with periodic boundaries have
    ``cell [1, 3, 3]`` and ``pbc [1, 3]``; a cell without them is ignored. ``row`` counts through
    all files.

    ``config_weight=0.1`` in a comment line multiplies what that structure adds to the training
    loss, see :func:`~egnn_prune.training.loss.weighted`; without it a structure has the weight 1.
    Graphs have ``config_weight [1]`` where a structure's differs from 1.

    The files are parsed once, structure by structure, and kept as mapped arrays.

    Args:
        path: the file. Without ``test`` it is split at random into 80/10/10 % to train, validate
            and test on; with it, into 90/10 % to train and validate.
        target: a key of the comment line (``Atoms.info``) or of a calculator's results; by default
            the only one that is called as energies are (energy, REF_energy, dft_energy, ...).
        seed: of the random split.
        test: another file, with the test structures.
        ood: another file, out of distribution. Structures that equal one in ``path``
            (turned or moved, too) are left out of ``test`` and ``ood``: 31 of 3BPA's
            ``train_mixedT.xyz`` also are in its ``train_300K.xyz``.

    Raises:
        DataError: a file is missing or cannot be parsed, or a structure lacks the target, has
            forces where others have none, periodic boundaries around a cell of no volume, or a
            weight that is none; or ``test`` or ``ood`` hold nothing new, or an element that
            ``path`` does not have.
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
    arrays = cached(path, parse, version=4, variant=variant, others=[*others.values()])
    store, name = _store(arrays), str(arrays["target"][0])
    file_of, kind_of = np.array(arrays["file"]), np.array(arrays["kind"])
    first = store.nodes["z"][store.offset[:-1]]
    own = np.where(file_of == TRAIN, kind_of, DATA)
    references = reference_energies(own, first, arrays["y"], path.name)
    rows = {kind: np.flatnonzero((file_of == kind) & (kind_of == DATA)) for kind in files}
    splits, notes = _splits(store, rows, files, seed)
    _refuse_other_elements(store, splits, file_of, files)
    unit = "eV" if is_energy(name) else "data unit"
    units = {"pos": "Angstrom", "y": unit, "forces": "eV/Angstrom", "cell": "Angstrom"}
    return GraphDataset(
        name=path.name,
        target=name,
        unit=unit,
        extensive=is_extensive(name),
        graphs=store,
        splits=splits,
        units={k: v for k, v in units.items() if k in store.nodes or k in store.graphs},
        references=references,
        notes=[
            *str(arrays["said"][0]).split("\n"),
            *notes,
            *about_weights(arrays[KEY], splits["train"], path.name),
            *sentence(kind_of, references, store.elements(splits["train"])),
        ],
        types=Texts(arrays["type"]) if np.any(arrays["type"] != "") else [],
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
                largest = max(piece, key=len)
                said = "\n".join([*said_of(largest, labels), *not_read(largest)])
                yield {"target": np.array([labels.target]), "said": np.array([said])}
            yield _arrays(piece, labels, path, start, kind)
            start += len(piece)
        if start == 0:
            raise DataError(f"{path} holds no structures")


def _arrays(piece: list[Atoms], labels: Labels, path: Path, start: int, kind: int) -> Arrays:
    energy, length, force = labels.units.factors(path.name)
    columns: dict[str, list[np.ndarray]] = {k: [] for k in ("z", "pos", "forces", "cell")}
    numbers, kinds, weights = [], [], []
    for k, atoms in enumerate(piece, start):
        where = f"structure {k} of {path}"
        if declared(atoms, where) != labels.units:
            raise DataError(f"{where} declares other units than the structures before it")
        kinds.append(labels.kind(atoms))
        # isolated atoms are in no split: their box says nothing, and their energy may lack
        y = labels.number(atoms, where) if kinds[-1] != UNLABELLED else 0.0
        y *= energy if is_energy(labels.target) else 1
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
        weights.append(config_weight(atoms, where))
        columns["z"].append(atoms.numbers.astype(np.int16))
        columns["pos"].append(atoms.positions * length)
        columns["cell"].append(_cell(atoms, where, kinds[-1]) * length)
        if forces is not None:
            columns["forces"].append(forces.astype(np.float64) * force)
    arrays = {k: np.concatenate(v) for k, v in columns.items() if v}
    return arrays | {
        "y": np.array(numbers),
        KEY: np.array(weights),
        "pbc": np.array(
            [atoms.pbc & (kind == DATA) for atoms, kind in zip(piece, kinds, strict=True)]
        ),
        "size": np.array([len(atoms) for atoms in piece]),
        "kind": np.array(kinds, dtype=np.uint8),
        "file": np.full(len(piece), kind, dtype=np.uint8),
        "type": np.array([config_type(atoms) for atoms in piece], dtype=f"<U{LONGEST_TYPE}"),
    }


def _cell(atoms: Atoms, where: str, kind: int) -> np.ndarray:
    """The cell ``[1, 3, 3]``; zero where the structure is not periodic, or an isolated atom.

    Raises:
        DataError: the cell has no volume in the periodic directions.
    """
    if not atoms.pbc.any() or kind != DATA:
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
    has = {"y"}
    if arrays["pbc"].any():  # molecules alone travel without cells
        has |= {"cell", "pbc"}
    if (arrays[KEY] != 1).any():
        has |= {KEY}
    return GraphStore(
        np.concatenate([[0], np.cumsum(arrays["size"])]),
        nodes={name: arrays[name] for name in ("z", "pos", "forces") if name in arrays},
        graphs={name: arrays[name] for name in ("y", "cell", "pbc", KEY) if name in has},
    )


def _splits(
    store: GraphStore, rows: dict[int, np.ndarray], files: dict[int, Path], seed: int
) -> tuple[dict[str, Tensor], list[str]]:
    """The splits, and what is to be said of them."""

    def random(count: int) -> dict[str, Tensor]:
        if TEST not in files:
            return random_splits(count, seed)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        held_out = max(1, count // 10)
        return {"train": order[held_out:], "val": order[:held_out]}

    if (count := len(rows[TRAIN])) < 3:
        raise DataError(f"{files[TRAIN]} holds {count} structures; at least 3 are needed")
    splits, notes = grouped_splits(store, random, files[TRAIN].name, torch.from_numpy(rows[TRAIN]))
    for kind, name in ((TEST, "test"), (OOD, "ood")):
        if kind not in files:
            continue
        if not len(rows[kind]):
            raise DataError(
                f"{files[kind]} holds isolated atoms only; give others with data.{name}"
            )
        groups = equal_structures(store, np.concatenate([rows[TRAIN], rows[kind]]))
        # numbered as they appear: what equals none of the first has a higher number than they
        new = rows[kind][groups[count:] > groups[:count].max()]
        if not len(new):
            raise DataError(
                f"all structures of {files[kind]} also are in {files[TRAIN]}; give others with "
                f"data.{name}"
            )
        if (repeated := len(rows[kind]) - len(new)) > 0:
            notes.append(
                f"{repeated} of {len(rows[kind])} structures in {files[kind].name} also are in "
                f"{files[TRAIN].name} and left out"
            )
        splits[name] = torch.from_numpy(new)
    return splits, notes


def _refuse_other_elements(
    store: GraphStore, splits: dict[str, Tensor], file_of: np.ndarray, files: dict[int, Path]
) -> None:
    known = store.elements(torch.cat([splits["train"], splits["val"]]))
    for kind, name in ((TEST, "test"), (OOD, "ood")):
        unknown = {*store.elements(splits[name])} - {*known} if kind in files else set()
        if unknown:
            z = min(unknown)
            atoms = (store.nodes["z"][slice(*store.offset[k : k + 2])] for k in splits[name])
            first = int(splits[name][[z in numbers for numbers in atoms].index(True)])
            raise DataError(
                f"structure {first - int(np.argmax(file_of == kind))} of {files[kind]} has the "
                f"element {chemical_symbols[z]}, which no structure of {files[TRAIN]} has; leave "
                "it out or train on structures with it"
            )
