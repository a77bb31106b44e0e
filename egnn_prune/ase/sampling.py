"""Structures that a potential visits at several temperatures, for it to teach a smaller one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms, units
from ase.constraints import FixCom
from ase.md.langevin import Langevin
from torch import nn
from torch_geometric.data import Data
from tqdm import tqdm

from egnn_prune.ase.calculator import PrunedCalculator
from egnn_prune.ase.dynamics import HOTTER, SPARE_K
from egnn_prune.ase.structures import graph_of
from egnn_prune.ase.velocities import set_thermal_velocities, temperature
from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.training.distillation import (
    CLOSEST,
    bare,
    has_pairs_within,
    smallest_distance,
)
from egnn_prune.uncertainty import SinglePass


def dynamics_frames(
    teacher: nn.Module,
    structures: Sequence[Data],
    *,
    kelvin: Sequence[float] = (300.0, 600.0),
    steps: int = 200,
    interval: int = 20,
    timestep: float = 0.5,
    friction: float = 0.02,
    closest: float | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> list[Data]:
    """Frames of short Langevin dynamics (ASE's) of the teacher, from every structure.

    A run ends, and its last frame is not used, where it explodes: a number is not finite, it is
    far hotter than its thermostat (:data:`HOTTER`), or two atoms come too close.

    Args:
        teacher: predicts energies in eV.
        structures: where runs begin, single ``Data(z [N], pos [N, 3])``, periodic ones with
            ``cell`` and ``pbc``; those of one atom are passed over.
        kelvin: temperatures; each has a run of its own from each structure.
        steps: of a run.
        interval: steps between frames, so that there are ``steps // interval`` of a run.
        timestep: in fs.
        friction: of the thermostat, in 1/fs.
        closest: the smallest distance allowed, in Angstrom; by default 0.6 of the smallest in the
            structures.
        seed: of velocities and thermostat; the same seed gives the same frames.
        device: where the teacher runs, and stays.

    Returns:
        Structures without labels, for :func:`egnn_prune.training.label`.

    Raises:
        ConfigError: a number is out of range.
        DataError: there are no structures, or the teacher cannot read one.
    """
    numbers = (steps, interval, timestep, friction, *kelvin)
    if not kelvin or not all(0 < x < float("inf") for x in numbers):
        raise ConfigError(
            "dynamics need positive temperatures, steps, interval, timestep and friction, not "
            f"{list(kelvin)}, {steps}, {interval}, {timestep} and {friction}"
        )
    if not len(structures):
        raise DataError("there are no structures to start dynamics from; give at least one")
    starts = [bare(graph) for graph in structures]
    limit = CLOSEST * smallest_distance(starts) if closest is None else closest
    calculator = PrunedCalculator(
        SinglePass(teacher), None, "ignore", device, force_uncertainty=False, unit="eV"
    )
    found: list[Data] = []
    seeds = np.random.SeedSequence(seed).spawn(len(starts) * len(kelvin))
    with tqdm(total=len(seeds) * steps, desc="teacher's dynamics", unit="step", leave=False) as bar:
        for run, child in enumerate(seeds):
            graph, heat = starts[run // len(kelvin)], kelvin[run % len(kelvin)]
            if len(graph.pos) < 2:
                bar.update(steps)
                continue
            atoms = atoms_of(graph)
            atoms.set_constraint(FixCom())
            atoms.calc = calculator
            draws = np.random.default_rng(child)
            set_thermal_velocities(atoms, heat, int(draws.integers(2**31)))
            thermostat = Langevin(
                atoms,
                timestep * units.fs,
                temperature_K=heat,
                friction=friction / units.fs,
                rng=draws,
                fixcm=False,  # the constraint does it without changing the temperature
            )
            done = 0
            while done < steps:
                part = min(interval, steps - done)
                if not _advance(thermostat, part):
                    break
                frame = bare(graph_of(atoms))
                if not temperature(atoms) < HOTTER * heat + SPARE_K or has_pairs_within(
                    frame, limit
                ):
                    break
                if part == interval:
                    found.append(frame)
                done += part
                bar.update(part)
            bar.update(steps - done)
    return found


def _advance(thermostat: Langevin, steps: int) -> bool:
    """Make some steps; whether the structure can still be computed and is finite."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            thermostat.run(steps)
    except InputError:  # nor DataError, which is one
        return False
    atoms = thermostat.atoms
    return bool(np.isfinite(atoms.get_forces()).all() and np.isfinite(atoms.positions).all())


def atoms_of(graph: Data) -> Atoms:
    """A graph of :func:`~egnn_prune.ase.structures.graph_of` as a structure again."""
    atoms = Atoms(numbers=graph.z.numpy(), positions=graph.pos.double().numpy())
    if graph.get("cell") is not None:
        atoms.set_cell(graph.cell.reshape(3, 3).numpy())
        atoms.pbc = True if graph.get("pbc") is None else graph.pbc.flatten().numpy()
    return atoms
