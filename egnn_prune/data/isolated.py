"""Isolated atoms in a file of structures: energies of reference, not data to learn from."""

from __future__ import annotations

import re

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from egnn_prune.errors import DataError

#: What an array says of a structure: data, an isolated atom, one without the wanted number.
DATA, ISOLATED, UNLABELLED = range(3)


def is_isolated(atoms: Atoms, unmarked: bool = True) -> bool:
    """Whether a structure is one atom alone, by ``config_type=IsolatedAtom`` or by its boundaries.

    The mark is MACE's (``isolated_atom``, GAP's, is the same) and counts in a periodic box, too.

    Args:
        atoms: the structure.
        unmarked: whether one atom without periodic boundaries needs no mark.
    """
    mark = re.sub(r"[^a-z]", "", str(atoms.info.get("config_type", "")).lower())
    return len(atoms) == 1 and (mark == "isolatedatom" or (unmarked and not atoms.pbc.any()))


def reference_energies(
    kinds: np.ndarray, z: np.ndarray, y: np.ndarray, name: str
) -> dict[int, float]:
    """The energy of each element that has an isolated atom.

    Args:
        kinds: ``[M]``, :data:`ISOLATED` for those that count.
        z: ``[M]``, the element of the first atom of each structure.
        y: ``[M]``, their energies.
        name: the file, for messages.

    Raises:
        DataError: two isolated atoms of an element have different energies.
    """
    first: dict[int, int] = {}
    for k in np.flatnonzero(kinds == ISOLATED).tolist():
        other = first.setdefault(int(z[k]), k)
        if abs(y[k] - y[other]) > 1e-6 * max(1.0, abs(y[k])):
            raise DataError(
                f"structures {other} and {k} of {name} are isolated atoms of "
                f"{chemical_symbols[z[k]]} with different energies, {y[other]:.10g} and "
                f"{y[k]:.10g}; keep one of them"
            )
    return {element: float(y[k]) for element, k in sorted(first.items())}


def sentence(kinds: np.ndarray, references: dict[int, float], elements: list[int]) -> list[str]:
    """What is said of a file's isolated atoms; nothing where there are none.

    Args:
        kinds: see :func:`reference_energies`.
        references: what that found.
        elements: those that are trained on.
    """
    count = int((kinds != DATA).sum())
    if not count:
        return []
    what = "structure is an isolated atom" if count == 1 else "structures are isolated atoms"
    text = f"{count} {what} and in no split; "
    lacking = " ".join(chemical_symbols[z] for z in elements if z not in references)
    if lacking:
        return [text + f"not used as energies of reference, as there is none for {lacking}"]
    symbols = " ".join(chemical_symbols[z] for z in references)
    return [text + f"energies of {symbols} are references of the target"]
