"""ASE's dynamics at constant pressure, with a state that can be saved; needs ASE 3.27."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.langevinbaoab import LangevinBAOAB

from egnn_prune.ase.pressure import NO_STRESS
from egnn_prune.errors import DataError, InputError


class ConstantPressure(LangevinBAOAB):
    """``LangevinBAOAB`` which goes on exactly where it was.

    The force on the volume is that of velocities half a step before, and the forces may be those of
    a teacher that is not asked again; so both are saved beside the volume's momentum. Nothing is
    computed before the first step, in order that a calculator which goes on, too, gets its own
    state first.
    """

    _begun = False

    def _update_accel(self) -> None:
        if self._begun:
            super()._update_accel()

    def _update_force_eps(self) -> None:
        if self._begun:
            try:
                super()._update_force_eps()
            except PropertyNotImplementedError:  # a teacher's, who had promised one
                raise InputError(NO_STRESS) from None

    def step(self) -> None:
        """One step.

        Raises:
            DataError: the volume would change more than e-fold in it.
            InputError: there is no stress.
        """
        if not self._begun:
            self._begun = True
            self._update_accel()
            self._update_force_eps()
        speed = 3 * (self.p_eps + 0.5 * self.dt * self.force_eps) / self.barostat_mass
        if not abs(speed * self.dt) < 1:  # nor NaN
            raise DataError("its volume would change more than e-fold in one step")
        super().step()

    def state(self) -> dict[str, Any]:
        """What cannot be known from atoms and random numbers, as plain JSON."""
        return {
            "p_eps": float(self.p_eps),
            "force_eps": float(self.force_eps),
            "accelerations": self.accel.tolist(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """The opposite of :meth:`state`.

        Raises:
            ValueError: it is of other atoms.
        """
        self.p_eps, self.force_eps = float(state["p_eps"]), float(state["force_eps"])
        self.accel = np.array(state["accelerations"], dtype=np.float64)
        if self.accel.shape != self.atoms.positions.shape:
            raise ValueError("accelerations of other atoms")
        self._begun = True
