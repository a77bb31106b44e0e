"""Both calculators in the same short simulation at constant energy: is it constant?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ase
import numpy as np

from egnn_prune.ase.dynamics import energy_conservation, run_nve
from egnn_prune.ase.velocities import set_thermal_velocities
from egnn_prune.audit.candidate import Candidate

TIMESTEP_FS, KELVIN = 0.5, 300.0
#: Frames that are kept, at most.
FRAMES = 200
#: Fewer steps say nothing about a drift.
FEWEST = 40
#: Of a drift, in meV/atom/ps.
DRIFT_LIMIT = 1.0


def dynamics(
    candidates: Mapping[str, Candidate], start: ase.Atoms, steps: int, seed: int
) -> list[dict[str, Any]]:
    """Velocity Verlet from the same start with the same velocities.

    Returns:
        For each calculator ``who``; ``drift`` of the total energy with its ``drift_error`` in
        meV/atom/ps, ``fluctuation`` about the line in meV/atom (NaN where the run stopped at
        once), ``stopped`` (why it ended early, or None), ``drifts`` (whether the drift is
        beyond two standard errors and :data:`DRIFT_LIMIT`), and ``time_ps`` and ``total`` in
        meV/atom less the first.
    """
    found = []
    for who, candidate in candidates.items():
        atoms = start.copy()
        atoms.set_constraint()
        set_thermal_velocities(atoms, KELVIN, seed)
        atoms.calc = candidate
        with TemporaryDirectory() as folder:
            run = run_nve(
                atoms,
                Path(folder) / "frames.extxyz",
                steps=steps,
                timestep=TIMESTEP_FS,
                interval=max(1, steps // FRAMES),
            )
        time, total = run.column("time_fs"), run.column("total_eV")
        drift = error = fluctuation = np.nan
        if len(time) >= 4:
            fit = energy_conservation(time, total, len(atoms))
            drift, error, fluctuation = fit.drift, fit.drift_error, fit.fluctuation
        found.append(
            {
                "who": who,
                "drift": drift,
                "drift_error": error,
                "fluctuation": fluctuation,
                "stopped": run.stopped,
                "drifts": bool(abs(drift) > max(2 * error, DRIFT_LIMIT)),
                "time_ps": (time / 1000).tolist(),
                "total": (1000 * (total - total[0]) / len(atoms)).tolist(),
            }
        )
    return found
