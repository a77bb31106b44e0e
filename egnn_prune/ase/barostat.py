"""Dynamics at a pressure that is held: the volume of the cell moves, its shape stays."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from ase import Atoms, __version__, units

from egnn_prune.ase.pressure import NO_STRESS
from egnn_prune.ase.thermostat import Thermostat
from egnn_prune.ase.velocities import constraints_of
from egnn_prune.errors import ConfigError, InputError


@dataclass(frozen=True)
class Barostat:
    r"""A pressure, held together with Langevin's thermostat.

    Both are ASE's ``LangevinBAOAB`` (Quigley and Probert, J. Chem. Phys. 120, 11432 (2004),
    https://doi.org/10.1063/1.1755657), which samples the ensemble of constant pressure and
    temperature: every atom, and the logarithm of the volume, feel friction and random kicks. The
    volume has the inertia :math:`W = 3 (N + 1) k_B T \tau^2` at the highest temperature of the
    run.

    Only the volume changes; angles and ratios of the cell stay. (ASE's variant for the shape adds
    the trace of the cell's momenta to its shear components, too.) The centre of mass moves with the
    thermostat's kicks, as it does in this ensemble.

    Attributes:
        pressure: in GPa, positive where it compresses (ASE's stress has the opposite sign).
        taup: time constant of the volume, in fs.

    Raises:
        ConfigError: a number is out of range.
    """

    pressure: float
    taup: float = 500.0

    def __post_init__(self) -> None:
        if not -np.inf < self.pressure < np.inf:
            raise ConfigError(f"pressure must be a number of GPa, not {self.pressure}")
        if not 0 < self.taup < np.inf:
            raise ConfigError(f"taup must be positive, not {self.taup}")

    def text(self) -> str:
        """The pressure for people."""
        return f"{self.pressure:g} GPa"

    def check(self, atoms: Atoms, thermostat: Thermostat | None) -> None:
        """Refuse what has no pressure that could be held.

        Args:
            atoms: with the calculator that answers along the run.
            thermostat: of the run.

        Raises:
            ConfigError: the thermostat is not Langevin's, or ASE is too old.
            InputError: the structure is not periodic in three directions or has constraints, or a
                teacher who answers gives no stress.
        """
        if thermostat is None or thermostat.kind != "langevin":
            raise ConfigError(
                "a pressure is held together with Langevin's thermostat only: the exact ensemble, "
                "and one whose state can be saved; give thermostat=langevin"
            )
        _langevin_baoab()
        if not atoms.pbc.all():
            raise InputError(
                "a pressure can be held only where the structure is periodic in three directions; "
                f"this one is so in {int(atoms.pbc.sum())}; give it a cell and boundaries, or go "
                "without a pressure"
            )
        if held := constraints_of(atoms):
            raise InputError(
                "a pressure moves every atom with the cell, and the structure has constraints "
                f"({held}); remove them, or go without a pressure"
            )
        if not getattr(atoms.calc, "gives_stress", True):
            raise InputError(NO_STRESS)

    def integrator(self, atoms: Atoms, timestep: float, thermostat: Thermostat) -> Any:
        """The dynamics of ASE, with steps in fs, and a state that can be saved.

        Raises:
            ConfigError: ASE is too old.
        """
        _langevin_baoab()
        from egnn_prune.ase.constant_pressure import ConstantPressure

        kelvin = max(thermostat.at(0.0), thermostat.at(1.0))
        taup = self.taup * units.fs
        return ConstantPressure(
            atoms,
            timestep * units.fs,
            temperature_K=thermostat.kelvin,
            externalstress=-self.pressure * units.GPa,
            hydrostatic=True,
            T_tau=units.fs / thermostat.friction,
            P_tau=taup,
            P_mass=3 * (len(atoms) + 1) * units.kB * kelvin * taup**2,
            rng=np.random.default_rng(thermostat.seed),
        )


def _langevin_baoab() -> None:
    try:
        import_module("ase.md.langevinbaoab")
    except ImportError:
        raise ConfigError(
            f"holding a pressure needs ASE 3.27 or newer, and this is {__version__}; update it "
            "(pip install -U ase), or go without a pressure"
        ) from None
