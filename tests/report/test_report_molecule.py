"""Drawings of molecules: bonds, the side that is shown, and elements."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase.data import covalent_radii as radius
from matplotlib.patches import Circle
from molecules import MOLECULES

from egnn_prune.report.common.style import house_style, new_figure
from egnn_prune.report.run.molecule import bonds, draw_molecule, facing, formula

DATA = Path(__file__).parents[2] / "datasets" / "xtb_molecules.npz"


@pytest.fixture(autouse=True)
def styled() -> Iterator[None]:
    """Figures begin in the house style only."""
    with house_style():
        yield


@pytest.mark.parametrize(("smiles", "expected"), [("O", 2), ("C", 4), ("C#N", 2)])
def test_bonds_of_small_molecules(smiles, expected):
    z, pos = (np.array(part) for part in MOLECULES[smiles])
    found = bonds(z, pos)
    assert found.shape == (expected, 2) and (found[:, 0] < found[:, 1]).all()
    if smiles == "O":
        assert found.tolist() == [[0, 1], [0, 2]], "the hydrogens are not bonded to each other"


def test_bonds_of_the_embedded_data():
    """A molecule of n atoms and r rings has n - 1 + r bonds; heat hides or makes one in 0.5 %."""
    with np.load(DATA) as data:
        offset, z, pos, smiles = (data[k] for k in ("offset", "z", "pos", "smiles"))
    wrong = []
    for m in range(0, 6000, 10):
        atoms = slice(offset[m], offset[m + 1])
        rings = sum(letter.isdigit() for letter in smiles[m]) / 2
        if len(bonds(z[atoms], pos[atoms].astype(float))) != len(z[atoms]) - 1 + rings:
            wrong.append(smiles[m])
    assert len(wrong) <= 6, wrong


def volume(pos: np.ndarray) -> float:
    """Signed volume of the first four atoms: a mirror image changes its sign."""
    return float(np.linalg.det(pos[1:4] - pos[0]))


@pytest.mark.parametrize("seed", range(4))
def test_facing_shows_the_broad_side_and_keeps_the_hand(seed):
    rng = np.random.default_rng(seed)
    pos = rng.normal(size=(9, 3)) * [1.0, 3.0, 2.0] + 5
    shown = facing(pos)
    spread = (shown - shown.mean(0)).std(axis=0)
    assert spread[0] > spread[1] > spread[2]
    np.testing.assert_allclose(shown.max(0), -shown.min(0))
    assert volume(shown) == pytest.approx(volume(pos))

    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn[:, 0] *= np.linalg.det(turn)  # a rotation
    np.testing.assert_allclose(facing(pos @ turn.T - 2), shown, atol=1e-9)


@pytest.mark.parametrize("atoms", [1, 2, 3])
def test_facing_of_one_atom_and_of_a_line(atoms):
    pos = np.arange(atoms)[:, None] * np.array([[0.6, 0.0, 0.8]])
    shown = facing(pos)
    assert np.isfinite(shown).all()
    np.testing.assert_allclose(shown[:, 1:], 0, atol=1e-12)
    assert np.ptp(shown[:, 0]) == pytest.approx(atoms - 1)


def test_drawing_puts_the_near_atom_in_front():
    z, pos = np.array([6, 8]), np.array([[0.0, 0, -0.6], [0.0, 0, 0.6]])
    with house_style():
        axes = new_figure(2).add_subplot()
        draw_molecule(axes, z, pos, points_per_angstrom=20)
    carbon, oxygen = (
        artist
        for artist in axes.get_children()
        if isinstance(artist, Circle) and artist is not axes.patch
    )
    assert oxygen.zorder > carbon.zorder
    assert oxygen.radius / carbon.radius > radius[8] / radius[6]
    assert sum(carbon.get_facecolor()[:3]) > sum(oxygen.get_facecolor()[:3]), "haze is white"
    assert [text.get_text() for text in axes.texts] == ["O"]


def test_formula_and_unknown_elements():
    assert formula(np.array([8, 1, 1])) == "H2O"
    assert formula(np.array([6, 1, 17, 1, 9, 6])) == "C2H2ClF"
    z = np.array([120, 8, 118])
    assert formula(z) == "OX2"
    axes = new_figure(2).add_subplot()
    draw_molecule(axes, z, 3 * np.eye(3), points_per_angstrom=20)
    assert sorted(text.get_text() for text in axes.texts) == ["O", "X", "X"]


def test_letters_can_be_read_on_their_atoms():
    axes = new_figure(2).add_subplot()
    draw_molecule(axes, np.array([7, 16]), 3 * np.eye(2, 3), points_per_angstrom=20)
    nitrogen, sulphur = axes.texts  # on blue, and on yellow
    assert nitrogen.get_color() == "white"
    assert max(sulphur.get_color()) < 0.6
