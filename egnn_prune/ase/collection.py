"""Structures that a model was unsure of: few, unlike each other, and safe on the disk."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from egnn_prune.ase.teacher import Labels
from egnn_prune.data import ase_files
from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.system.files import atomic

Array = NDArray[np.float64]
Distances = dict[tuple[int, int], Array]

#: The file, in the folder of a simulation.
FILE = "collection.extxyz"
#: Pairs farther apart, in Angstrom, do not tell structures apart.
CUTOFF = 5.0
#: Structures whose sorted distances differ by less, in Angstrom (root mean square), are alike. Of
#: independent frames of 3BPA at 300 K and of ethanol at 500 K one pair in twenty is (medians .14);
#: in 10 fs at 1200 K the former changes by as much.
ALIKE = 0.07
#: Names in the comment lines of the file.
UNCERTAINTY, LEARNED = "specialist_uncertainty", "specialist_learned"


@dataclass
class Collected:
    """A structure that a model was unsure of.

    Attributes:
        atoms: elements, positions and cell.
        uncertainty: the largest error bar of a force when it was met, in eV/Angstrom.
        labels: the teacher's, or ``None`` as long as nobody asked it.
        learned: whether the model has been trained on it since.
    """

    atoms: Atoms
    uncertainty: float
    labels: Labels | None = None
    learned: bool = False

    def text(self) -> str:
        """The structure as extended XYZ."""
        out = self.atoms.copy()
        out.info = {UNCERTAINTY: self.uncertainty, LEARNED: self.learned}
        if self.labels is not None:
            known = {"energy": self.labels.energy, "forces": self.labels.forces}
            if self.labels.stress is not None:
                known["stress"] = self.labels.stress
            out.calc = SinglePointCalculator(out, **known)
        buffer = io.StringIO()
        ase.io.write(buffer, out, format="extxyz")
        return buffer.getvalue()


class Collection:
    """What waits to be learned, and what was learned; at most so many of each.

    A structure is kept only if it is unlike all that are there: the sorted distances of its atoms,
    by pairs of elements, differ by :data:`ALIKE` at least, which neither turning it nor another
    order of its atoms changes, nor another network. When it is full, the one that the model was
    least unsure of makes place, if the new one is more uncertain; of those learned, the oldest.

    Everything is in one file of extended XYZ, which is written anew, atomically, at every change:
    a killed run loses nothing. Where the disk is full, that is said once, and what could not be
    written stays in memory until it can.

    Args:
        folder: where the file is or will be; ``None`` keeps all in memory.
        most: how many wait at most, and how many learned ones are kept at most.
        alike: see :data:`ALIKE`.

    Attributes:
        kept: how many were ever kept to be learned, those included that made place since.

    Raises:
        ConfigError: a number is out of range.
        DataError: the file is damaged.
    """

    def __init__(self, folder: Path | None = None, most: int = 200, alike: float = ALIKE) -> None:
        if most < 1:
            raise ConfigError(f"a collection holds at least 1 structure, not most={most}")
        if not 0 <= alike < np.inf:
            raise ConfigError(f"structures are alike within 0 Angstrom or more, not {alike}")
        self.path = None if folder is None else Path(folder) / FILE
        self.most, self.alike = most, alike
        self._items: list[Collected] = []
        self._distances: list[Distances] = []
        self._texts: list[str] = []
        self._told = False
        if self.path is not None:
            if self.path.exists():
                for item in _read(self.path):
                    self._append(item)
            self._bound_learned()
        self.kept = len(self.waiting)

    @property
    def waiting(self) -> list[Collected]:
        """What is still to be learned, in the order in which it was met."""
        return [item for item in self._items if not item.learned]

    @property
    def learned(self) -> list[Collected]:
        """What the model was trained on."""
        return [item for item in self._items if item.learned]

    def __len__(self) -> int:
        return len(self._items)

    def add(self, atoms: Atoms, uncertainty: float, labels: Labels | None = None) -> bool:
        """Keep a structure, unless one like it is there or it is the least uncertain of too many.

        Returns:
            Whether it was kept.
        """
        bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        distances = sorted_distances(bare)
        if any(difference(distances, other) < self.alike for other in self._distances):
            return False
        waiting = [k for k, item in enumerate(self._items) if not item.learned]
        if len(waiting) >= self.most:
            least = min(waiting, key=lambda k: self._items[k].uncertainty)
            if not self._items[least].uncertainty < uncertainty:
                return False
            self._remove(least)
        self._append(Collected(bare, float(uncertainty), labels), distances)
        self.kept += 1
        self.save()
        return True

    def label(self, item: Collected, labels: Labels) -> None:
        """Put the teacher's labels to a structure that waits."""
        item.labels = labels
        self._texts[self._place(item)] = item.text()
        self.save()

    def mark_learned(self, items: list[Collected]) -> None:
        """The model was trained on these."""
        for item in items:
            item.learned = True
            self._texts[self._place(item)] = item.text()
        self._bound_learned()
        self.save()

    def save(self) -> None:
        """Write the file; a disk that is full is said once, and stops nothing."""
        if self.path is None:
            return
        try:
            self._write()
        except InputError as error:
            if not self._told:
                self._told = True
                warnings.warn(
                    f"{error}; what is collected stays in memory until then", UserWarning, 3
                )
        else:
            self._told = False

    def claim(self) -> None:
        """Make sure that the file can be written, before much is collected.

        Raises:
            InputError: it cannot.
        """
        if self.path is not None:
            self._write()

    def _write(self) -> None:
        assert self.path is not None
        with atomic(self.path) as temporary:
            temporary.write_text("".join(self._texts))

    def _place(self, item: Collected) -> int:
        return next(k for k, other in enumerate(self._items) if other is item)

    def _append(self, item: Collected, distances: Distances | None = None) -> None:
        self._items.append(item)
        self._distances.append(sorted_distances(item.atoms) if distances is None else distances)
        self._texts.append(item.text())

    def _remove(self, k: int) -> None:
        del self._items[k], self._distances[k], self._texts[k]

    def _bound_learned(self) -> None:
        learned = [k for k, item in enumerate(self._items) if item.learned]
        for k in reversed(learned[: max(0, len(learned) - self.most)]):
            self._remove(k)


