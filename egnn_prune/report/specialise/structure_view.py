"""Test structures to turn: those of the longest error bars and those of the largest errors."""

from __future__ import annotations

import numpy as np

from egnn_prune.report.common.formatting import significant
from egnn_prune.report.common.page import StructureView
from egnn_prune.report.run.molecule import formula
from egnn_prune.report.run.structure_view import (
    MOST_ATOMS,
    MOST_STRUCTURES,
    Shown,
    of_forces,
    structure_view,
)
from egnn_prune.report.specialise.error_bars import energy_bars, force_bars
from egnn_prune.report.specialise.files import Structures

MODEL = "specialised"
"""Whose errors are shown."""
_UNIT = "meV/Å"


def structures_to_turn(test: Structures) -> list[StructureView]:
    """Half of them by error bar, half by error, each structure once; empty without positions."""
    if test.pos is None or MODEL not in test.all_forces:
        return []
    bars = force_bars(test, MODEL)
    error = np.sqrt((test.force_errors(MODEL) ** 2).mean(axis=1))
    std = None if bars is None else bars.atoms.final
    starts = np.cumsum(test.atoms) - test.atoms
    orders = {"largest force error": error} | ({} if std is None else {"longest error bar": std})
    chosen: dict[int, str] = {}
    for why, values in reversed(orders.items()):
        most = np.maximum.reduceat(np.nan_to_num(values, nan=0.0, posinf=np.inf), starts)
        ranked = [b for b in np.argsort(-most, kind="stable") if test.atoms[b] <= MOST_ATOMS]
        left = [int(b) for b in ranked if int(b) not in chosen]
        chosen |= {b: why for b in left[: MOST_STRUCTURES // len(orders)]}
    energy = energy_bars(test, MODEL)
    shown = []
    for b, why in chosen.items():
        own = slice(starts[b], starts[b] + test.atoms[b])
        which = f"test structure {b}"
        if test.frame is not None:
            which += f" (frame {test.frame[b]:.0f} of the data)"
        caption = f"{formula(test.z[own])}, {which}, here for its {why}."
        off = test.energy_errors(MODEL)[b]
        caption += f" Error of the energy {significant(off, 2)} meV per atom"
        if energy is not None:
            caption += f", error bar {significant(energy.final[b] / test.atoms[b], 2)}"
        caption += f". {of_forces(error[own], None if std is None else std[own], _UNIT)}"
        cell = None if test.cell is None else test.cell[b]
        of_atoms = error[own], None if std is None else std[own]
        shown.append(Shown(caption, test.z[own], test.pos[own], *of_atoms, cell))
    return structure_view(shown, _UNIT)
