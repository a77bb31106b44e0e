"""Neighbours of one structure whose atoms move, without a search in every step."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from egnn_prune.graphs.checks import warn_of_coincident_points
from egnn_prune.graphs.pairs import complete_edges, neighbours

Array = NDArray[np.float64]

#: By how much the list of candidates is longer than the cutoff, in Angstrom. A longer one is
#: searched for less often, but more candidates are looked at in every step.
SKIN = 0.5


class SkinList:
    r"""The pairs of *one* structure closer than a cutoff, equal to :func:`neighbours` at any step.

    Candidates up to :math:`r_c + s` are kept; of these the pairs within :math:`r_c` are returned
    in every step. While no atom has moved by more than s/2 since they were found, two atoms have
    come nearer by at most s, so no pair is missing. Otherwise, and where the cell has changed, they
    are found anew: steps of any size are right, small ones are cheap.
    Source: Verlet 1967; Allen and Tildesley 2017, Section 5.3.1.

    Args:
        cutoff: :math:`r_c`, in Angstrom; ``None`` for all pairs of a molecule.
        skin: s, in Angstrom.
    """

    def __init__(self, cutoff: float | None, skin: float = SKIN) -> None:
        self.cutoff, self.skin = cutoff, skin
        #: How often candidates were searched for.
        self.searches = 0
        self._start: Array = np.full((0, 3), np.nan)
        self._cell: Array | None = None
        self._pbc: NDArray[np.bool_] | None = None

    def __call__(
        self, pos: Array, cell: Array | None = None, pbc: NDArray[np.bool_] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The pairs at these positions, and a warning where two of them are at one place.

        Args:
            pos: ``[N, 3]``, finite.
            cell: ``[3, 3]``, rows are lattice vectors; ``None`` for molecules.
            pbc: ``[3]``, which directions are periodic; all, unless given.

        Returns:
            ``edge_index [2, E]`` int64, source above target, sorted by target, and
            ``edge_shift [E, 3]`` float64 (zeros for molecules), see :func:`neighbours`.

        Raises:
            DataError: the structure cannot be searched, see :func:`neighbours`.
        """
        if not self._covers(pos, cell, pbc):
            self._search(pos, cell, pbc)
        vectors = pos[self._target] - pos[self._source] - self._shift
        squares = np.einsum("ij,ij->i", vectors, vectors)
        if squares.size and not squares.min() > 0:
            warn_of_coincident_points(torch.from_numpy(vectors))
        if self.cutoff is None:
            return self._all
        near = squares < self.cutoff**2
        if near.all():
            return self._all
        index = np.stack([self._source[near], self._target[near]])
        return torch.from_numpy(index), torch.from_numpy(self._shift[near])

    def _covers(self, pos: Array, cell: Array | None, pbc: NDArray[np.bool_] | None) -> bool:
        """Whether no pair can be missing among the candidates."""
        if pos.shape != self._start.shape or not _same(cell, self._cell):
            return False
        if not _same(pbc, self._pbc):
            return False
        if self.cutoff is None:
            return True
        moved = pos - self._start
        # NaN is a move too far
        return bool(np.einsum("ij,ij->i", moved, moved).max() <= (self.skin / 2) ** 2)

    def _search(self, pos: Array, cell: Array | None, pbc: NDArray[np.bool_] | None) -> None:
        """Find the candidates, and remember for which structure."""
        places = torch.from_numpy(np.array(pos, dtype=np.float64))
        if self.cutoff is None:
            edges, shift = complete_edges(torch.tensor([0, len(places)])), None
        else:
            box = None if cell is None else torch.from_numpy(np.array(cell, dtype=np.float64))
            periodic = None if pbc is None else torch.from_numpy(np.array(pbc, dtype=bool))
            edges, shift = neighbours(places, self.cutoff + self.skin, box, periodic)
        if shift is None:
            shift = places.new_zeros(edges.shape[1], 3)
        self._all = edges, shift
        self._source, self._target = edges.numpy()
        self._shift = shift.numpy()
        self._start = np.array(pos)
        self._cell = None if cell is None else np.array(cell)
        self._pbc = None if pbc is None else np.array(pbc)
        self.searches += 1


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)
