"""Dynamics at a temperature that is held, or rises or falls along a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.constraints import FixCom
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin

from egnn_prune.ase.velocities import MAX_TEMPERATURE_K, degrees_of_freedom, is_held_in_space
from egnn_prune.errors import ConfigError

KINDS = ("langevin", "bussi")


@dataclass(frozen=True)
class Thermostat:
    """ASE's thermostats, over the degrees of freedom that a structure has.

    Attributes:
        kind: ``"langevin"`` (friction and random kicks on every atom), or ``"bussi"`` (velocities
            are rescaled at random, which disturbs the dynamics least).
        kelvin: the temperature.
        heat_to: what it changes to linearly over the run; ``None`` keeps it.
        friction: of Langevin's, in 1/fs.
        taut: time constant of Bussi's, in fs.
        seed: of the random numbers.

    Raises:
        ConfigError: a number is out of range.
    """

    kind: str
    kelvin: float = 300.0
    heat_to: float | None = None
    friction: float = 0.02
    taut: float = 100.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"the thermostat is one of {', '.join(KINDS)}, not {self.kind!r}")
        for kelvin in (self.kelvin, self.kelvin if self.heat_to is None else self.heat_to):
            if not 0 < kelvin <= MAX_TEMPERATURE_K:
                raise ConfigError(
                    f"a thermostat's temperature is above 0 K and at most 1e5 K, not {kelvin}"
                )
        for name in ("friction", "taut"):
            if not 0 < getattr(self, name) < np.inf:
                raise ConfigError(f"{name} must be positive, not {getattr(self, name)}")

    def at(self, share: float) -> float:
        """The temperature in K after a share of the run."""
        end = self.kelvin if self.heat_to is None else self.heat_to
        return self.kelvin + min(max(share, 0.0), 1.0) * (end - self.kelvin)

    def text(self) -> str:
        """Kind and temperature for people."""
        rises = self.heat_to is not None
        kelvin = f"from {self.kelvin:g} to {self.heat_to:g}" if rises else f"at {self.kelvin:g}"
        return f"{self.kind.capitalize()} thermostat {kelvin} K"

    def integrator(self, atoms: Atoms, timestep: float) -> Any:
        """The dynamics of ASE, with steps in fs.

        A structure that nothing holds in space gets a :class:`ase.constraints.FixCom`: its centre
        of mass stays, without changing the temperature of the rest.
        """
        if not is_held_in_space(atoms) and not any(
            isinstance(c, FixCom) for c in atoms.constraints
        ):
            atoms.set_constraint([*atoms.constraints, FixCom()])
        step, draws = timestep * units.fs, np.random.default_rng(self.seed)
        if self.kind == "langevin":
            return Langevin(
                atoms,
                step,
                temperature_K=self.kelvin,
                friction=self.friction / units.fs,
                rng=draws,
                fixcm=False,
            )
        found = Bussi(atoms, step, self.kelvin, self.taut * units.fs, rng=draws)
        found.ndof = degrees_of_freedom(atoms)  # ASE counts rotations, which stay at rest here
        self.hold(found, 0.0)
        return found

    def hold(self, dynamics: Any, share: float) -> None:
        """Set the temperature for this share of the run."""
        kelvin = self.at(share)
        if isinstance(dynamics, Bussi):
            dynamics.temp = units.kB * kelvin
            dynamics.target_kinetic_energy = 0.5 * dynamics.temp * dynamics.ndof
        else:
            dynamics.set_temperature(temperature_K=kelvin)
