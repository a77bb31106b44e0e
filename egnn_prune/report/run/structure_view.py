"""Structures as numbers that a page draws and turns: elements, bonds, errors, cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from egnn_prune.errors import DataError
from egnn_prune.report.common.files import Predictions
from egnn_prune.report.common.formatting import significant
from egnn_prune.report.common.page import StructureView
from egnn_prune.report.common.style import SPLIT_LABELS
from egnn_prune.report.run.error_bars import splits_present
from egnn_prune.report.run.force_bars import force_bars
from egnn_prune.report.run.gallery import MODEL, exhibits
from egnn_prune.report.run.hanging import LITTLE_TO_MUCH
from egnn_prune.report.run.molecule import BALL, bonds, known, principal_axes

Array = NDArray[np.float64]

MOST_STRUCTURES, MOST_ATOMS = 12, 300
"""Structures of a view, and atoms of one: what a page can hold and a reader tell apart."""

_FROM_ABOVE = np.array([[0.94, 0.0, 0.342], [0.117, 0.94, -0.321], [-0.321, 0.342, 0.883]])
"""First view of a periodic cell: 20 degrees from its side, 20 from above."""


@dataclass(frozen=True)
class Shown:
    """A structure to look at.

    Attributes:
        caption: Which one it is, with its errors and error bars.
        z: ``[n]`` atomic numbers.
        pos: ``[n, 3]`` in Angstrom.
        error: ``[n]`` of the forces on its atoms, root mean square of the components; or None.
        bar: ``[n]`` their error bars, in the same unit; None: there are none.
        cell: ``[3, 3]`` lattice vectors in Angstrom, zero where it does not repeat; or None.
    """

    caption: str
    z: NDArray[np.int64]
    pos: Array
    error: Array | None = None
    bar: Array | None = None
    cell: Array | None = None


def structure_view(shown: Sequence[Shown], unit: str) -> list[StructureView]:
    """The block of a page with the first `MOST_STRUCTURES`; empty where there is none to show.

    Args:
        shown: Those of more than `MOST_ATOMS`, or with positions that are no numbers, are left out.
        unit: Of errors and error bars of forces.
    """
    fit = [s for s in shown if len(s.z) <= MOST_ATOMS and np.isfinite(s.pos).all()]
    fit = fit[:MOST_STRUCTURES]
    if not fit:
        return []
    values = [v[np.isfinite(v)] for s in fit for v in (s.error, s.bar) if v is not None]
    most = float(max((v.max(initial=0.0) for v in values), default=0.0)) or 1.0
    colours = [("element", "element")]
    if any(s.error is not None for s in fit):
        colours.append(("error", "force error"))
    if any(s.bar is not None for s in fit):
        colours.append(("bar", "error bar of the force"))
    data = {
        "unit": unit,
        "most": _short(most),
        "scale": [_rgb(to_rgb(colour)) for colour in LITTLE_TO_MUCH],
        "elements": {
            int(z): {
                "symbol": chemical_symbols[z],
                "colour": _rgb(jmol_colors[z]),
                "radius": round(BALL * float(covalent_radii[z]), 3),
            }
            for z in np.unique(np.concatenate([known(s.z) for s in fit]))
        },
        "structures": [_numbers(each, most) for each in fit],
    }
    note = (
        "Drag a structure, or use the arrow keys, to turn it. The errors and error bars of the "
        "forces on its atoms have one scale for all structures; grey: not known."
        if len(colours) > 1
        else "Drag a structure, or use the arrow keys, to turn it."
    )
    return [StructureView(data, colours, note)]


def _numbers(shown: Shown, most: float) -> dict[str, Any]:
    """Flat lists, rounded to what can be seen; an infinite error bar is drawn as the longest."""
    periodic = shown.cell is not None and bool(shown.cell.any())
    found: dict[str, Any] = {
        "caption": shown.caption,
        "z": known(shown.z).tolist(),
        "pos": shown.pos.round(3).ravel().tolist(),
        "bonds": bonds(shown.z, shown.pos).ravel().tolist(),
        "turn": (_FROM_ABOVE if periodic else principal_axes(shown.pos)).round(4).ravel().tolist(),
    }
    for key, values in (("error", shown.error), ("bar", shown.bar)):
        if values is not None:
            found[key] = [None if np.isnan(v) else _short(min(v, most)) for v in values]
    if periodic:
        found["cell"] = shown.cell.round(3).ravel().tolist()  # type: ignore[union-attr]
    return found


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def _rgb(colour: Sequence[float]) -> list[int]:
    return [round(255 * float(part)) for part in colour]


def of_forces(error: Array, bar: Array | None, unit: str) -> str:
    """The end of a caption: the largest error and the longest error bar of the atoms."""
    longest = f", longest error bar {_largest(bar)}" if bar is not None else ""
    return f"Largest force error on an atom {_largest(error)}{longest} {unit}."


def _largest(values: Array) -> str:
    most = float(values.max(where=~np.isnan(values), initial=0.0))
    return significant(most, 2) if np.isfinite(most) else "infinite"


def gallery_view(predictions: Predictions, unit: str) -> list[StructureView]:
    """Those of the gallery with the longest error bars, of each split alike; empty without any.

    Args:
        predictions: The arrays of ``predictions.npz``.
        unit: Of the target.

    Raises:
        DataError: If arrays do not fit together; the message names one.
    """
    halls = {split: exhibits(predictions, split) for split in splits_present(predictions)}
    halls = {split: hall for split, hall in halls.items() if hall}
    shown = []
    for split, hall in halls.items():
        forces = force_bars(predictions, split, MODEL)
        for each in hall[: MOST_STRUCTURES // len(halls)]:
            which = f"{SPLIT_LABELS[split]} structure {each.row}"
            if each.frame is not None:
                which += f" (frame {each.frame} of the data set)"
            caption = (
                f"{which}: {each.label}. Error {significant(each.mean - each.target, 2)}, "
                f"error bar {significant(each.std, 2)} {unit}."
            )
            error = bar = None
            if forces is not None and (own := forces.structure == each.row).any():
                error, bar = forces.size[own], forces.atoms.final[own]
                if error.shape != each.z.shape:
                    raise DataError(
                        f"predictions: structure {each.row} of {split} has {len(each.z)} atoms in "
                        f"the gallery and {len(error)} in '{split}_forces_atoms'"
                    )
                caption += f" {of_forces(error, bar, f'{unit}/Å')}"
            shown.append(Shown(caption, each.z, each.given, error, bar, each.cell))
    return structure_view(shown, f"{unit}/Å")