def sorted_distances(atoms: Atoms, cutoff: float = CUTOFF) -> Distances:
    """Distances in Angstrom below a cutoff, periodic images included, by pair of elements."""
    i, j, length = neighbor_list("ijd", atoms, cutoff)
    once = i <= j  # an image of an atom itself is there twice, for all structures alike
    first, second = atoms.numbers[i[once]], atoms.numbers[j[once]]
    pairs = np.stack([np.minimum(first, second), np.maximum(first, second)], 1)
    found: Distances = {}
    for a, b in np.unique(pairs, axis=0):
        found[int(a), int(b)] = np.sort(length[once][(pairs == (a, b)).all(1)])
    found[0, 0] = np.sort(atoms.numbers).astype(np.float64)  # who has no neighbours counts, too
    return found


def difference(a: Distances, b: Distances, cutoff: float = CUTOFF) -> float:
    """Root mean square difference of sorted distances; infinite for other compositions.

    A pair that only one structure has within the cutoff is at the cutoff in the other one, so that
    nothing jumps when an atom passes it.
    """
    if not np.array_equal(a[0, 0], b[0, 0]):
        return np.inf
    total, count = 0.0, 0
    for pair in (a.keys() | b.keys()) - {(0, 0)}:
        one, other = a.get(pair, np.zeros(0)), b.get(pair, np.zeros(0))
        size = max(len(one), len(other))
        padded = [np.pad(x, (0, size - len(x)), constant_values=cutoff) for x in (one, other)]
        total += float(np.square(padded[0] - padded[1]).sum())
        count += size
    return float(np.sqrt(total / max(count, 1)))


def _read(path: Path) -> list[Collected]:
    """What :meth:`Collection.save` wrote.

    Raises:
        DataError: the file is something else, or damaged.
    """
    if not path.stat().st_size:  # nothing was collected yet
        return []
    found = []
    try:
        for atoms in ase_files.read_structures(path):
            uncertainty, learned = float(atoms.info[UNCERTAINTY]), bool(atoms.info[LEARNED])
            labels = None
            if atoms.calc is not None:
                known = atoms.calc.results
                forces = np.asarray(known["forces"], dtype=np.float64)
                labels = Labels(float(known["energy"]), forces, known.get("stress"))
            bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
            found.append(Collected(bare, uncertainty, labels, learned))
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"the collection {path} is damaged ({' '.join(str(error).split())}); repair it, or "
            "move it away to begin a new one"
        ) from None
    return found
