"""What a specialist did along a simulation: a table, a summary and a figure."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from egnn_prune.ase.dynamics_state import row_text, rows_of
from egnn_prune.ase.specialist import SpecialistCalculator
from egnn_prune.ase.velocities import temperature
from egnn_prune.report.common.csv_file import write_rows
from egnn_prune.report.common.files import write_atomic
from egnn_prune.system.growing_file import GrowingFile

COLUMNS = (
    "time_fs",
    "temperature_K",
    "max_force_std",
    "max_distance",
    "asked",
    "reason",
    "checked_error",
    "checked_inside",
    "learned",
    "threshold",
)
#: Rows at most, besides those of checks and of learning; of a longer run they are evenly spread.
MOST_ROWS = 100_000


class WatchLog:
    """Called at every step of a simulation, the start included.

    Args:
        atoms: that move, with a :class:`~egnn_prune.ase.specialist.SpecialistCalculator`.
        timestep: in fs.
        steps: how many there will be.
        table: file that gets every row at once, as CSV, so that a killed run leaves them.
    """

    def __init__(
        self, atoms: Atoms, timestep: float, steps: int, table: GrowingFile | None = None
    ) -> None:
        assert isinstance(atoms.calc, SpecialistCalculator)
        self.atoms, self.calculator, self.timestep = atoms, atoms.calc, timestep
        self.every = max(1, steps // MOST_ROWS)
        self.rows: list[dict[str, Any]] = []
        self.table = table
        self._asked, self._unsure = bytearray(), 0
        self._errors: list[float] = []
        self._inside: list[float] = []

    def state(self) -> dict[str, Any]:
        """What a simulation that goes on needs; the rows are on the disk."""
        asked = np.packbits(np.frombuffer(bytes(self._asked), dtype=np.uint8))
        return {
            "steps": len(self._asked),
            "asked": asked.tobytes().hex(),
            "unsure": self._unsure,
            "errors": self._errors,
            "inside": self._inside,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """The opposite of :meth:`state`."""
        packed = np.frombuffer(bytes.fromhex(state["asked"]), dtype=np.uint8)
        self._asked = bytearray(np.unpackbits(packed, count=state["steps"]).tobytes())
        self._unsure = state["unsure"]
        self._errors, self._inside = list(state["errors"]), list(state["inside"])
        if self.table is not None:
            self.rows = rows_of(self.table.path, texts=("reason",))
            for row in self.rows:
                row |= {name: int(row[name]) for name in ("asked", "learned")}

    def __call__(self) -> None:
        """Write down what became of this step."""
        self.atoms.get_forces()
        found = self.calculator.last
        assert found is not None
        step = len(self._asked)
        self._asked.append(found.asked)
        self._unsure += bool(found.reason)
        checked = found.checked_error == found.checked_error
        if checked:
            self._errors.append(found.checked_error)
            self._inside.append(found.checked_inside)
        if step % self.every and not (checked or found.learned):
            return
        self.rows.append(
            {
                "time_fs": step * self.timestep,
                "temperature_K": temperature(self.atoms),
                "max_force_std": found.max_force_std,
                "max_distance": found.max_distance,
                "asked": int(found.asked),
                "reason": found.reason,
                "checked_error": found.checked_error,
                "checked_inside": found.checked_inside,
                "learned": int(found.learned),
                "threshold": found.threshold,
            }
        )
        self._put(self.rows[-1])

    def _put(self, row: dict[str, Any]) -> None:
        if self.table is None:
            return
        try:
            self.table.write(row_text(row, heading=len(self.rows) == 1))
        except OSError as error:  # all rows are still here, and written in the end
            self.table = None
            warnings.warn(f"cannot write specialist.csv on the way: {error}", stacklevel=2)

    def summary(self) -> dict[str, Any]:
        """What ``dynamics.json`` says of it; ``None`` for what there was none of.

        ``unsure`` counts the steps that the network was not sure of, ``asked`` those that the
        teacher answered, ``asked_share`` and ``asked_share_last_half`` are shares of steps;
        ``check_rmse`` (eV/Angstrom) and ``check_coverage_90`` are of the network's force
        components at random checks, whoever answered there.
        """
        calculator, asked = self.calculator, np.frombuffer(bytes(self._asked), dtype=np.uint8)
        half = asked[len(asked) // 2 :]
        checks = {
            "check_rmse": float(np.sqrt(np.mean(np.square(self._errors))))
            if self._errors
            else None,
            "check_coverage_90": float(np.mean(self._inside)) if self._inside else None,
        }
        agreement = calculator.agreement
        return {
            "teacher": None if calculator.teacher is None else calculator.teacher.name,
            "on_uncertain": calculator.on_uncertain,
            "forces_threshold": calculator.forces_threshold,
            "steps": len(asked),
            "unsure": self._unsure,
            "asked": int(asked.sum()),
            "switches": int(np.abs(np.diff(asked.astype(int))).sum()),
            "asked_share": float(asked.mean()) if len(asked) else None,
            "asked_share_last_half": float(half.mean()) if len(half) else None,
            "checks": len(self._errors),
            **checks,
            "waiting": len(calculator.collection.waiting),
            "learned": len(calculator.collection.learned),
            "attempts": calculator.attempts,
            "agreement": None if agreement is None else agreement.text(),
        }

    def write(self, folder: Path, title: str) -> None:
        """``specialist.csv`` and ``specialist.png``."""
        write_rows(self.rows, folder / "specialist.csv", COLUMNS)
        if len(self.rows) < 2:
            return
        from egnn_prune.report.common.style import png_bytes  # matplotlib
        from egnn_prune.report.run.watched_dynamics import watched_dynamics_plot

        figure = watched_dynamics_plot(self.rows, self.calculator.forces_threshold, title)
        write_atomic(folder / "specialist.png", png_bytes(figure))


def said(found: dict[str, Any]) -> str:
    """A summary as a sentence or two."""
    lines = []
    if found["on_uncertain"] in ("ask", "learn"):
        lines.append(
            f"the teacher {found['teacher']} answered {100 * (found['asked_share'] or 0):.1f} % of "
            f"{found['steps']} steps ({100 * (found['asked_share_last_half'] or 0):.1f} % in the "
            f"last half); {found['waiting']} structures wait in the collection"
        )
    else:
        share = 100 * found["unsure"] / max(found["steps"], 1)
        line = f"the network was not sure of {share:.1f} % of {found['steps']} steps"
        if found["teacher"] and not found["checks"]:
            line += (
                f"; the teacher {found['teacher']} was never asked (on-uncertain ask or learn asks "
                "it there, a check at random)"
            )
        lines.append(line)
    if found["on_uncertain"] == "learn":
        better = sum(attempt["accepted"] for attempt in found["attempts"])
        lines.append(
            f"learned {found['learned']} structures; {better} of {len(found['attempts'])} "
            "networks were better than the one before"
        )
    if found["checks"]:
        lines.append(
            f"{found['checks']} random checks: force error {1000 * found['check_rmse']:.3g} "
            f"meV/Angstrom, {100 * found['check_coverage_90']:.0f} % within the 90 % interval"
        )
    return "\n".join([*lines, *([found["agreement"]] if found["agreement"] else [])])
