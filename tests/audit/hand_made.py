"""Calculators by hand whose faults are known, and structures that a sound one labelled."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from trained_models import ethanol


class HandMade(Calculator):
    """Gaussians between all pairs, smooth and exact, with the faults that are asked for.

    Args:
        shift: eV that the energy is off by.
        stretch: eV/Angstrom^2 by which x matters more than y: no symmetry under turns.
        scale: of the forces, which are no gradient then.
        swirl: eV/Angstrom^2 of forces about the z axis, which pump energy into the motion.
        stairs: eV of each step of the energy.
        wrong_on: atomic number, on whose atoms forces are off.
        noise: eV/Angstrom, standard deviation of forces.
        stated: eV/Angstrom, the error bar.
    """

    implemented_properties = [  # noqa: RUF012
        *("energy", "forces", "energy_uncertainty", "forces_uncertainty")
    ]

    def __init__(self, **faults: float) -> None:
        super().__init__()
        self.faults = faults

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = ("energy",), changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        z, pos, fault = self.atoms.numbers, self.atoms.positions, self.faults.get
        apart = pos[:, None] - pos[None]
        squares = (apart**2).sum(-1)
        each = 0.5 * np.sqrt(z[:, None] * z) * np.exp(-squares / 2)
        np.fill_diagonal(each, 0)
        centred = pos - pos.mean(0)
        energy = (
            each.sum() / 2
            + fault("shift", 0.0)
            + fault("stretch", 0.0) * (centred[:, 0] ** 2).sum()
        )
        forces = (each[:, :, None] * apart).sum(1)
        forces[:, 0] -= 2 * fault("stretch", 0.0) * centred[:, 0]
        energy += fault("stairs", 0.0) * np.floor(np.sqrt(squares).sum() / 0.2)
        forces *= fault("scale", 1.0)
        forces += fault("swirl", 0.0) * np.cross([0.0, 0.0, 1.0], centred)
        if "wrong_on" in self.faults:
            forces[z == fault("wrong_on")] += 0.2 * np.sin(7 * pos[z == fault("wrong_on")])
        draws = np.random.default_rng(np.frombuffer(pos.tobytes(), np.uint32))
        forces += fault("noise", 0.0) * draws.normal(size=pos.shape)
        self.results = {"energy": float(energy), "forces": forces}
        if "stated" in self.faults:
            self.results["forces_uncertainty"] = np.full(pos.shape, fault("stated"))


def labelled(count: int = 16, labels: bool = True) -> list[Atoms]:
    """Shaken ethanol, with the labels of the sound one."""
    found = []
    for seed in range(count):
        atoms = ethanol(0.08, seed)
        if labels:
            atoms.calc = HandMade()
            results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
            atoms.calc = SinglePointCalculator(atoms, **results)
        found.append(atoms)
    return found
