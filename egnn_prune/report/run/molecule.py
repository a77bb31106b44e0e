"""A molecule as a flat drawing: turned to face the viewer, bonds from distances, depth as haze."""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from ase.symbols import Symbols
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from numpy.typing import NDArray

from egnn_prune.report.common.style import VERMILION

Array = NDArray[np.float64]

BOND_FACTOR = 1.23
"""Two atoms are bonded up to this multiple of the sum of their covalent radii. From 1.15 to 1.45 it
agrees best with the SMILES of the embedded data: 28 of 6,000 molecules, all shaken at 300 K, get a
bond too many (small strained rings) or too few (a stretched bond)."""

BALL = 0.45
"""Radius of an atom in the drawing relative to its covalent radius, so that bonds are seen."""

_HAZE = 0.45
"""How far the farthest atom fades to white."""

_RING = 0.09
"""Distance between an atom and the ring around it, Angstrom."""

_BOND, _EDGE = np.full(3, 0.7), np.full(3, 0.2)
_LUMINANCE = np.array([0.299, 0.587, 0.114])
"""How bright red, green and blue look: letters are dark on bright atoms."""

_PERSPECTIVE = 0.12
"""How much larger the nearest atom is drawn than one in the middle, and the farthest smaller."""


def known(z: NDArray[np.int64]) -> NDArray[np.int64]:
    """Atomic numbers, 0 (``X``) for those that ASE has no colour for."""
    return np.where((z > 0) & (z < len(jmol_colors)), z, 0)


def formula(z: NDArray[np.int64]) -> str:
    """Hill formula of atomic numbers: carbon, hydrogen, then the others by the alphabet."""
    return str(Symbols(known(z)).get_chemical_formula("hill"))


def principal_axes(pos: Array) -> Array:
    """Unit vectors of the viewer: widest to the right, thinnest towards the viewer.

    The axes are the right singular vectors of the centred positions; their signs are chosen so
    that the third moment is positive and the frame right-handed. A handed molecule keeps its hand,
    and the drawing does not depend on how the molecule was turned.

    Args:
        pos: ``[n, 3]`` in Angstrom.

    Returns:
        ``[3, 3]``: the rows point right, up and towards the viewer.
    """
    centred = pos - pos.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=True)[2]
    turned = centred @ axes.T
    signs = np.where((turned**3).sum(axis=0) < 0, -1.0, 1.0)
    # The third sign follows from the others: a mirror image would be another molecule.
    signs[2] = signs[0] * signs[1] * np.sign(np.linalg.det(axes))
    return np.asarray(signs[:, None] * axes)


def facing(pos: Array) -> Array:
    """Positions along the :func:`principal_axes`.

    Args:
        pos: ``[n, 3]`` in Angstrom.

    Returns:
        ``[n, 3]``: right, up, towards the viewer, in Angstrom; the middle of the extent at zero.
    """
    turned = (pos - pos.mean(axis=0)) @ principal_axes(pos).T
    return turned - (turned.max(axis=0) + turned.min(axis=0)) / 2


def bonds(z: NDArray[np.int64], pos: Array) -> NDArray[np.int64]:
    """Pairs of atoms that are close enough for a bond.

    Args:
        z: ``[n]`` atomic numbers.
        pos: ``[n, 3]`` in Angstrom.

    Returns:
        ``[bonds, 2]`` rows of atoms, each pair once with the lower row first.
    """
    radii = covalent_radii[known(z)]
    distance = np.linalg.norm(pos[:, None] - pos[None], axis=-1)
    return np.argwhere(np.triu(distance < BOND_FACTOR * (radii[:, None] + radii[None]), k=1))


def room_for(z: NDArray[np.int64]) -> Array:
    """``[n]`` Angstrom from the middle of an atom to the edge of its drawing, a ring included."""
    room: Array = BALL * covalent_radii[known(z)] * (1 + _PERSPECTIVE) + 1.5 * _RING
    return room


def _faded(colour: Array, depth: float) -> tuple[float, float, float]:
    """Colour at `depth` (0 nearest, 1 farthest) seen through white haze."""
    # Mixed with white, not transparent: bonds behind an atom must not shine through.
    red, green, blue = colour + (1 - colour) * _HAZE * depth
    return red, green, blue


def draw_molecule(
    axes: Axes,
    z: NDArray[np.int64],
    pos: Array,
    points_per_angstrom: float,
    colours: Array | None = None,
    ringed: NDArray[np.bool_] | None = None,
) -> None:
    """Draws atoms and bonds from back to front in data coordinates of one Angstrom.

    Args:
        axes: With equal aspect; the limits are the caller's.
        z: ``[n]`` atomic numbers.
        pos: ``[n, 3]`` in Angstrom, the viewer on the positive third axis.
        points_per_angstrom: Points on paper per unit of `axes`, for line widths and letters.
        colours: ``[n, 3]`` red, green and blue of each atom, which then mean a number and do not
            fade with depth; None: those of the elements.
        ringed: ``[n]`` atoms to draw a ring around; None: none.
    """
    element = jmol_colors[known(z)] if colours is None else colours
    rings = np.zeros(len(z), bool) if ringed is None else ringed
    reach = max(float(np.abs(pos[:, 2]).max(initial=0.0)), 1.0)
    near = pos[:, 2] / reach  # -1 far, 1 near
    # add_artist, not plot and add_patch: nobody needs the data limits, and they cost half the time.
    for i, j in bonds(z, pos):
        middle = (pos[i] + pos[j]) / 2
        # Each half lies just behind its own atom, so that no bond crosses the ball it starts from.
        for end in (i, j):
            half = Line2D(
                [pos[end, 0], middle[0]],
                [pos[end, 1], middle[1]],
                color=_faded(_BOND, (1 - near[end]) / 2),
                linewidth=0.17 * points_per_angstrom,
                solid_capstyle="butt",
                zorder=2 + near[end] - 0.01,
            )
            axes.add_artist(half)
    for number, colour, (x, y, _), closeness, ring in zip(
        known(z), element, pos, near, rings, strict=True
    ):
        haze = (1 - closeness) / 2 if colours is None else 0.0
        radius = BALL * covalent_radii[number] * (1 + _PERSPECTIVE * closeness)
        if ring:
            axes.add_artist(
                Circle(
                    (x, y),
                    radius + _RING,
                    facecolor="none",
                    edgecolor=VERMILION,
                    linewidth=0.07 * points_per_angstrom,
                    zorder=2 + closeness,
                )
            )
        ball = Circle(
            (x, y),
            radius,
            facecolor=_faded(colour, haze),
            edgecolor=_faded(_EDGE, haze),
            linewidth=0.5,
            zorder=2 + closeness,
        )
        axes.add_artist(ball)
        # Red against green says nothing to some readers, a letter does; carbon is grey otherwise.
        if number not in ((1, 6) if colours is None else (1,)):
            axes.text(
                x,
                y,
                chemical_symbols[number],
                ha="center",
                va="center_baseline",
                fontsize=0.4 * points_per_angstrom,
                color="white" if colour @ _LUMINANCE < 0.6 else _faded(_EDGE / 2, haze),
                fontweight="bold",
                zorder=2 + closeness + 0.001,
            )
