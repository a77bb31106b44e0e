"""Extended XYZ structure by structure: ASE parses each, but finding them is ours.

ASE takes a blank line for the end of the file, columns beyond those declared for nothing, and
``lattice=`` for a comment: a damaged file is read in part, in silence. Here every line of the file
belongs to a structure, is blank between two, or is refused with its number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers, chemical_symbols
from ase.io.extxyz import read_xyz

from egnn_prune.data.xyz_comment import Columns, columns_of, mended
from egnn_prune.errors import DataError

#: Isotopes of hydrogen with a name of their own, and their masses in u.
ISOTOPES = {"D": 2.014101778, "T": 3.016049281}
SYMBOLS = frozenset(chemical_symbols)
#: An element in its usual spelling and a number: ``O1``, ``Fe12``. (``CA1`` may be a carbon.)
LABEL = re.compile(r"([A-Z][a-z]?)\d+")
#: A number with Fortran's exponent of double precision.
DOUBLE = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))[dD]([+-]?\d+)$")


@dataclass
class Frame:
    """One structure's lines.

    Attributes:
        index: which structure it is, from 0.
        number: of its first line in the file, from 1.
        comment: its second line.
        atoms: a line per atom.
        vectors: lines ``VEC1 x y z`` with a cell.
    """

    index: int
    number: int
    comment: str
    atoms: list[str]
    vectors: list[str]


def xyz_structures(path: Path, name: Path) -> Iterator[Atoms]:
    """The structures of a plain XYZ file, extended or not, one after another.

    Blank lines between structures, a byte-order mark, Fortran's exponents (``-1.0D+01``), the
    isotopes D and T (as hydrogen, with their masses), atom labels such as ``O1``, atomic numbers
    for symbols, forces called ``frc``, ``energy="-10.0 eV"`` and any case of ``lattice=``,
    ``properties=`` and ``pbc=`` are understood.

    Args:
        path: the file.
        name: what it is called in messages.

    Raises:
        DataError: a line is neither part of a structure nor blank; says which.
        Exception: what ASE raises for numbers that are none.
    """
    for frame in _frames(path, name):
        frame.comment = mended(frame.comment)
        columns = Columns()
        if not frame.vectors:  # with them, ASE takes the comment for a mere text
            columns = columns_of(frame.comment, f"line {frame.number + 1} of {name}")
        masses = _mend_atoms(frame, columns, name)
        lines = (str(len(frame.atoms)), frame.comment, *frame.atoms, *frame.vectors)
        (atoms,) = read_xyz(StringIO("\n".join(lines) + "\n"), slice(None))
        if masses is not None and not atoms.has("masses"):
            atoms.set_masses(masses)
        yield atoms


def _frames(path: Path, name: Path) -> Iterator[Frame]:
    size = path.stat().st_size
    # what is no UTF-8 can only be a comment: in a number or a symbol it is refused as such
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        lines = enumerate(file, 1)
        k, atoms = 0, 0
        item = next(lines, None)
        while item is not None:
            number, head = item[0], item[1].strip()
            if not head:
                item = next(lines, None)
                continue
            if not (head.isascii() and head.isdigit()):
                if k:
                    raise DataError(_miscounted(k - 1, name, number, atoms))
                raise DataError(
                    f"line {number} of {name} must be the number of atoms of structure 0, not "
                    f"{_shown(head)}; repair it, or name the file as its format is usually named"
                )
            if len(head) > 18 or int(head) > size:  # a line has a byte at least
                raise DataError(_miscounted(k, name, number, head[:24]))
            atoms = int(head)
            comment = next(lines, (0, ""))[1].strip()
            found = [line.strip() for _, line in islice(lines, atoms)]
            if len(found) < atoms:
                raise DataError(_miscounted(k, name, number, atoms))
            vectors = []
            item = next(lines, None)
            while item is not None and item[1].lstrip().startswith("VEC"):
                vectors.append(item[1].strip())
                item = next(lines, None)
            yield Frame(k, number, comment, found, vectors)
            k += 1


def _miscounted(index: int, name: Path, line: int, atoms: int | str) -> str:
    return (
        f"structure {index} of {name} (see line {line}) does not have the {atoms} atom lines that "
        "it announces; repair it"
    )


def _mend_atoms(frame: Frame, columns: Columns, name: Path) -> np.ndarray | None:
    """Bring atom lines to what ASE reads; the masses ``[N]`` where there are isotopes."""
    isotopes: dict[int, float] = {}
    doubles = any("D" in line or "d" in line for line in frame.atoms)
    for i, line in enumerate(frame.atoms):
        words = line.split()
        if len(words) != columns.count and (columns.declared or len(words) < columns.count):
            number = frame.number + 2 + i
            if line.isdigit() or "=" in line or not line:
                raise DataError(_miscounted(frame.index, name, number, len(frame.atoms)))
            raise DataError(
                f"line {number} of {name} (structure {frame.index}) has {len(words)} columns, not "
                f"{columns.count} as {'Properties declares' if columns.declared else 'XYZ has'}; "
                f"repair it: {_shown(line)}"
            )
        changed = False
        if columns.species is not None and words[columns.species].capitalize() not in SYMBOLS:
            label = words[columns.species]
            if label in ISOTOPES:
                isotopes[i] = ISOTOPES[label]
            words[columns.species] = _element(label, f"line {frame.number + 2 + i} of {name}")
            changed = True
        if doubles:
            for k in columns.real:
                mended_number = DOUBLE.sub(r"\1E\2", words[k])
                changed |= mended_number != words[k]
                words[k] = mended_number
        if changed:
            frame.atoms[i] = " ".join(words)
    if not isotopes:
        return None
    place = columns.species or 0
    symbols = (line.split()[place].capitalize() for line in frame.atoms)
    masses = np.array([atomic_masses[atomic_numbers[symbol]] for symbol in symbols])
    masses[[*isotopes]] = [*isotopes.values()]
    return masses


def _element(label: str, where: str) -> str:
    """The element that an atom label stands for, where there is no doubt.

    Raises:
        DataError: there is.
    """
    if label in ISOTOPES:
        return "H"
    if label.isascii() and label.isdigit() and 0 < int(label) < len(chemical_symbols):
        return str(chemical_symbols[int(label)])
    if (found := LABEL.fullmatch(label)) and found[1] in SYMBOLS:
        return found[1]
    raise DataError(
        f"{where} has the atom label {_shown(label)}, which is no element; write its symbol, such "
        "as O or Fe"
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")
