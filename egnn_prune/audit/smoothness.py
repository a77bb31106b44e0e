r"""Is the force the slope of the energy, and does either jump? Along straight lines.

Atoms move along a random unit direction u of all coordinates, :math:`r(s) = r_0 + s\,u`. With the
slope :math:`g(s) = -F(r(s)) \cdot u`,

.. math:: \rho(s) = E(r(s)) - E(r_0) - \int_0^s g(t)\,dt

is zero where forces are the exact gradient of a continuous energy. A second
difference of :math:`\rho` that is far from zero is a jump of the energy of that size; a fourth
difference of g is three times a jump of the force.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ase
import numpy as np
from scipy.interpolate import CubicSpline
from tqdm import tqdm

from egnn_prune.audit.candidate import Candidate

#: The atom that moves farthest moves so far each way, in Angstrom; points on a line.
REACH, POINTS = 0.1, 33
#: Limits in meV/Angstrom: of the energy's deviation over the length of the line; of a jump.
SLOPE_LIMIT, FORCE_JUMP_LIMIT = 1.0, 5.0
#: Of a jump of the energy, in meV.
ENERGY_JUMP_LIMIT = 1.0


def smoothness(
    candidates: Mapping[str, Candidate], structures: Sequence[ase.Atoms], seed: int
) -> list[dict[str, Any]]:
    r"""The worst of all lines, one through each structure, the same for both calculators.

    Returns:
        For each calculator ``who``; ``slope_error`` in meV/Angstrom, the largest
        :math:`|\rho|` of a line over half its length; ``energy_jump`` in meV; ``force_jump`` in
        meV/Angstrom; whether ``gradient`` and ``smooth`` hold; and ``lines`` with ``s`` in
        Angstrom, ``energy``, ``rest`` (:math:`\rho`) in meV and ``slope`` in meV/Angstrom.
    """
    found = []
    with tqdm(total=2 * len(structures) * POINTS, desc="lines", leave=False) as bar:
        for who, candidate in candidates.items():
            draws = np.random.default_rng(seed)
            lines = [_line(candidate, atoms, draws, bar) for atoms in structures]
            slope, energy, force = (
                max(line[key] for line in lines)
                for key in ("slope_error", "energy_jump", "force_jump")
            )
            found.append(
                {
                    "who": who,
                    "slope_error": slope,
                    "energy_jump": energy,
                    "force_jump": force,
                    "gradient": slope <= SLOPE_LIMIT,
                    "smooth": energy <= ENERGY_JUMP_LIMIT and force <= FORCE_JUMP_LIMIT,
                    "lines": lines,
                }
            )
    return found


def _line(
    candidate: Candidate, atoms: ase.Atoms, draws: np.random.Generator, bar: Any
) -> dict[str, Any]:
    unit = draws.normal(size=(len(atoms), 3))
    unit /= np.linalg.norm(unit)
    s = np.linspace(-1, 1, POINTS) * REACH / np.linalg.norm(unit, axis=1).max()
    energy, slope = np.zeros(POINTS), np.zeros(POINTS)
    for k in range(POINTS):
        moved = atoms.copy()
        moved.positions += s[k] * unit
        found = candidate.answer(moved, "a structure whose atoms were moved by 0.1 Å at most")
        energy[k], slope[k] = 1000 * found.energy, -1000 * float((found.forces * unit).sum())
        bar.update()
    energy -= energy[POINTS // 2]
    work = CubicSpline(s, slope).antiderivative()(s)
    rest = energy - (work - work[POINTS // 2])
    return {
        "slope_error": float(abs(rest).max() / s[-1]),
        "energy_jump": float(abs(np.diff(rest, 2)).max()),
        "force_jump": float(abs(np.diff(slope, 4)).max() / 3),
        "s": s.tolist(),
        "energy": energy.tolist(),
        "rest": rest.tolist(),
        "slope": slope.tolist(),
    }
