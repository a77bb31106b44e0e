"""The neighbour list with a skin: equal to a fresh one at steps of any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from egnn_prune.errors import DataError, SuspiciousDataWarning
from egnn_prune.graphs import SkinList, complete_edges, neighbours

CUTOFF = 3.0
SKEWED = np.diag([2.8, 3.3, 4.1]) + 0.3 * np.random.default_rng(0).normal(size=(3, 3))


def pairs(edges: torch.Tensor, shift: torch.Tensor | None) -> dict[tuple, int]:
    """Every pair with its image, and how often it is listed."""
    if shift is None:
        shift = torch.zeros(edges.shape[1], 3)
    rows = zip(edges.T.tolist(), (shift * 1e6).round().long().tolist(), strict=True)
    found: dict[tuple, int] = {}
    for edge, image in rows:
        found[*edge, *image] = found.get((*edge, *image), 0) + 1
    return found


def fresh(pos, cell=None, pbc=None) -> dict[tuple, int]:
    tensors = [None if x is None else torch.from_numpy(np.array(x)) for x in (pos, cell, pbc)]
    return pairs(*neighbours(tensors[0], CUTOFF, *tensors[1:]))


@pytest.mark.parametrize("cell", [None, SKEWED, 3 * SKEWED], ids=["molecule", "thin", "wide"])
@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True)])
def test_a_walk_of_small_and_large_steps(cell, pbc):
    rng = np.random.default_rng(1)
    pos = rng.uniform(0, 6, size=(12, 3))
    pbc = None if cell is None else np.array(pbc)
    found = SkinList(CUTOFF, skin=0.4)
    for step in range(40):
        pos = pos + (2.0 if step % 13 == 12 else 0.02) * rng.normal(size=pos.shape)
        edges, shift = found(pos, cell, pbc)
        assert pairs(edges, shift) == fresh(pos, cell, pbc)
        assert bool((edges[1].diff() >= 0).all())
    assert 3 <= found.searches < 40


def test_what_leaves_and_enters_within_the_skin_is_noticed():
    pos = np.array([[0.0, 0, 0], [CUTOFF - 0.01, 0, 0]])
    found = SkinList(CUTOFF, skin=0.4)
    for x, edges in ((0.0, 2), (0.1, 0), (0.05, 0), (-0.1, 2), (0.19, 0), (-0.19, 2)):
        assert found(pos + [[0, 0, 0], [x, 0, 0]])[0].shape[1] == edges
    assert found.searches == 1
    # both come nearer by less than the skin together, but one by more than half of it
    assert found(pos + [[0, 0, 0], [0.21, 0, 0]])[0].shape[1] == 0 and found.searches == 2


def test_changes_of_the_cell_are_noticed():
    rng = np.random.default_rng(2)
    pos, found = rng.uniform(0, 3, size=(4, 3)), SkinList(CUTOFF)
    pbc = np.array([True, True, True])
    for _ in range(5):
        cell = SKEWED + 0.05 * rng.normal(size=(3, 3))
        assert pairs(*found(pos, cell, pbc)) == fresh(pos, cell, pbc)
    assert found.searches == 5
    pbc[2] = False  # in place
    assert pairs(*found(pos, cell, pbc)) == fresh(pos, cell, pbc)
    cell[0] *= 1.1
    assert pairs(*found(pos, cell, pbc)) == fresh(pos, cell, pbc)
    assert pairs(*found(pos[:3], cell, pbc)) == fresh(pos[:3], cell, pbc)
    assert found.searches == 8


def test_positions_changed_in_place_are_noticed():
    pos, found = np.random.default_rng(3).uniform(0, 4, size=(6, 3)), SkinList(CUTOFF)
    found(pos)
    pos += 1.5 * np.arange(6)[:, None]
    assert pairs(*found(pos)) == fresh(pos) and found.searches == 2


def test_without_a_cutoff_all_pairs():
    pos, found = np.random.default_rng(4).uniform(0, 9, size=(5, 3)), SkinList(None)
    for _ in range(3):
        pos = pos + 5
        assert torch.equal(found(pos)[0], complete_edges(torch.tensor([0, 5])))
    assert found.searches == 1


def test_one_atom_and_none_near():
    assert SkinList(CUTOFF)(np.zeros((1, 3)))[0].shape == (2, 0)
    assert SkinList(CUTOFF)(np.array([[0.0, 0, 0], [9, 0, 0]]))[0].shape == (2, 0)


def test_refuses_nan_and_warns_of_atoms_at_one_place():
    pos, found = np.array([[0.0, 0, 0], [1, 0, 0]]), SkinList(CUTOFF)
    found(pos)
    with pytest.raises(DataError, match="NaN"):
        found(pos * np.nan)
    found(pos)
    with pytest.warns(SuspiciousDataWarning):
        found(pos * 0)
